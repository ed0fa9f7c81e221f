"""What S3 has that a directory has not: parts, throttling, connections that break off, doors."""

import hashlib
import socket
import sys
import threading
import tracemalloc

import pytest

from shoal_gateway import s3store
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError
from shoal_gateway.s3store import S3ObjectStore
from tests.support.awsfront import RefusedError, front

__all__ = ["front"]

MIB = 1024 * 1024
# The least that S3 (and moto) takes as a part that is not the last.
LEAST = 5 * MIB


@pytest.fixture
def bucket(moto):
    return moto.bucket()


@pytest.fixture
def store(bucket, monkeypatch):
    monkeypatch.setattr(s3store, "PART", LEAST)
    return ObjectStore.open(f"s3://{bucket}/objects")


def blocks(count, size=MIB):
    return (bytes([number % 251]) * size for number in range(count))


def digest(chunks):
    made = hashlib.sha256()
    for chunk in chunks:
        made.update(chunk)
    return made.hexdigest()


def uploads(moto, bucket):
    return moto.client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", [])


def test_a_large_object_goes_in_parts_and_comes_back(store, moto, bucket):
    wanted = digest(blocks(12))
    stored = store.put("large", blocks(12), sha256=wanted)
    assert (stored.size, stored.sha256) == (12 * MIB, wanted)
    assert digest(store.get("large")) == wanted
    assert b"".join(store.get("large", 11 * MIB)) == bytes([11]) * MIB
    found = moto.client("s3").head_object(Bucket=bucket, Key="objects/large")
    assert found["ETag"].strip('"').endswith("-3")
    assert found["Metadata"] == {"sha256": wanted}
    assert store.stat("large").sha256 == wanted
    assert uploads(moto, bucket) == []


def test_parts_are_cut_at_their_size_and_not_before(store, moto, bucket):
    for size, parts in ((LEAST, None), (LEAST + 1, "-2"), (2 * LEAST, "-2")):
        store.put("x", [b"x" * size])
        etag = moto.client("s3").head_object(Bucket=bucket, Key="objects/x")["ETag"].strip('"')
        assert (etag[-2:] if "-" in etag else None) == parts
        assert store.stat("x").size == size


def test_an_object_has_its_checksum_beside_it(store, moto, bucket):
    wanted = digest([b"content"])
    store.put("small", [b"content"])
    found = moto.client("s3").head_object(Bucket=bucket, Key="objects/small")
    assert found["Metadata"] == {"sha256": wanted}
    assert store.stat("small").sha256 == wanted


def test_a_large_object_of_unknown_checksum_is_stored_without(store):
    stored = store.put("large", blocks(6))
    assert stored.sha256 == digest(blocks(6))
    assert store.stat("large").sha256 == ""


@pytest.mark.parametrize("kind", ["source", "checksum", "stopped"])
def test_parts_of_what_failed_are_given_up(store, moto, bucket, kind):
    class StoppedError(BaseException):
        """As KeyboardInterrupt, without stopping the tests."""

    def chunks():
        yield from blocks(11)
        if kind == "source":
            raise OSError("disk gone")
        if kind == "stopped":
            raise StoppedError

    begun = []
    real = store._s3.create_multipart_upload
    store._s3.create_multipart_upload = lambda **facts: begun.append(facts) or real(**facts)
    with pytest.raises(StoppedError if kind == "stopped" else ObjectStoreError):
        store.put("large", chunks(), sha256="0" * 64)
    assert len(begun) == 1
    assert uploads(moto, bucket) == []
    assert not store.exists("large")


def test_a_stream_of_any_length_takes_the_memory_of_two_parts(store):
    tracemalloc.start()
    try:
        store.put("large", blocks(40))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # And that of a chunk, with room to grow.
    assert most < 2.5 * LEAST


def test_two_prefixes_of_a_bucket_do_not_see_each_other(bucket):
    one, two = (ObjectStore.open(f"s3://{bucket}/{each}") for each in ("a", "ab"))
    one.put("x", [b"one"])
    two.put("x", [b"two"])
    assert [each.key for each in one.list("")] == ["x"]
    assert b"".join(two.get("x")) == b"two"
    assert [each.key for each in ObjectStore.open(f"s3://{bucket}").list("")] == ["a/x", "ab/x"]


def test_more_objects_than_a_page_are_listed(store, moto, bucket):
    client = moto.client("s3")
    for number in range(25):
        client.put_object(Bucket=bucket, Key=f"objects/n/{number:04d}", Body=b"x")
    assert [each.key for each in store.list("n/")] == [f"n/{number:04d}" for number in range(25)]


