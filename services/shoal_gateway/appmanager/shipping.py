"""What comes to the host and leaves it: inputs, logs while the job runs, outputs at its end."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from shoal_gateway.appmanager import beneath
from shoal_gateway.appmanager.attempt import STREAMS, Attempt
from shoal_gateway.appmanager.offers import Input
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError, Stored

SEGMENT = 1024 * 1024


class MissingOutputError(Exception):
    """The job did not make a file that it was to make, or none that can be read."""


def prefix(attempt: Attempt) -> str:
    """Where an attempt's objects lie; the runner's id keeps two runners of one attempt apart."""
    spec = attempt.spec
    return f"jobs/{spec.job_id}/attempt-{spec.attempt}/{spec.runner_id}"


class LogShipper:
    """Uploads an attempt's standard output and error as they grow.

    Objects can't be appended to, so each piece is an object of its own, named by its offset; a
    successor that adopts the attempt goes on where the objects end.
    """

    def __init__(self, attempt: Attempt, objects: ObjectStore) -> None:
        self._attempt = attempt
        self._objects = objects
        self._sent: dict[str, int] = {}

    def ship(self) -> None:
        """Uploads what has been written since the last time.

        Raises:
            ObjectStoreError: the store failed; the next call tries the same again.
            OSError: a stream can't be read; the job may have seen to that.
        """
        for stream in STREAMS:
            path = self._attempt.path / stream
            size = path.stat().st_size if path.exists() else 0
            while (sent := self._offset(stream)) < size:
                piece = _piece(path, sent)
                if not piece:
                    break  # truncated since we looked at its size
                self._objects.put(f"{self._prefix(stream)}{sent:020d}", [piece])
                self._sent[stream] = sent + len(piece)

    def _offset(self, stream: str) -> int:
        if stream not in self._sent:
            segments = self._objects.list(self._prefix(stream))
            last = segments[-1] if segments else None
            self._sent[stream] = int(last.key.rpartition("/")[2]) + last.size if last else 0
        return self._sent[stream]

    def _prefix(self, stream: str) -> str:
        return f"{prefix(self._attempt)}/logs/{stream}/"


def fetch_inputs(inputs: Iterable[Input], work: Path, objects: ObjectStore, owner: int = 0) -> None:
    """Puts a job's inputs into its working directory.

    Args:
        inputs: Which.
        work: Where to.
        objects: Where from.
        owner: The account that they are given to; 0: nobody.

    Raises:
        ObjectStoreError: the store failed, or has something else than was submitted.
        OSError: there is no place for them.
    """
    for wanted in inputs:
        digest = hashlib.sha256()
        with os.fdopen(beneath.created(work, wanted.name, owner), "wb") as file:
            for chunk in objects.get(wanted.key):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != wanted.sha256:
            raise ObjectStoreError(
                f"{wanted.key}: hashes to {digest.hexdigest()}, {wanted.sha256} was submitted"
            )


def ship_outputs(attempt: Attempt, objects: ObjectStore) -> tuple[tuple[str, Stored], ...]:
    """Uploads the outputs; what they are for the manifest.

    Raises:
        MissingOutputError: one is not there, can't be read, or is no file of the working directory.
        ObjectStoreError: the store failed.
    """
    shipped = []
    for name in attempt.spec.outputs:
        try:
            # A link out of the working directory would publish what is not the job's.
            descriptor = beneath.opened(attempt.work, name, attempt.spec.uid)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise MissingOutputError(f"the job ended well but made no file '{name}'") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise MissingOutputError(f"the job ended well but made no file '{name}'") from error
            # Left to be tried again it would hold lease and slot for ever.
            raise _unreadable(name, error) from error
        with os.fdopen(descriptor, "rb") as file:
            try:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _unreadable(name, error) from error
            file.seek(0)
            key = f"{prefix(attempt)}/outputs/{name}"
            shipped.append((name, objects.put(key, _chunks(file), sha256=checksum)))
    return tuple(shipped)


def _unreadable(name: str, error: OSError) -> MissingOutputError:
    why = error.strerror or type(error).__name__
    return MissingOutputError(f"the job ended well but its file '{name}' can't be read: {why}")


def _piece(path: Path, offset: int) -> bytes:
    # A link in its place is none of ours.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        file.seek(offset)
        return file.read(SEGMENT)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(SEGMENT):
        yield chunk
