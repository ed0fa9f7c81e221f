"""The callers: Shoal with its shipped defaults, and those that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio

import shoal
import shoal.aio
from benchmarks.paired.processes import EchoProcess
from shoal.channel import DEFAULT_RETRY, Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

OURS = "Shoal"
CORE = "core round robin"
DIRECT = "bare grpcio, one server"

SERVICE = "echo"
REQUEST = echo_pb2.EchoRequest(payload=b"x" * 100)
# Of every call that is not about deadlines, seconds.
TIMEOUT = 10.0

# Each caller has connections of its own: with grpc's pool for the process two channels to one
# address would share one.
LOCAL: tuple[tuple[str, Any], ...] = (("grpc.use_local_subchannel_pool", 1),)
ROUND_ROBIN = (
    *LOCAL,
    ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
    # By default it is the whole list, which servers refuse as too long when there are a thousand.
    ("grpc.default_authority", "localhost"),
)

Call = Callable[[], Any]


def static_list(targets: Sequence[str]) -> str:
    """The servers as a target of grpc's core."""
    return "ipv4:" + ",".join(targets)


@contextmanager
def servers(*works: float, fail: int = 0, threads: bool = False) -> Iterator[list[EchoProcess]]:
    """Echo servers: one for each of ``works``, then ``fail`` that fail.

    They run on asyncio, or with threads, as most of grpc's servers in Python do.
    """
    with ExitStack() as stack:
        started = [stack.enter_context(EchoProcess(work=work, threads=threads)) for work in works]
        started += [stack.enter_context(EchoProcess(fail=True)) for _ in range(fail)]
        for server in started:
            server.wait()
        yield started


@contextmanager
def stub(
    name: str, targets: Sequence[str], retry: shoal.Retry | None = None
) -> Iterator[echo_pb2_grpc.EchoStub]:
    """A blocking caller: ours, the core's round robin, or bare grpcio to the first target."""
    with ExitStack() as stack:
        if name == OURS:
            directory = stack.enter_context(FixedDirectory({SERVICE: targets}))
            channel: grpc.Channel = Channel(directory, SERVICE, retry=retry or DEFAULT_RETRY)
        elif name == CORE:
            channel = grpc.insecure_channel(static_list(targets), ROUND_ROBIN)
        else:
            channel = grpc.insecure_channel(targets[0], LOCAL)
        yield echo_pb2_grpc.EchoStub(stack.enter_context(channel))


@contextmanager
def calls_of(peers: dict[str, Sequence[str]]) -> Iterator[dict[str, Call]]:
    """For each peer a blocking echo."""
    with ExitStack() as stack:
        yield {
            name: partial(stack.enter_context(stub(name, targets)).Echo, REQUEST, timeout=TIMEOUT)
            for name, targets in peers.items()
        }


def aio_channel(name: str, targets: Sequence[str]) -> Any:
    """The same for asyncio; to be made on the running loop, and closed by ``async with``."""
    if name == OURS:
        # Nothing in it has to be closed but its channels.
        return shoal.aio.Channel(FixedDirectory({SERVICE: targets}), SERVICE)
    if name == CORE:
        return grpc.aio.insecure_channel(static_list(targets), ROUND_ROBIN)
    return grpc.aio.insecure_channel(targets[0], LOCAL)


def nowhere(number: int) -> str:
    """A target that nobody listens at, different for each number below 16 million."""
    return f"127.{number // 65536 + 1}.{number // 256 % 256}.{number % 256}:1"
