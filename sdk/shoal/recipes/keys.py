"""Public keys that all processes share, followed as they are published, rotated and revoked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Self

from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError

from shoal.directory import Directory, check_name
from shoal.errors import (
    CoordinationError,
    CoordinationTimeoutError,
    KeyFormatError,
    KeysUnknownError,
    ShoalError,
    SignatureError,
)
from shoal.recipes import keydocs
from shoal.recipes.desk import Desk
from shoal.recipes.keydocs import PublicKey, Standing
from shoal.recipes.steps import Script
from shoal.signing import Signer, verifies
from shoal.treewatch import Leaf, Tree, TreeWatch

__all__ = ["Keys", "PublicKey", "Signer", "Standing"]

logger = logging.getLogger(__name__)

PATH = "/keys"
# Tries of a change that another's change has come before.
RACES = 20
# Clocks differ: a signature, or the beginning of a key, may be so far in the future, seconds.
SKEW = 5.0


@dataclass(frozen=True, slots=True)
class _Known:
    """All keys at one moment, replaced as a whole."""

    keys: Mapping[str, PublicKey] = field(default_factory=lambda: MappingProxyType({}))
    broken: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Keys:
    """The public keys below a directory's chroot, and who signed what.

        with shoal.Keys(directory) as keys:
            keys.wait()
            keys.verify("alice", key_id, "billing.invoice.v1", message, signature)

    Every process follows all keys: one that is published can be used within a second, one that is
    revoked can't from then on, and one that ends is not used after its end, by this process's own
    clock. `verify` looks into memory only; it never waits, so it fits asyncio code.

    While ZooKeeper is away the last keys hold; a revocation can't reach anybody then. ``trust_for``
    bounds for how long.

    Whoever may write below ``/keys`` in ZooKeeper can be anybody here: protect it as you protect
    ZooKeeper.

    Args:
        directory: Whose session and chroot; of an asyncio directory, its ``sync``.
        trust_for: Seconds for which the last keys are trusted when ZooKeeper can't be asked; None:
            without an end.
        clock: Seconds since 1970.

    Raises:
        DirectoryClosedError: the directory was closed.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        trust_for: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._trust_for = trust_for
        self._clock = clock
        self._known = _Known()
        self._tree = TreeWatch(directory, PATH, depth=2, data=True)
        self._unsubscribe = self._tree.subscribe(self._changed)

    def __repr__(self) -> str:
        return f"<Keys of {self._directory!r}: {len(self._known.keys)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def known(self) -> bool:
        """Whether ZooKeeper has told of the keys at least once."""
        return self._tree.known

    @property
    def age(self) -> float | None:
        """Seconds since all changes were known; 0.0 while they are followed, None if never."""
        return self._tree.age

    @property
    def broken(self) -> Mapping[str, str]:
        """Nodes that are no keys, as ``owner/id``, and why."""
        return self._known.broken

    def wait(self, timeout: float = 10.0) -> None:
        """Waits for ZooKeeper's first answer.

        Raises:
            TimeoutError: it did not come within ``timeout`` seconds.
        """
        self._tree.wait(timeout)

    def all(self) -> tuple[PublicKey, ...]:
        """All keys, by owner, the newest first."""
        return tuple(
            sorted(self._known.keys.values(), key=lambda key: (key.owner, -key.not_before, key.id))
        )

    def find(self, owner: str, key_id: str) -> PublicKey | None:
        """A key of an owner's, whatever its standing; None when there is none."""
        return self._known.keys.get(f"{owner}/{key_id}")

    def verify(
        self, owner: str, key_id: str, domain: str, message: bytes, signature: bytes
    ) -> PublicKey:
        """Makes sure that an owner signed a message; returns with which key. Never waits.

        Args:
            owner: Who is said to have signed.
            key_id: With which of the owner's keys.
            domain: What the signature is for, as it was given to `Signer.sign`: one that was made
                for something else is none here.
            message: What was signed.
            signature: Its 64 bytes.

        Raises:
            SignatureError: there is no such key, it does not hold now, or the signature is not one
                under this message; says which.
            KeysUnknownError: which keys there are is not known (any more): ZooKeeper is away.
        """
        self._check_known()
        key = self.find(owner, key_id)
        if key is None:
            broken = self.broken.get(f"{owner}/{key_id}")
            why = f"can't be read: {broken}" if broken else "is not known"
            raise SignatureError(
                f"the key {key_id} of {owner!r} {why}; publish it (`shoal keys publish`), or sign"
                " with another"
            )
        now = self._clock()
        standing = key.standing(now)
        if standing is Standing.EARLY and key.not_before - now <= SKEW:
            standing = Standing.VALID
        if standing is not Standing.VALID:
            because = f" ({key.why})" if key.why else ""
            raise SignatureError(f"the key {key_id} of {owner!r} is {standing}{because}")
        if not verifies(key.raw, domain, message, signature):
            raise SignatureError(
                f"the signature is not one of {owner!r} with the key {key_id} under this: it was"
                " changed on the way, or signed as something else"
            )
        return key

    def publish(
        self,
        owner: str,
        public: bytes,
        *,
        not_before: float | None = None,
        not_after: float | None = None,
        comment: str = "",
        timeout: float = 10.0,
    ) -> PublicKey:
        """Publishes a key; doing it again with the same changes nothing.

        Args:
            owner: Whose it is.
            public: Its 32 bytes: `Signer.public`.
            not_before: From when on it holds, seconds since 1970; None: from now on.
            not_after: Until when; None: until it is revoked or rotated.
            comment: For people.
            timeout: Seconds.

        Raises:
            ValueError: the owner's name can't be a node's, or the end is before the beginning.
            CoordinationError: ZooKeeper refuses it, or does not answer in time.
        """
        check_name(owner)
        begin = self._clock() if not_before is None else not_before
        if not_after is not None and not_after <= begin:
            raise ValueError(f"a key that holds from {begin:.0f} to {not_after:.0f} never does")
        key = PublicKey(owner, public, begin, not_after, comment=comment)
        return self._run(lambda desk: _publish(desk, key), timeout)

    def revoke(self, owner: str, key_id: str, *, why: str = "", timeout: float = 10.0) -> PublicKey:
        """Ends a key at once and for ever, also for what was signed with it before.

        Args:
            owner: Whose.
            key_id: Which.
            why: For people.
            timeout: Seconds.

        Raises:
            SignatureError: there is no such key.
            CoordinationError: ZooKeeper refuses it, or does not answer in time.
        """
        now = self._clock()
        return self._change(owner, key_id, lambda key: key.revoked(now, why), timeout)

    def end(self, owner: str, key_id: str, at: float, *, timeout: float = 10.0) -> PublicKey:
        """Has a key end at a time, unless it does so earlier.

        Args:
            owner: Whose.
            key_id: Which.
            at: Seconds since 1970.
            timeout: Seconds.

        Raises:
            SignatureError: there is no such key.
            CoordinationError: ZooKeeper refuses it, or does not answer in time.
        """
        return self._change(owner, key_id, lambda key: key.ending(at), timeout)

    def close(self) -> None:
        """Follows no more. Idempotent."""
        self._unsubscribe()
        self._tree.stop()

    def _check_known(self) -> None:
        self._tree.begin()
        age = self._tree.age
        if age is None:
            raise KeysUnknownError(
                f"public keys are not known yet: ZooKeeper is {self._directory.describe()}"
            )
        if self._trust_for is not None and age > self._trust_for:
            raise KeysUnknownError(
                f"public keys were confirmed {age:.0f} s ago, and are trusted for"
                f" {self._trust_for:g} s: ZooKeeper is {self._directory.describe()}"
            )

    def _changed(self, tree: Tree) -> None:
        # On the recipes' thread.
        keys: dict[str, PublicKey] = {}
        broken: dict[str, str] = {}
        for path, leaf in tree.items():
            owner, _, name = path.partition("/")
            try:
                keys[path] = keydocs.decode(owner, name, leaf.data)
            except KeyFormatError as error:
                broken[path] = str(error)
                if path not in self._known.broken:
                    logger.warning("%s/%s is passed over: %s", PATH, path, error)
        self._known = _Known(MappingProxyType(keys), MappingProxyType(broken))

    def _change(
        self,
        owner: str,
        key_id: str,
        change: Callable[[PublicKey], PublicKey],
        timeout: float,
    ) -> PublicKey:
        check_name(owner)
        keydocs.check_id(key_id)
        return self._run(lambda desk: _changed_key(desk, owner, key_id, change), timeout)

    def _run(self, script: Callable[[Desk], Script[PublicKey]], timeout: float) -> PublicKey:
        desk = self._directory.desk()
        if self._directory.on_own_thread():
            raise CoordinationError(
                "keys can't be written in a callback, on the directory's own thread: hand it over"
                " to another one"
            )
        steps = desk.run(script(desk))
        try:
            return steps.outcome.result(timeout)
        except (TimeoutError, CancelledError) as error:
            raise CoordinationTimeoutError(
                f"no answer within {timeout:g} s, ZooKeeper is {self._directory.describe()}: the"
                " key may have been written, or not; look before you go on"
            ) from error
        except KazooException as error:
            raise CoordinationError(f"{PATH} could not be written: {error!r}") from error
        finally:
            if not steps.outcome.done():
                desk.worker.call_soon(steps.stop)


