"""Inputs and outputs between users and the object store, without blocking the event loop."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import IO, TypeVar

from shoal_gateway import validation as check
from shoal_gateway.api.logic import upload_key
from shoal_gateway.errors import DataLossError, InvalidError, UnavailableError
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CHUNK = 1024 * 1024
MAX_UPLOAD = 1024 * MAX_CHUNK
# Bytes of an upload that stay in memory until its checksum is known.
IN_MEMORY = 8 * 1024 * 1024
PIECE = 256 * 1024


class Files:
    """Uploads and downloads.

    Args:
        objects: Where the content is kept; its calls block.
        executor: Runs them.
    """

    def __init__(self, objects: ObjectStore, executor: Executor) -> None:
        self._objects = objects
        self._executor = executor

    async def upload(
        self,
        parts: AsyncIterator[api_pb2.UploadRequest],
        account: str = "",
        charge: Callable[[int], Awaitable[None]] | None = None,
    ) -> job_pb2.ObjectRef:
        """Stores a stream of parts under the checksum of its content.

        Args:
            parts: A header, then chunks.
            account: Whose it is; empty: everybody's.
            charge: Called with the number of bytes before they are stored, unless they are already.

        Raises:
            InvalidError: the parts are not a header and chunks, or do not hash to what it says.
        """
        expected = await self._header(parts)
        digest, size = hashlib.sha256(), 0
        # The key is the checksum, which is known at the end; until then the content waits here.
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as spool:
            async for part in parts:
                if part.WhichOneof("part") != "chunk":
                    raise InvalidError("part", "after the header must come chunks only")
                if len(part.chunk) > MAX_CHUNK:
                    raise InvalidError(
                        "chunk", f"has {len(part.chunk)} bytes; at most {MAX_CHUNK} are allowed"
                    )
                size += len(part.chunk)
                if size > MAX_UPLOAD:
                    raise InvalidError("chunk", f"exceeds {MAX_UPLOAD} bytes, the largest upload")
                digest.update(part.chunk)
                await self._blocking(functools.partial(spool.write, part.chunk))
            found = digest.hexdigest()
            if expected and found != expected:
                raise InvalidError("header.sha256", f"is {expected}; the content has {found}")
            key = upload_key(found, account)
            if not await self._blocking(lambda: self._objects.exists(key)):
                if charge is not None:
                    await charge(size)
                spool.seek(0)
                await self._blocking(lambda: self._objects.put(key, _chunks(spool), sha256=found))
        return job_pb2.ObjectRef(key=key, sha256=found, size=size)

    async def check_inputs(self, files: list[job_pb2.FileRef]) -> None:
        """Raises unless every input was uploaded and is as large as it says.

        Raises:
            InvalidError: one is not; names it.
        """
        for index, file in enumerate(files):
            field = f"inputs[{index}].object"
            if not await self._blocking(functools.partial(self._objects.exists, file.object.key)):
                raise InvalidError(
                    f"{field}.key", f"{file.object.key} was not uploaded; call Upload first"
                )
            stored = await self._blocking(functools.partial(self._objects.stat, file.object.key))
            if stored.size != file.object.size:
                raise InvalidError(
                    f"{field}.size", f"is {file.object.size}; the object has {stored.size} bytes"
                )

    async def download(
        self, file: job_pb2.FileRef
    ) -> AsyncGenerator[api_pb2.DownloadResponse, None]:
        """A published file in chunks, its checksum in the last message.

        Raises:
            DataLossError: the content is gone, or is not what the manifest says.
        """
        key = file.object.key
        if not await self._blocking(lambda: self._objects.exists(key)):
            raise DataLossError(f"{file.name}: {key} is not in the object store any more")
        digest = hashlib.sha256()
        chunks = await self._blocking(lambda: iter(self._objects.get(key)))
        while (chunk := await self._blocking(lambda: next(chunks, None))) is not None:
            digest.update(chunk)
            for begin in range(0, len(chunk), PIECE):
                yield api_pb2.DownloadResponse(chunk=chunk[begin : begin + PIECE])
        found = digest.hexdigest()
        if found != file.object.sha256:
            raise DataLossError(
                f"{file.name}: hashes to {found}; its manifest says {file.object.sha256}"
            )
        yield api_pb2.DownloadResponse(sha256=found)

    async def _header(self, parts: AsyncIterator[api_pb2.UploadRequest]) -> str:
        async for part in parts:
            if part.WhichOneof("part") != "header":
                break
            sha256 = part.header.sha256
            return check.sha256(sha256, "header.sha256") if sha256 else ""
        raise InvalidError("header", "must be the first message of an upload")

    async def _blocking(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except ObjectStoreError as error:
            # Its words name paths and hosts, which are no business of users.
            logger.warning("the object store failed: %s", error)
            raise UnavailableError(
                "the object store failed; try again, or ask who runs this gateway: it is in the"
                " api's log"
            ) from error


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(MAX_CHUNK):
        yield chunk


class LogSegments:
    """The object store as tails read it."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def keys(self, prefix: str) -> list[str]:
        """Keys that begin with a prefix."""
        try:
            return [each.key for each in self._objects.list(prefix)]
        except (OSError, ObjectStoreError) as error:
            logger.warning("%s can't be listed: %s", prefix, error)
            raise UnavailableError("logs can't be listed now; try again") from error

    def content(self, key: str) -> bytes:
        """A whole segment."""
        try:
            return b"".join(self._objects.get(key))
        except (OSError, ObjectStoreError) as error:
            logger.warning("%s can't be read: %s", key, error)
            raise UnavailableError("logs can't be read now; try again") from error
