"""Hooks for metrics: what a channel tells those who count. Without hooks it costs nothing."""

from __future__ import annotations

from shoal.failures import Attempt
from shoal_balancer import Outcome, Replica


class Hooks:
    """Override what you want to know; each is called on the thread of the call that it tells of.

    Keep them short: they are on the path of calls, and an exception in one is raised to the caller.
    What they tell maps to OpenTelemetry's names: `ended` to ``grpc.client.attempt.duration``,
    `retried` to ``grpc.client.call.retries``, `hedged` to ``grpc.client.call.hedges``, `ejected` to
    ``grpc.lb.outlier_detection.ejections_enforced`` (gRFCs A66, A91, A96).

    >>> class Count(Hooks):
    ...     calls = 0
    ...     def ended(self, replica, latency, outcome):
    ...         self.calls += 1
    """

    def ended(self, replica: Replica, latency: float, outcome: Outcome) -> None:
        """An attempt has ended after ``latency`` seconds."""

    def ejected(self, replica: Replica, seconds: float) -> None:
        """A replica gets no calls for ``seconds``."""

    def readmitted(self, replica: Replica) -> None:
        """An ejected replica has shown itself well."""

    def retried(self, method: str, number: int, failed: Attempt) -> None:
        """Attempt ``number`` of a call follows, since ``failed`` did."""

    def hedged(self, method: str, replica: Replica) -> None:
        """A second copy of a slow call was sent, to ``replica``."""