class Cutter:
    """Stands between the store and moto; cuts off the first answers' bodies.

    Args:
        target: Moto's URL.
        cuts: How many connections are cut.
        after: Bytes of an answer that get through.
    """

    def __init__(self, target, cuts, after) -> None:
        self._target = ("127.0.0.1", int(target.rpartition(":")[2]))
        self.cuts = cuts
        self._after = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join(30)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=[connection]))
            self._threads[-1].start()

    def _serve(self, connection):
        with connection, socket.create_connection(self._target) as to:
            up = threading.Thread(target=self._copy, args=[connection, to])
            up.start()
            passed = 0
            while data := to.recv(65536):
                passed += len(data)
                if passed > self._after and self.cuts > 0:
                    self.cuts -= 1
                    break
                connection.sendall(data)
            connection.shutdown(socket.SHUT_RDWR)
            up.join()

    @staticmethod
    def _copy(source, to):
        try:
            while data := source.recv(65536):
                to.sendall(data)
        except OSError:
            pass  # the other side has ended it


@pytest.fixture
def cut(bucket, moto, monkeypatch):
    """Makes a store whose downloads break off."""
    made = []

    def make(cuts, after=2 * MIB):
        cutter = Cutter(moto.url, cuts, after)
        made.append(cutter)
        monkeypatch.setenv("AWS_ENDPOINT_URL", cutter.url)
        return cutter, ObjectStore.open(f"s3://{bucket}/objects")

    yield make
    for each in made:
        each.close()


def test_a_download_that_breaks_off_goes_on_where_it_was(store, cut):
    wanted = digest(blocks(12))
    store.put("large", blocks(12), sha256=wanted)
    cutter, through = cut(3)
    assert digest(through.get("large")) == wanted
    assert digest(through.get("large", MIB)) == digest(list(blocks(12))[1:])
    assert cutter.cuts == 0


def test_a_download_does_not_go_on_in_another_object(store, cut):
    store.put("large", blocks(12))
    _, through = cut(1)
    taken = through.get("large")
    next(taken)
    store.put("large", blocks(13))
    with pytest.raises(ObjectStoreError, match="PreconditionFailed"):
        for _ in taken:
            pass


def test_a_download_that_never_gets_on_is_given_up(store, cut):
    store.put("large", blocks(6))
    # Only the answer's head gets through, if that.
    _, through = cut(100, after=600)
    with pytest.raises(ObjectStoreError, match="large can't be read"):
        for _ in through.get("large"):
            pass


def test_throttling_is_waited_out_and_a_denial_is_said(bucket, front):
    store = ObjectStore.open(f"s3://{bucket}/objects")
    front.failing["PUT"] = [RefusedError("SlowDown", status=503)] * 2
    store.put("x", [b"content"])
    front.failing["GET"] = [RefusedError("SlowDown", status=503)]
    assert b"".join(store.get("x")) == b"content"
    assert (front.count["PUT"], front.failing["PUT"], front.failing["GET"]) == (3, [], [])
    front.failing["PUT"] = [RefusedError("AccessDenied", "no s3:PutObject for you", 403)]
    with pytest.raises(
        ObjectStoreError, match=r"x can't be stored: access denied.*no s3:PutObject"
    ):
        store.put("x", [b"other"])
    front.failing["GET"] = [RefusedError("ExpiredToken", "old", 400)]
    with pytest.raises(ObjectStoreError, match="the credentials have expired"):
        store.get("x")


def test_what_is_missing_is_told_from_what_is_forbidden(bucket, front):
    store = ObjectStore.open(f"s3://{bucket}/objects")
    store.put("a/b", [b"content"])
    # As AWS answers where a role may list by prefix only, which HEAD does not name.
    front.failing["HEAD"] = [RefusedError("AccessDenied", "no", 403)] * 9
    assert [store.exists(key) for key in ("a/b", "a", "a/bc", "b")] == [True, False, False, False]
    front.failing["GET"] = [RefusedError("AccessDenied", "no s3:ListBucket for you", 403)]
    with pytest.raises(ObjectStoreError, match=r"b can't be looked for: access denied"):
        store.exists("b")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket/x", "no such bucket"),
        ("s3://bucket-1/a/../b", "without '..'"),
        ("s3://bucket-1/a//b", "relative path"),
        ("s3://user@bucket-1/a", "s3://bucket/prefix"),
        ("s3://bucket-1/a?versionId=7", "s3://bucket/prefix"),
        ("s3:///a", "s3://bucket/prefix"),
        ("s3://UPPER_case!/a", "s3://UPPER_case!"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_said(moto, url, said):
    with pytest.raises((ObjectStoreError, ValueError), match=said):
        ObjectStore.open(url)


def test_no_credentials_is_said(moto, monkeypatch):
    for each in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(each)
    with pytest.raises(ObjectStoreError, match=r"no credentials .* AWS_PROFILE"):
        ObjectStore.open("s3://bucket/x")


def test_without_boto3_the_extra_is_named(moto, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ObjectStoreError, match=r"pip install 'shoal\[aws\]'"):
        ObjectStore.open("s3://bucket/x")


def test_it_says_where_it_is(bucket):
    made = ObjectStore.open(f"s3://{bucket}/some/prefix/")
    assert isinstance(made, S3ObjectStore)
    assert repr(made) == f"S3ObjectStore('s3://{bucket}/some/prefix')"
