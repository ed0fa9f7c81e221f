"""What a fork does to channels, servers and directories, without a check on every call.

grpc's threads and kazoo's do not survive a fork: a child that goes on with them hangs. So each
object that owns some is told in the child (`on_fork`), forgets what it had there, and decides at
its next use whether it may start anew (`check`).

Whether grpc works in the child depends on the process, not on the object: if grpc's core was alive
when the parent forked, and was not told to prepare for it (``GRPC_ENABLE_FORK_SUPPORT=1``), even a
fresh channel hangs there. asyncio's half does not survive in any case. If the core was asleep, all
is well either way. Each of this was tried with grpcio 1.85.1, and test_server_forks.py tries it
again, but for the rare hang that `_before` prevents.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Protocol

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # has no stubs

from shoal.errors import ShoalForkError


def _supported() -> bool:
    """Whether grpc prepares for forks; it read the environment when it was imported."""
    asked = getattr(cygrpc, "is_fork_support_enabled", None)
    if asked is not None:
        return bool(asked())
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true", "yes")


SUPPORTED = _supported()

_TASKS = Path("/proc/self/task")

# How the core's threads are called. No one kind will do: its timer's thread is replaced by a new
# one now and then, and a new one has no name for a moment.
_NAMES = ("grpc_", "event_engine", "lifeguard")


class Forkable(Protocol):
    """Something that owns threads or connections."""

    def after_fork(self) -> None:
        """Called in the child, before any other code runs there: forget, take no lock, no I/O."""


class _State:
    """What this process knows of grpc's core, and inherited of its parent's.

    Attributes:
        used: A channel or server was made here.
        used_aio: An asyncio one was made here.
        was_alive: Set just before a fork, for the child: the core had threads.
        was_alive_aio: Likewise, asyncio's poller.
        broken: This is a child where grpc would hang.
        broken_aio: This is a child where grpc.aio would hang.
        awake: Keeps the core from going to sleep during a fork.
    """

    used = False
    used_aio = False
    was_alive = False
    was_alive_aio = False
    broken = False
    broken_aio = False
    awake: object = None


_state = _State()
_owners: weakref.WeakSet[Forkable] = weakref.WeakSet()


def on_fork(owner: Forkable) -> None:
    """Has ``owner.after_fork()`` called in every child that this process forks while it lives."""
    _owners.add(owner)


def starts(*, aio: bool = False) -> None:
    """To be said before a grpc channel or server is made: from now on a fork matters."""
    _state.used = True
    _state.used_aio = _state.used_aio or aio


def check(what: str, *, aio: bool = False) -> None:
    """To be asked before grpc is used for something in a process that may be a forked child.

    Raises:
        ShoalForkError: grpc would hang here; names the cure.
    """
    if _state.broken or (aio and _state.broken_aio):
        raise error(what, aio=aio)


def error(what: str, *, aio: bool = False) -> ShoalForkError:
    """The error for a first use in a child where it can't work."""
    if aio:
        return ShoalForkError(
            f"{what} can't be used in a forked child: grpc.aio was in use when the parent forked, "
            "and does not survive that (GRPC_ENABLE_FORK_SUPPORT=1 in the environment helps "
            "blocking channels and servers only). Fork before the first asyncio channel or server "
            "is made, and make them in the child."
        )
    return ShoalForkError(
        f"{what} can't be used in a forked child: grpc was in use when the parent forked, and "
        "would hang here. Set GRPC_ENABLE_FORK_SUPPORT=1 in the environment before grpc is "
        "imported, or fork before the parent makes its first call and before it makes a server."
    )


def server_error(what: str) -> ShoalForkError:
    """The error for using the parent's server in a child."""
    return ShoalForkError(
        f"{what} was made before this process forked; its port and its threads are the parent's. "
        "Make the server in the child; where the parent has used grpc, that takes "
        "GRPC_ENABLE_FORK_SUPPORT=1 in the environment before grpc is imported."
    )


def _before() -> None:
    _state.was_alive = _core_is_alive()
    # Its poller is a Python thread, which ends with the last asyncio channel and server.
    _state.was_alive_aio = any(
        thread.name.endswith("(_poll_wrapper)") for thread in threading.enumerate()
    ) or (_state.used_aio and _state.was_alive)
    if SUPPORTED and _state.was_alive:
        # A core whose last channel was just closed is about to end its threads, and a fork amid
        # that is one it does not prepare for: the child hangs (2 times in 100). Anything that
        # uses the core keeps it up; this is the smallest thing there is.
        make = getattr(cygrpc, "SSLSessionCacheLRU", None)
        _state.awake = make and make(1)


def _core_is_alive() -> bool:
    """Whether grpc's core has threads in this process, whoever uses it."""
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    try:
        foreign = [task for task in _TASKS.iterdir() if task.name not in ours]
    except OSError:
        # Not Linux: what we did ourselves is all we know.
        return _state.used
    if _state.used:
        # Whatever they are called: one that has just been started has no name yet.
        return bool(foreign)
    return any(map(_is_grpcs, foreign))


def _is_grpcs(task: Path) -> bool:
    """Whether a thread is one of the core's by its name; one that ended meanwhile is not."""
    try:
        return (task / "comm").read_text().startswith(_NAMES)
    except OSError:
        return False


def _after_in_parent() -> None:
    _state.awake = None


def _after_in_child() -> None:
    state = _state
    state.broken = state.broken or (state.was_alive and not SUPPORTED)
    state.broken_aio = state.broken_aio or state.broken or state.was_alive_aio
    state.used = state.used_aio = False
    for owner in list(_owners):
        owner.after_fork()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
