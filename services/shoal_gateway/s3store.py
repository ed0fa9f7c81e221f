"""Objects in an S3 bucket: the object store of hosts that share no disk."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.objectstore import CHUNK, ObjectStore, ObjectStoreError, Stored, key_parts

logger = logging.getLogger(__name__)

# Bytes that are gathered until they are sent. What is smaller goes in one request, what is larger
# in parts of this size; two are held at a time.
PART = 8 * 1024 * 1024
# S3 takes 10 000 parts of an object. Parts grow by PART each time that so many were sent: enough
# for 440 GiB, and only who stores as much needs up to 160 MiB for it. What is larger S3 refuses.
GROW = 1000
# How often a download that breaks off goes on where it was, without a byte in between.
RESUMES = 4
# Threads of a service that call at once, with room.
CONNECTIONS = 32


class S3ObjectStore(ObjectStore):
    """Objects below a prefix of a bucket.

    S3 shows an object when it is complete and never before. Each request carries the SHA-256 of its
    body, which S3 checks; the whole object's is checked here before it becomes visible, and is kept
    as metadata ``sha256`` where it is known when the upload begins.

    Args:
        bucket: Its name.
        prefix: Before each key; empty, or without slashes around it.
        client: Of S3.
    """

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._s3 = client

    @classmethod
    def at(cls, url: str) -> S3ObjectStore:
        """The store behind ``s3://bucket/prefix``, once its bucket has answered.

        Raises:
            ValueError: it is no such URL.
            ObjectStoreError: boto3 or credentials are missing, or the bucket can't be used.
        """
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        odd = parts.query or parts.fragment or "@" in parts.netloc or ":" in parts.netloc
        if parts.scheme != "s3" or not parts.netloc or odd:
            raise ValueError(f"an object store in S3 is given as s3://bucket/prefix, not {url!r}")
        if prefix:
            try:
                key_parts(prefix)
            except ObjectStoreError as error:
                raise ValueError(f"{url!r}: {error}") from error
        try:
            store = cls(parts.netloc, prefix, clients.client("s3", connections=CONNECTIONS))
        except AwsError as error:
            raise ObjectStoreError(f"{url}: {error}") from error
        store.check()
        return store

    def __repr__(self) -> str:
        return f"S3ObjectStore('s3://{self._bucket}/{self._prefix.rstrip('/')}')"

    def check(self) -> None:
        """Asks the bucket for a look at it.

        Raises:
            ObjectStoreError: it can't be read, and why.
        """
        with self._speaking("", "can't be used"):
            # Not HEAD, whose errors have no words.
            self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def put(self, key: str, chunks: Iterable[bytes], sha256: str | None = None) -> Stored:
        """Stores an object: in one request, or in parts that nobody sees before the last."""
        name = self._name(key)
        taken = _Taken(key, chunks, sha256)
        try:
            if taken.gather():
                self._put_parts(name, taken)
            else:
                taken.check()
                body = taken.part()
                with self._speaking(key, "can't be stored"):
                    self._s3.put_object(
                        Bucket=self._bucket,
                        Key=name,
                        Body=body,
                        ChecksumAlgorithm="SHA256",
                        ChecksumSHA256=_checksum(body),
                        Metadata={"sha256": taken.sha256},
                    )
        except OSError as error:
            # The source's: boto3's own are told above.
            raise ObjectStoreError(f"{key}: can't be stored: {error}") from error
        return Stored(key, taken.size, taken.sha256)

    def _put_parts(self, name: str, taken: _Taken) -> None:
        known = {"Metadata": {"sha256": taken.announced}} if taken.announced else {}
        place = {"Bucket": self._bucket, "Key": name}
        with self._speaking(taken.key, "can't be stored"):
            begun = self._s3.create_multipart_upload(**place, ChecksumAlgorithm="SHA256", **known)
        place["UploadId"] = begun["UploadId"]
        try:
            sent: list[dict[str, Any]] = []
            while taken.gather():
                # No name for a part: under it, it would be held while the next one is gathered.
                sent.append(self._put_part(taken.key, place, len(sent) + 1, taken.part()))
            sent.append(self._put_part(taken.key, place, len(sent) + 1, taken.part()))
            taken.check()
            with self._speaking(taken.key, "can't be stored"):
                self._s3.complete_multipart_upload(**place, MultipartUpload={"Parts": sent})
        except BaseException:
            self._abort(taken.key, place)
            raise

    def _put_part(
        self, key: str, place: dict[str, Any], number: int, part: bytes
    ) -> dict[str, Any]:
        """Sends one part; what the upload's end has to say of it."""
        checksum = _checksum(part)
        with self._speaking(key, "can't be stored"):
            answer = self._s3.upload_part(
                **place,
                PartNumber=number,
                Body=part,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
        return {"ETag": answer["ETag"], "PartNumber": number, "ChecksumSHA256": checksum}

    def _abort(self, key: str, place: dict[str, Any]) -> None:
        """Gives up an upload's parts; what can't be given up now a rule of the bucket may."""
        try:
            with self._speaking(key, "its parts can't be removed"):
                self._s3.abort_multipart_upload(**place)
        except ObjectStoreError as error:
            # The reason why the upload failed matters more, and is on its way up.
            logger.warning(
                "%s; they cost money until the bucket's rule for incomplete uploads removes them",
                error,
            )

    def get(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """An object's content in chunks of up to a MiB; goes on by itself when it breaks off."""
        answer = self._open(key, offset)
        return iter(()) if answer is None else self._chunks(key, answer, offset)

    def _open(self, key: str, offset: int, etag: str | None = None) -> dict[str, Any] | None:
        """S3's answer from a byte on; None when there is none beyond it."""
        wanted: dict[str, Any] = {"Bucket": self._bucket, "Key": self._name(key)}
        if offset:
            wanted["Range"] = f"bytes={offset}-"
        if etag:
            wanted["IfMatch"] = etag
        try:
            with self._speaking(key, "can't be read"):
                answer: dict[str, Any] = self._s3.get_object(**wanted)
        except ObjectStoreError as error:
            cause = error.__cause__
            if isinstance(cause, AwsError) and cause.code == "InvalidRange":
                return None
            raise
        return answer

    def _chunks(self, key: str, answer: dict[str, Any], at: int) -> Iterator[bytes]:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        etag = answer["ETag"]
        broken = 0
        while True:
            try:
                with self._speaking(key, "can't be read"), contextlib.closing(answer["Body"]):
                    for chunk in answer["Body"].iter_chunks(CHUNK):
                        at += len(chunk)
                        broken = 0
                        yield chunk
                return
            except ObjectStoreError as error:
                cause = error.__cause__ and error.__cause__.__cause__
                broken += 1
                if not isinstance(cause, HTTPClientError | IncompleteReadError):
                    raise
                if broken > RESUMES:
                    raise
                logger.warning("%s: broke off at byte %d, goes on there: %s", key, at, cause)
            # The same object, not one that has replaced it meanwhile.
            following = self._open(key, at, etag)
            if following is None:
                return
            answer = following

    def stat(self, key: str) -> Stored:
        """An object's size, and its checksum where it was known when it was stored."""
        with self._speaking(key, "can't be read"):
            answer = self._s3.head_object(Bucket=self._bucket, Key=self._name(key))
        return Stored(key, answer["ContentLength"], answer["Metadata"].get("sha256", ""))

    def list(self, prefix: str) -> list[Stored]:
        """Objects by prefix, which S3 sorts as we do."""
        found = []
        with self._speaking(prefix, "can't be listed"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for each in page.get("Contents", ()):
                    key = each["Key"].removeprefix(self._prefix)
                    # What S3's console calls a folder is an empty object.
                    if not key.endswith("/"):
                        found.append(Stored(key, each["Size"]))
        return found

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        name = self._name(key)
        # Not HEAD, which says "denied" of what is only missing where ListBucket holds for prefixes.
        # Of all keys that begin so, the key itself is the first.
        with self._speaking(key, "can't be looked for"):
            page = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
        return any(each["Key"] == name for each in page.get("Contents", ()))

    def _name(self, key: str) -> str:
        return self._prefix + "/".join(key_parts(key))

    @contextmanager
    def _speaking(self, key: str, what: str) -> Iterator[None]:
        try:
            with clients.spoken(f"s3://{self._bucket}/{self._prefix}{key} {what}"):
                yield
        except AwsError as error:
            raise ObjectStoreError(str(error)) from error


class _Taken:
    """What has been taken of a source so far, and how it hashes."""

    def __init__(self, key: str, chunks: Iterable[bytes], announced: str | None) -> None:
        self.key = key
        self.announced = announced
        self.size = 0
        self._chunks = iter(chunks)
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._parts = 0

    @property
    def sha256(self) -> str:
        """So far, 64 hex digits."""
        return self._digest.hexdigest()

    def gather(self) -> bool:
        """Takes of the source until more than a part waits; False: the last one does."""
        while len(self._waiting) <= self._size():
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._digest.update(chunk)
            self.size += len(chunk)
            self._waiting += chunk
        return True

    def part(self) -> bytes:
        """The next piece as S3 wants it: all but the last are large."""
        size = self._size()
        with memoryview(self._waiting) as waiting:
            cut = bytes(waiting[:size])
        del self._waiting[:size]
        self._parts += 1
        return cut

    def _size(self) -> int:
        return PART * (1 + self._parts // GROW)

    def check(self) -> None:
        """Call it at the end.

        Raises:
            ObjectStoreError: it is not what was announced.
        """
        if self.announced is not None and self.sha256 != self.announced:
            raise ObjectStoreError(
                f"{self.key}: hashes to {self.sha256}, {self.announced} was announced"
            )


def _checksum(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
