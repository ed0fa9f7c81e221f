"""What the gateway's services take from their documents while they run.

One document for each service, named like it. Each field may be left out: then what the command line
of a replica says holds, else the default here. What can't change while a replica runs is no field.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

# Above the longest lease that the registry grants, seconds, nobody may go.
LONGEST_LEASE = 600.0

Limit = Annotated[
    int | None,
    Field(
        ge=1,
        le=1_000_000,
        description="unary calls at once in one replica; the rest is refused in a way that is safe"
        " to send elsewhere; null: no limit",
    ),
]


class Retry(BaseModel):
    """What a process of the service sends again when its own calls fail."""

    attempts: int = Field(
        default=3, ge=1, le=10, description="attempts of one call, the first included"
    )
    refusals: int = Field(
        default=5, ge=1, le=100, description="replicas that may turn a call away in one round"
    )
    backoff: float = Field(
        default=0.05,
        ge=0.0,
        le=10.0,
        description="seconds that the first wait is drawn up to; it doubles",
    )
    max_backoff: float = Field(default=1.0, ge=0.0, le=60.0, description="longest wait, seconds")
    budget_ratio: float = Field(
        default=0.2, ge=0.0, le=1.0, description="retries for each call, in the whole process"
    )
    budget_per_second: float = Field(
        default=3.0, ge=0.0, le=1000.0, description="retries a second besides, in the whole process"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff > self.max_backoff:
            raise ValueError(f"backoff {self.backoff:g} is above max_backoff {self.max_backoff:g}")
        return self


class Api(BaseModel):
    """The document of the api."""

    limit: Limit = None
    retry: Retry = Field(default=Retry(), description="calls to the registry and to schedulers")


class Quotas(BaseModel):
    """Bounds on each user who has none of their own."""

    jobs_in_flight: int = Field(
        default=1000, ge=0, le=1_000_000, description="jobs of one user that have not ended"
    )
    submits_per_minute: int = Field(
        default=600, ge=0, le=10_000_000, description="new jobs of one user in a minute"
    )
    bytes_per_day: int = Field(
        default=100 << 30,
        ge=0,
        le=1 << 60,
        description="bytes that one user uploads and publishes in a day",
    )


class Registry(BaseModel):
    """The document of the registry."""

    limit: Limit = None
    # Not below 1: how often a stale fence is refused tells how long a leader has led.
    sweep_every: float = Field(
        default=1.0,
        ge=1.0,
        le=60.0,
        description="seconds between looks for leases that ran out, from the next look on",
    )
    quotas: Quotas = Field(
        default=Quotas(), description="bounds on each user, where the api asks for users"
    )


class Scheduler(BaseModel):
    """The document of the scheduler."""

    lease: float = Field(
        default=15.0,
        ge=0.1,
        le=LONGEST_LEASE,
        description="seconds that an offer may take until its job is queued again",
    )
    poll: float = Field(
        default=0.5, ge=0.1, le=600.0, description="seconds between looks at an empty queue"
    )
    max_batch: int = Field(default=256, ge=1, le=1000, description="jobs leased at once, at most")
    retry: Retry = Field(default=Retry(), description="calls to the registry")


class AppManager(BaseModel):
    """The document of the app managers, of all flavors."""

    lease: float = Field(
        default=6.0,
        ge=0.5,
        le=LONGEST_LEASE,
        description="seconds that a running job may go without a renewal until it is started"
        " elsewhere",
    )
    leash: float | None = Field(
        default=None,
        ge=0.5,
        le=3600.0,
        description="seconds that a job which starts from now on goes on without any manager; null:"
        " three leases and 15 seconds",
    )
    retry: Retry = Field(default=Retry(), description="calls to the registry")

    @model_validator(mode="after")
    def _leash_is_longer(self) -> Self:
        if self.leash is not None and self.leash <= self.lease:
            raise ValueError(
                f"leash {self.leash:g} must be longer than lease {self.lease:g}: the next manager"
                " may come until the lease runs out"
            )
        return self


DOCUMENTS: dict[str, type[BaseModel]] = {
    "api": Api,
    "registry": Registry,
    "scheduler": Scheduler,
    "appmanager": AppManager,
}
