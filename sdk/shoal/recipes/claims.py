"""What blocking and asyncio locks and leaderships say in the same words."""

from __future__ import annotations

from kazoo.exceptions import KazooException, NoNodeError

from shoal.directory import check_name
from shoal.errors import CoordinationError, LockError, LockTimeoutError
from shoal.recipes import places
from shoal.recipes.contention import Contention
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Script


def locks_path(name: str) -> str:
    """Where a lock's contenders have their nodes, below the chroot.

    Raises:
        ValueError: the name can't be a node's.
    """
    check_name(name)
    return f"/locks/{name}"


def leaders_path(name: str) -> str:
    """Likewise for a leadership.

    Raises:
        ValueError: the name can't be a node's.
    """
    check_name(name)
    return f"/leaders/{name}"


def unheld(name: str) -> LockError:
    """The error for what needs a lock that was not acquired."""
    return LockError(f"lock {name!r} is not held: acquire it first")


def refused(
    name: str, timeout: float | None, contention: Contention, desk: Desk
) -> LockTimeoutError:
    """The error for a wait that was too long: what is known of why."""
    why = f"ZooKeeper is {desk.session.describe()}"
    if contention.ahead:
        why = f"{contention.ahead} stood ahead"
        if contention.holder:
            why += f", the next of them {contention.holder.decode('utf-8', 'replace')}"
        why += f"; ZooKeeper is {desk.session.describe()}"
    return LockTimeoutError(f"lock {name!r} was not had within {timeout or 0.0:g} s: {why}")


def who_contends(desk: Desk, path: str) -> Script[list[str]]:
    """What all in line have written into their nodes, the holder's first."""
    told = []
    try:
        names = yield desk.client.get_children_async(path)
        for name in places.line(names):
            try:
                data, _ = yield desk.client.get_async(f"{path}/{name}")
            except NoNodeError:
                continue  # It has left meanwhile.
            told.append(data.decode("utf-8", "replace"))
    except NoNodeError:
        return []  # Nobody has ever wanted it.
    except KazooException as error:
        raise CoordinationError(f"{path} could not be read: {error!r}") from error
    return told
