"""Channels made from a directory end with it."""

import gc

import grpc
import pytest

import shoal.aio.directory
from shoal.errors import DirectoryClosedError
from shoal_balancer import Replica
from tests.support.waiting import eventually

A = Replica("a", "127.0.0.1", 1)


def test_closing_the_directory_closes_the_channels_that_are_still_in_use(directories):
    directory = directories()
    directory.announce("jobs", A)
    kept = directory.channel("jobs")
    directory.channel("jobs").close()
    gc.collect()
    assert list(directory._channels) == [kept]
    assert isinstance(kept, grpc.Channel)
    with directory.channel("jobs") as other:
        assert other is not kept
    directory.close()
    with pytest.raises(ValueError, match="closed channel"):
        kept.unary_unary("/s/M")(b"")
    with pytest.raises(DirectoryClosedError):
        directory.channel("jobs")


def test_a_channel_says_what_the_directory_knows_when_there_is_no_replica(directories):
    directory = directories()
    watch = directory.watch("nobody")
    eventually(lambda: watch.known)
    with directory.channel("nobody") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/s/M")(b"", timeout=10.0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert watch.path in caught.value.details()
    assert "connected; 0 replicas" in caught.value.details()


async def test_leaving_the_asyncio_directory_closes_its_channels(chroot, tmp_path):
    async with shoal.aio.directory.Directory(chroot, cache_dir=tmp_path) as directory:
        channel = directory.channel("jobs")
        assert isinstance(channel, grpc.aio.Channel)
        assert not channel.pool.closed
    assert channel.pool.closed
    with pytest.raises(DirectoryClosedError):
        directory.channel("jobs")
