"""Contracts as they are published: one persistent node for each digest, read once and kept.

A replica announces the digest; its descriptors stand under ``/protos/<digest>``, written by whoever
announces it first. They are named by what they hold, so nobody changes them, two writers write the
same, and a copy in memory or on disk is as good as the node.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError

from shoal import atomically
from shoal.contracts import ServedContract
from shoal.errors import ContractError
from shoal.session import Session
from shoal.worker import Worker

logger = logging.getLogger(__name__)

# Called with a digest and what is published under it, or why that can't be read now.
Reader = Callable[[str, "ServedContract | str"], object]

# Between tries while somebody waits for what could not be read, seconds.
AGAIN = 10.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ContractStore:
    """Reads contracts for this process's channels, on the directory's worker thread.

    Args:
        path: Of the parent node, chroot included.
        cache: Directory for copies; None keeps none.
        session: The directory's session; None while there is none.
        worker: The directory's worker thread.
    """

    def __init__(
        self,
        path: str,
        cache: Path | None,
        session: Callable[[], Session | None],
        worker: Worker,
    ) -> None:
        self._path = path
        self._cache = cache / "protos" if cache is not None else None
        self._session = session
        self._worker = worker
        self._known: dict[str, ServedContract] = {}
        # Who still waits for a digest, each told already that it can't be read.
        self._waiting: dict[str, list[Reader]] = {}
        self._planned = False

    def node(self, contract: ServedContract) -> tuple[str, bytes]:
        """Where a contract is published, and as what.

        Raises:
            ContractError: it is too large.
        """
        return f"{self._path}/{contract.digest}", contract.packed()

    def ask(self, digest: str, reader: Reader) -> None:
        """Has ``reader`` called on the worker thread with what is published under a digest.

        It is called twice when that can't be read at first: with why, and once more when it is.
        """
        self._worker.call_soon(partial(self._answer, digest, reader))

    def connected(self) -> None:
        """ZooKeeper can be asked again."""
        self._worker.call_soon(self._ask_again)

    # All below runs on the worker thread.

    def _answer(self, digest: str, reader: Reader) -> None:
        found = self._found(digest)
        if isinstance(found, str):
            self._waiting.setdefault(digest, []).append(reader)
            self._plan()
        reader(digest, found)

    def _ask_again(self) -> None:
        session = self._session()
        if session is None or not session.connected:
            return  # the next connect comes here
        for digest in list(self._waiting):
            found = self._found(digest)
            if not isinstance(found, str):
                for reader in self._waiting.pop(digest):
                    reader(digest, found)
        if self._waiting:
            self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._worker.call_later(AGAIN, self._as_planned)

    def _as_planned(self) -> None:
        self._planned = False
        self._ask_again()

    def _found(self, digest: str) -> ServedContract | str:
        found = self._known.get(digest) or self._load(digest)
        if found is None:
            try:
                found = self._read(digest)
            except (KazooException, ContractError) as error:
                return f"the contract {self._path}/{digest} can't be read: {error}"
            self._save(found)
        self._known[digest] = found
        return found

    def _read(self, digest: str) -> ServedContract:
        if not _DIGEST.fullmatch(digest):
            raise ContractError("that is no digest of a contract")
        session = self._session()
        if session is None or not session.connected:
            told = session.describe() if session is not None else "not used"
            raise ContractError(f"ZooKeeper is {told}")
        try:
            data, _ = session.wait(session.client.get_async(f"{self._path}/{digest}"))
        except NoNodeError as error:
            raise ContractError("there is no such node") from error
        return ServedContract.unpack(digest, data)

    def _file(self, digest: str) -> Path | None:
        if self._cache is None or not _DIGEST.fullmatch(digest):
            return None
        return self._cache / f"{digest.partition(':')[2]}.gz"

    def _load(self, digest: str) -> ServedContract | None:
        file = self._file(digest)
        try:
            return ServedContract.unpack(digest, file.read_bytes()) if file is not None else None
        except FileNotFoundError:
            return None
        except (OSError, ContractError) as error:
            logger.warning("%s is passed over: %s", file, error)
            return None

    def _save(self, contract: ServedContract) -> None:
        target = self._file(contract.digest)
        if target is None:
            return
        try:
            atomically.write(target, contract.packed())
        except OSError as error:
            logger.warning("%s can't be kept (%s): it is read from ZooKeeper anew", target, error)


def publish(session: Session, path: str, data: bytes) -> None:
    """Makes sure that a contract is published; on the directory's worker thread.

    Raises:
        KazooException: ZooKeeper did not take it.
    """
    client, wait = session.client, session.wait
    if wait(client.exists_async(path)) is None:
        try:
            wait(client.create_async(path, data, makepath=True))
        except NodeExistsError:
            return  # somebody else was quicker, with the same
        logger.info("published %s, %d bytes", path, len(data))
