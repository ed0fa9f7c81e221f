"""What a channel and a server need of a directory.

`shoal.Directory` (ZooKeeper) and `shoal.testing.FixedDirectory` both fit; channels and servers know
nothing else of discovery.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from shoal.contracts import ServedContract
from shoal_balancer import Replica, Status


class ServiceWatch(Protocol):
    """One service as this process sees it: a whole set, replaced whenever it changes."""

    @property
    def service(self) -> str:
        """The service's name."""

    @property
    def path(self) -> str:
        """Where its replicas are announced, for error messages: ``/gateway/services/registry``."""

    @property
    def known(self) -> bool:
        """Whether a set was ever observed or loaded; False while the first answer is awaited."""

    def replicas(self) -> tuple[Replica, ...]:
        """The last good set, draining and disabled replicas included, sorted by id."""

    def describe(self) -> str:
        """The directory's state for a person: "connected", "suspended for 3.2 s, set held" …."""

    def subscribe(self, listener: Callable[[tuple[Replica, ...]], None]) -> Callable[[], None]:
        """Calls ``listener`` with every new whole set, and at once with the current one if known.

        Listeners run on a thread of the directory, never on ZooKeeper's event thread, one at a
        time; an exception in one is logged and does not stop the others. Returns the call that
        ends the subscription.
        """


class Registration(Protocol):
    """A replica's announcement, kept true until it is withdrawn."""

    @property
    def replica(self) -> Replica:
        """What is announced now."""

    def update(self, *, status: Status | None = None, enabled: bool | None = None) -> None:
        """Changes the announcement; returns when the directory has it.

        Raises:
            RegistrationError: the directory could not be reached. The wish is kept and written
                when it can be.
        """

    def say(self, status: Status) -> None:
        """Changes the status soon, without waiting; of several in a second the last one counts."""

    def withdraw(self) -> None:
        """Takes the announcement back.

        While the directory is away it gives up quickly and loudly (a warning): the end of the
        session will remove the node.
        """


class DirectoryLike(Protocol):
    """Discovery as channels and servers use it."""

    @property
    def caller_id(self) -> str:
        """This process in the eyes of the replicas it calls: a UUID, new after a fork."""

    def watch(self, service: str) -> ServiceWatch:
        """The one watch of a service; asked for again, the same object."""

    def announce(
        self,
        service: str,
        replica: Replica,
        *,
        timeout: float = 15.0,
        secure: bool = False,
        contract: ServedContract | None = None,
    ) -> Registration:
        """Announces a replica that serves already, and keeps the announcement true.

        Args:
            service: The service's name.
            replica: What to announce.
            timeout: Seconds that the directory may take.
            secure: Whether the replica's port speaks TLS.
            contract: What it serves; its digest is in the replica's metadata.

        Raises:
            RegistrationError: it was not announced within ``timeout`` seconds.
        """

    def ask_contract(
        self, digest: str, reader: Callable[[str, ServedContract | str], object]
    ) -> None:
        """Calls ``reader`` with the contract of a digest, at once or later on another thread.

        Where it can't be read it is called with why, and again when it can.
        """

    def close(self) -> None:
        """Closes channels made from it, withdraws announcements, ends the session. Idempotent."""
