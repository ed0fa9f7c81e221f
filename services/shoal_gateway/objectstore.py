"""Where inputs, outputs and logs are kept: objects that are written once and never change.

A local directory, or an S3 bucket (`shoal_gateway.s3store`): whole objects put and read by key,
listed by prefix. Nothing else owns these contents, and no host's loss takes them away.
"""

from __future__ import annotations

import abc
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

CHUNK = 1024 * 1024


class ObjectStoreError(Exception):
    """An object can't be stored or read; the message names its key and says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object.

    Attributes:
        key: Its name.
        size: Bytes.
        sha256: Checksum, 64 hex digits. `ObjectStore.put` always says it; others leave it empty
            where only reading would tell.
    """

    key: str
    size: int
    sha256: str = ""


class ObjectStore(abc.ABC):
    """Objects by key. Keys are relative paths; all calls block."""

    @staticmethod
    def open(url: str) -> ObjectStore:
        """The object store behind a URL: ``file:///var/lib/shoal/objects``, ``s3://bucket/prefix``.

        Raises:
            ValueError: the URL is of a kind that is not supported.
            ObjectStoreError: the bucket can't be used, or what it takes is not installed.
        """
        parts = urlsplit(url)
        if parts.scheme == "s3":
            from shoal_gateway.s3store import S3ObjectStore

            return S3ObjectStore.at(url)
        if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
            raise ValueError(
                "an object store is given as file:///absolute/path or s3://bucket/prefix, not"
                f" {url!r}"
            )
        return LocalObjectStore(Path(unquote(parts.path)))

    @abc.abstractmethod
    def put(self, key: str, chunks: Iterable[bytes], sha256: str | None = None) -> Stored:
        """Stores an object, all of it or nothing; the same key again replaces it as a whole.

        Raises:
            ObjectStoreError: the content does not hash to ``sha256``, or the store failed.
        """

    @abc.abstractmethod
    def get(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """An object's content from a byte on.

        Raises:
            ObjectStoreError: there is no such object.
        """

    @abc.abstractmethod
    def stat(self, key: str) -> Stored:
        """An object's size.

        Raises:
            ObjectStoreError: there is no such object.
        """

    @abc.abstractmethod
    def list(self, prefix: str) -> list[Stored]:
        """Objects whose key begins with ``prefix``, sorted by key."""

    @abc.abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is such an object."""


class LocalObjectStore(ObjectStore):
    """Objects as files below one directory; each is complete as soon as it can be seen."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._incoming = directory / ".incoming"

    def __repr__(self) -> str:
        return f"LocalObjectStore({str(self._directory)!r})"

    def put(self, key: str, chunks: Iterable[bytes], sha256: str | None = None) -> Stored:
        """Stores an object: written aside, made durable, then renamed into place."""
        target = self._path(key)
        digest = hashlib.sha256()
        size = 0
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._incoming)
            aside = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    for chunk in chunks:
                        digest.update(chunk)
                        size += len(chunk)
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                found = digest.hexdigest()
                if sha256 is not None and found != sha256:
                    raise ObjectStoreError(f"{key}: hashes to {found}, {sha256} was announced")
                target.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise ObjectStoreError(f"{key}: can't be stored: {error}") from error
        return Stored(key, size, found)

    def get(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """An object's content in chunks of a MiB."""
        try:
            # Opened here and not at the first chunk, so that a missing object is heard of at once.
            file = self._path(key).open("rb")
        except OSError as error:
            raise ObjectStoreError(f"{key}: can't be read: {error}") from error
        return _chunks(file, offset)

    def stat(self, key: str) -> Stored:
        """An object's size."""
        try:
            return Stored(key, self._path(key).stat().st_size)
        except OSError as error:
            raise ObjectStoreError(f"{key}: can't be read: {error}") from error

    def list(self, prefix: str) -> list[Stored]:
        """Objects by prefix."""
        base = self._directory / prefix.rpartition("/")[0]
        found = []
        for path in base.rglob("*"):
            key = path.relative_to(self._directory).as_posix()
            if key.startswith(prefix) and not key.startswith(".incoming") and path.is_file():
                found.append(Stored(key, path.stat().st_size))
        return sorted(found, key=lambda each: each.key)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self._path(key).is_file()

    def _path(self, key: str) -> Path:
        return self._directory.joinpath(*key_parts(key))


def key_parts(key: str) -> list[str]:
    """The names that a key consists of.

    Raises:
        ObjectStoreError: it is no key that every store can have.
    """
    parts = key.split("/")
    odd = any(part in ("", ".", "..") or "\0" in part for part in parts)
    if odd or parts[0] == ".incoming":
        raise ObjectStoreError(f"{key!r} is no key: a relative path without '..' is needed")
    return parts


def _chunks(file: BinaryIO, offset: int) -> Iterator[bytes]:
    with file:
        file.seek(offset)
        while chunk := file.read(CHUNK):
            yield chunk
