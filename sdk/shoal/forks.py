"""What a fork does to channels and directories, without a check on every call.

grpc's threads and kazoo's do not survive a fork: a child that goes on with them hangs. So each
object that owns some is told in the child (`on_fork`), forgets what it had there, and decides at
its next use whether it may start anew.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from shoal.errors import ShoalForkError

# grpc reads this once, when it is loaded; so do we.
SUPPORTED = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true", "yes")


class Forkable(Protocol):
    """Something that owns threads or connections."""

    def after_fork(self) -> None:
        """Called in the child, before any other code runs there: forget, take no lock, no I/O."""


_owners: weakref.WeakSet[Forkable] = weakref.WeakSet()


def on_fork(owner: Forkable) -> None:
    """Has ``owner.after_fork()`` called in every child that this process forks while it lives."""
    _owners.add(owner)


def _after_in_child() -> None:
    for owner in list(_owners):
        owner.after_fork()


os.register_at_fork(after_in_child=_after_in_child)


def error(what: str, *, aio: bool = False) -> ShoalForkError:
    """The error for a first use in a child where it can't work."""
    if aio:
        return ShoalForkError(
            f"{what} was made before this process forked, and asyncio channels and servers can't "
            "be carried over a fork: make a new one in the child."
        )
    return ShoalForkError(
        f"{what} was made before this process forked, and grpc would hang in the child. Set "
        "GRPC_ENABLE_FORK_SUPPORT=1 in the environment before grpc is imported, or make a new "
        "directory and channel in the child before the parent has used any (for example in a "
        "post-fork hook)."
    )


def server_error(what: str) -> ShoalForkError:
    """The error for using a server in a child: its port and threads are the parent's."""
    return ShoalForkError(
        f"{what} was made before this process forked; its port and its threads are the parent's. "
        "Make the server in the child."
    )
