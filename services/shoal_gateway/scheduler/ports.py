"""The registry and the app managers, reached through the SDK's channels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import grpc

from shoal.aio import Channel, Directory
from shoal.channel import replica_of, where
from shoal.retry import Retry
from shoal_gateway import jobtraces
from shoal_gateway.contracts import CALLS
from shoal_gateway.convert import duration
from shoal_gateway.scheduler.logic import NobodyTookError, Offer, QueueAwayError
from shoal_gateway.scheduler.policy import ByRoom
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc

SERVICE = "appmanager"
CALL_TIMEOUT = 5.0
# Shares of a lease: for one manager to answer, and for all that are tried.
ATTEMPT_SHARE = 0.25
START_SHARE = 0.7


class RegistryQueue:
    """The queue, in the registry.

    Args:
        registry: The registry's stub.
        scheduler_id: This replica's id in the directory.
        lease: Seconds that an offer may take.

    Attributes:
        lease_seconds: The same; may be changed, for what is leased from then on.
    """

    def __init__(
        self, registry: registry_pb2_grpc.RegistryAsyncStub, scheduler_id: str, lease: float
    ) -> None:
        self._registry = registry
        self._scheduler_id = scheduler_id
        self.lease_seconds = lease

    async def lease(self, flavor: str, limit: int) -> Sequence[Offer]:
        """Takes jobs of a flavor."""
        request = registry_pb2.LeaseRequest(
            scheduler_id=self._scheduler_id,
            max_jobs=limit,
            lease=duration(self.lease_seconds),
            flavors=[flavor],
        )
        try:
            answer = await self._registry.Lease(request, timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            raise QueueAwayError(_said(error)) from error
        return answer.offers

    async def release(self, offers: Sequence[Offer], reason: str, *, keep_place: bool) -> None:
        """Gives jobs back."""
        request = registry_pb2.ReleaseRequest(
            claims=[registry_pb2.Claim(job_id=offer.job_id, fence=offer.fence) for offer in offers],
            reason=reason,
            keep_place=keep_place,
        )
        try:
            await self._registry.Release(request, timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            raise QueueAwayError(_said(error)) from error


class FleetManagers:
    """App managers by flavor, each flavor through a channel of its own.

    Args:
        directory: Where they are found.
        lease: Seconds that an offer may take; Start must be decided well before.
    """

    def __init__(self, directory: Directory, lease: float) -> None:
        self._directory = directory
        self._lease = lease
        self._watch = directory.watch(SERVICE)
        self._stubs: dict[str, tuple[appmanager_pb2_grpc.AppManagerAsyncStub, ByRoom]] = {}
        self._channels: list[Channel] = []

    def take_lease(self, lease: float) -> None:
        """Another lease, for offers that are made from now on."""
        if lease == self._lease:
            return
        self._lease = lease
        for channel in self._channels:
            channel.retune(self._retry())

    def flavors(self) -> Mapping[str, int]:
        """Flavors that somebody serves, and how many replicas do."""
        return Counter(replica.flavor for replica in self._watch.replicas() if replica.routable)

    async def start(
        self, flavor: str, offers: Sequence[Offer]
    ) -> Sequence[appmanager_pb2.StartResponse.Item]:
        """Offers jobs to one manager; a full one refuses, and the SDK asks another."""
        stub, policy = self._stub(flavor)
        traced = _Traced(flavor, offers)
        # One job's call is in its trace; that of several would be in the first one's.
        with jobtraces.within(traced.spans[0] if len(offers) == 1 else jobtraces.NONE):
            call = stub.Start(
                appmanager_pb2.StartRequest(offers=traced.offers),
                timeout=self._lease * START_SHARE,
            )
        try:
            answer = await call
        except grpc.RpcError as error:
            traced.failed(_said(error))
            raise NobodyTookError(
                f"no manager of flavor {flavor} took it: {_said(error)}",
                # What a manager answers that is asked for more than it has room for.
                full=error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED,
            ) from error
        replica = replica_of(call)
        traced.answered(replica.id if replica is not None else "", answer.items)
        if replica is not None:
            turned_away = any(
                item.verdict != appmanager_pb2.StartResponse.VERDICT_STARTED
                for item in answer.items
            )
            # Full, or not able to run it: either way the next offer should go elsewhere.
            utilisation = 1.0 if turned_away else answer.utilisation
            policy.said(replica, utilisation, time.monotonic())
        return answer.items

    def _stub(self, flavor: str) -> tuple[appmanager_pb2_grpc.AppManagerAsyncStub, ByRoom]:
        found = self._stubs.get(flavor)
        if found is None:
            policy = ByRoom()
            channel = self._directory.channel(
                SERVICE,
                policy=policy,
                filter=where(flavor=flavor),
                contract=CALLS,
                retry=self._retry(),
            )
            self._channels.append(channel)
            stub = cast(
                "appmanager_pb2_grpc.AppManagerAsyncStub",
                appmanager_pb2_grpc.AppManagerStub(channel),
            )
            found = self._stubs[flavor] = (stub, policy)
        return found

    def _retry(self) -> Retry:
        return Retry(attempts=3, attempt_timeout=self._lease * ATTEMPT_SHARE)


class _Traced:
    """Offers, each with a span in the trace of its job.

    Args:
        flavor: Of the managers.
        offers: As they were leased.
    """

    def __init__(self, flavor: str, offers: Sequence[Offer]) -> None:
        self._flavor = flavor
        self.spans = [jobtraces.begin(offer.trace_context) for offer in offers]
        self.offers = [
            _under(offer, span.own) for offer, span in zip(offers, self.spans, strict=True)
        ]

    def answered(self, replica: str, items: Sequence[appmanager_pb2.StartResponse.Item]) -> None:
        """A manager gave its verdicts."""
        verdicts = {item.job_id: item for item in items}
        for offer, span in zip(self.offers, self.spans, strict=True):
            item = verdicts.get(offer.job_id)
            verdict = appmanager_pb2.StartResponse.Verdict.Name(item.verdict) if item else ""
            self._end(offer, span, replica=replica, verdict=verdict.removeprefix("VERDICT_"))

    def failed(self, why: str) -> None:
        """None did."""
        for offer, span in zip(self.offers, self.spans, strict=True):
            self._end(offer, span, error=why)

    def _end(self, offer: Offer, span: jobtraces.JobSpan, **facts: str) -> None:
        jobtraces.end(
            "shoal.job.offer",
            span,
            job=offer.job_id,
            attempt=offer.attempt,
            flavor=self._flavor,
            **facts,
        )


def _under(offer: Offer, traceparent: str) -> Offer:
    if traceparent == offer.trace_context:
        return offer
    made = Offer()
    made.CopyFrom(offer)
    made.trace_context = traceparent
    return made


def _said(error: grpc.RpcError) -> str:
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: None)()
    return f"{code.name}: {details}" if code is not None else str(error)