def _publish(desk: Desk, key: PublicKey) -> Script[PublicKey]:
    path = f"{desk.chroot}{PATH}/{key.owner}/{key.id}"
    yield from desk.until_connected()
    try:
        yield desk.client.create_async(path, keydocs.encode(key), makepath=True)
    except NodeExistsError:
        # The same key, for it is named by what it is; its times are what they were published as.
        found = yield from _read(desk, key.owner, key.id)
        return found[0]
    return key


def _changed_key(
    desk: Desk, owner: str, key_id: str, change: Callable[[PublicKey], PublicKey]
) -> Script[PublicKey]:
    path = f"{desk.chroot}{PATH}/{owner}/{key_id}"
    yield from desk.until_connected()
    for _ in range(RACES):
        key, leaf = yield from _read(desk, owner, key_id)
        changed = change(key)
        if changed == key:
            return key
        try:
            yield desk.client.set_async(path, keydocs.encode(changed), version=leaf.version)
        except BadVersionError:
            continue  # somebody else has changed it in between
        except NoNodeError as error:
            raise _unknown(owner, key_id) from error
        return changed
    raise CoordinationError(f"{path} is changed by others all the time; try again")


def _read(desk: Desk, owner: str, key_id: str) -> Script[tuple[PublicKey, Leaf]]:
    path = f"{desk.chroot}{PATH}/{owner}/{key_id}"
    try:
        data, stat = yield desk.client.get_async(path)
    except NoNodeError as error:
        raise _unknown(owner, key_id) from error
    return keydocs.decode(owner, key_id, data), Leaf(data, stat.version)


def _unknown(owner: str, key_id: str) -> ShoalError:
    return SignatureError(f"there is no key {key_id} of {owner!r}; `shoal keys list` shows them")
