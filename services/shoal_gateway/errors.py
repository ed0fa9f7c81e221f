"""What the gateway's logic raises, without a word of gRPC; `status` says it to callers.

Each message is for the person at the other end: what is wrong, where, and what to do.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Root of what a caller is told in so many words."""


class InvalidError(GatewayError):
    """A request's field has a value that can't be meant.

    Args:
        field: The field as in the proto, with its path: ``items[2].claim.job_id``.
        problem: What is wrong with it: "must not be empty".
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFoundError(GatewayError):
    """What the request names does not exist."""


class AlreadyExistsError(GatewayError):
    """It exists, and is something else than the request describes."""


class PreconditionError(GatewayError):
    """The request is well formed, but not for the state that things are in."""


class UnavailableError(GatewayError):
    """Nothing was done and the same request may work in a moment."""


class UnauthenticatedError(GatewayError):
    """It is not shown that the request comes from whom it says."""


class DeniedError(GatewayError):
    """It is known who asks, and they may not."""


class QuotaError(GatewayError):
    """A user's quota is used up; nothing was done.

    Args:
        quota: Its name: "jobs_in_flight".
        said: Which quota, how much it is, and when to try again.
    """

    def __init__(self, quota: str, said: str) -> None:
        super().__init__(said)
        self.quota = quota


class DataLossError(GatewayError):
    """Stored content is not what it was when it was written down."""
