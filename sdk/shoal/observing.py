"""Who observes calls, servers and directories: nobody, unless `shoal.otel` was asked to.

What is made while there is an observer is observed for as long as it lives. A channel asks once, at
its making, and puts other multi-callables into its stubs' hands; so there is nothing on the path of
a call that nobody observes, not even a question. Only ``grpc.intercept_channel`` makes methods anew
for every call, and so asks for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from shoal.drainreport import DrainReport
from shoal.hooks import Hooks
from shoal_balancer import Replica


class Observer(Protocol):
    """What channels, servers and directories tell and ask."""

    def directory(self, directory: Any) -> None:
        """A directory was made."""

    def channel(self, channel: Any) -> None:
        """A channel was made."""

    def hooks(self, service: str, hooks: Hooks | None) -> Hooks:
        """The hooks of a channel, its user's among them."""

    def method(self, method: Any) -> Any:
        """What is called in place of a channel's method."""

    def sized(self, method: Any, serializer: Any, deserializer: Any) -> tuple[Any, Any]:
        """What serializes in place of a method's own."""

    def attempt(self, method: Any, replica: Replica, inner: Any) -> Any:
        """What is called in place of a method at one replica."""

    def interceptors(self, server: Any, *, aio: bool) -> Sequence[Any]:
        """A server was made; what stands before its other interceptors."""

    def drained(self, server: Any, report: DrainReport) -> None:
        """A server has left."""


# Whoever came last observes; each leaves when it likes.
_observers: list[Observer] = []


def current() -> Observer | None:
    """Who observes what is made now."""
    return _observers[-1] if _observers else None


def begin(observer: Observer) -> None:
    """Has what is made from now on be observed."""
    _observers.append(observer)


def end(observer: Observer) -> None:
    """It observes nothing that is made from now on; who was there before it does."""
    _observers.remove(observer)
