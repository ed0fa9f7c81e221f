"""A service's replicas as they change: the current whole set, and who wants to hear of the next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from shoal_balancer import Replica

logger = logging.getLogger(__name__)

Listener = Callable[[tuple[Replica, ...]], None]


class SetWatch:
    """Holds the last good set of one service and tells listeners of each new one.

    Subclasses find the sets; whoever calls `publish` does so from one thread at a time.
    """

    def __init__(self, service: str, path: str) -> None:
        self.service = service
        self.path = path
        self._replicas: tuple[Replica, ...] | None = None
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._first = threading.Event()

    def __repr__(self) -> str:
        count = "unknown" if self._replicas is None else str(len(self._replicas))
        return f"<{type(self).__name__} {self.path} replicas={count}>"

    @property
    def known(self) -> bool:
        """Whether a set was ever observed or loaded."""
        return self._replicas is not None

    def wait_known(self, timeout: float) -> bool:
        """Waits until a set is known, at most ``timeout`` seconds."""
        return self._first.wait(timeout)

    def replicas(self) -> tuple[Replica, ...]:
        """The last good set, sorted by id."""
        return self._replicas or ()

    def describe(self) -> str:
        """The directory's state for a person."""
        return "fixed"

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` with every new set and at once with the current one, if known."""
        with self._lock:
            self._listeners.append(listener)
            if self._replicas is not None:
                self._tell(listener, self._replicas)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def publish(self, replicas: Iterable[Replica]) -> bool:
        """Makes a set the current one; tells listeners if it differs. Returns whether it did."""
        found = tuple(sorted(replicas, key=lambda replica: replica.id))
        # Under the lock, so that a listener who subscribes meanwhile hears of sets in their order.
        with self._lock:
            if found == self._replicas:
                return False
            self._replicas = found
            self._first.set()
            for listener in tuple(self._listeners):
                self._tell(listener, found)
        return True

    def forget_threads(self) -> None:
        """After a fork: locks and listeners of the parent mean nothing here; the set still does."""
        self._lock = threading.RLock()
        self._listeners = []
        first = threading.Event()
        if self._replicas is not None:
            first.set()
        self._first = first

    def _tell(self, listener: Listener, replicas: tuple[Replica, ...]) -> None:
        try:
            listener(replicas)
        except Exception:
            # One listener's fault must not keep the news from the others.
            logger.exception("a listener of %s failed", self.path)
