"""The app manager on the wire, and the registry as it calls it."""

# ruff: noqa: N802, D102 - methods are named and documented as the contract says

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import grpc

import shoal
from shoal_gateway import convert, traceparents
from shoal_gateway import validation as check
from shoal_gateway.appmanager.logic import AppManager
from shoal_gateway.appmanager.offers import Answer, Input, Offer
from shoal_gateway.appmanager.ports import (
    Beginning,
    Ended,
    Held,
    Lease,
    RegistryAwayError,
    Result,
    TakenError,
)
from shoal_gateway.status import speaks_status
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2, registry_pb2_grpc

# Seconds for one call of the registry; reports are repeated until they are answered.
TIMEOUT = 5.0

_VERDICTS = {
    "started": appmanager_pb2.StartResponse.VERDICT_STARTED,
    "full": appmanager_pb2.StartResponse.VERDICT_FULL,
    "taken": appmanager_pb2.StartResponse.VERDICT_TAKEN,
    "unable": appmanager_pb2.StartResponse.VERDICT_UNABLE,
}
_HELD = {
    registry_pb2.RenewResponse.VERDICT_HELD: Held.HELD,
    registry_pb2.RenewResponse.VERDICT_LOST: Held.LOST,
    registry_pb2.RenewResponse.VERDICT_CANCEL: Held.CANCEL,
}
_OUTCOMES = {
    Ended.SUCCEEDED: registry_pb2.ReportRequest.OUTCOME_SUCCEEDED,
    Ended.FAILED: registry_pb2.ReportRequest.OUTCOME_FAILED,
    Ended.CANCELLED: registry_pb2.ReportRequest.OUTCOME_CANCELLED,
    Ended.SUPERVISOR_LOST: registry_pb2.ReportRequest.OUTCOME_SUPERVISOR_LOST,
    Ended.ABANDONED: registry_pb2.ReportRequest.OUTCOME_ABANDONED,
}


@speaks_status
class AppManagerServicer(appmanager_pb2_grpc.AppManagerServicer):
    """Checks requests and runs them.

    Args:
        manager: The logic.
        host: Label of the host, for Status.
        leaving: Whether this replica drains; it takes no jobs then.
    """

    def __init__(
        self, manager: AppManager, host: str, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self._manager = manager
        self._host = host
        self._leaving = leaving
        self._started = 0
        self._lock = threading.Lock()

    def Start(
        self, request: appmanager_pb2.StartRequest, context: grpc.ServicerContext
    ) -> appmanager_pb2.StartResponse:
        offers = [
            offer(each, f"offers[{index}]")
            for index, each in enumerate(check.some(request.offers, "offers"))
        ]
        check.distinct([each.job_id for each in offers], "offers")
        manager = self._manager
        if self._leaving():
            # An answer, not a refusal: who has not heard yet loses no call, with retries off too.
            full = [Answer(each.job_id, "full", "this app manager is leaving") for each in offers]
            return appmanager_pb2.StartResponse(
                items=[item(each) for each in full], utilisation=1.0
            )
        if manager.refuses(offers):
            # Before anything was done: the caller may offer it elsewhere, whatever it is.
            shoal.refuse(context, f"all {manager.slots} slots of this app manager are taken")
        answers = manager.start(offers)
        with self._lock:
            self._started += sum(each.verdict == "started" for each in answers)
        return appmanager_pb2.StartResponse(
            items=[item(each) for each in answers], utilisation=manager.utilisation
        )

    def Status(
        self,
        request: appmanager_pb2.StatusRequest,  # noqa: ARG002 - it is empty
        context: grpc.ServicerContext,  # noqa: ARG002 - nothing to say to it
    ) -> appmanager_pb2.StatusResponse:
        now = time.monotonic()
        manager = self._manager
        running = [
            appmanager_pb2.StatusResponse.Running(
                job_id=runner.attempt.spec.job_id,
                attempt=runner.attempt.spec.attempt,
                runner_id=runner.attempt.spec.runner_id,
                supervisor_pid=runner.pid,
                seconds=now - runner.since,
            )
            for runner in manager.running()
            if not runner.ended
        ]
        running += [
            appmanager_pb2.StatusResponse.Running(
                job_id=call.offer.job_id,
                attempt=call.offer.attempt,
                runner_id=call.runner_id,
                supervisor_pid=call.pid,
                seconds=now - call.since,
            )
            for call in manager.calls()
            if not call.ended
        ]
        return appmanager_pb2.StatusResponse(
            running=running,
            slots=manager.slots,
            utilisation=manager.utilisation,
            flavor=manager.flavor,
            host=self._host,
            started=self._started,
        )


def offer(message: registry_pb2.Offer, field: str) -> Offer:
    """An offer off the wire.

    Raises:
        InvalidError: something of it can't be used; names the field.
    """
    check.present(message, "spec", f"{field}.spec")
    spec = message.spec
    for index, name in enumerate(spec.outputs):
        check.file_name(name, f"{field}.spec.outputs[{index}]")
    inputs = [
        check.file_ref(each, f"{field}.spec.inputs[{index}]")
        for index, each in enumerate(spec.inputs)
    ]
    check.work(spec, f"{field}.spec")
    resources = spec.resources
    check.between(resources.wall_seconds, f"{field}.spec.resources.wall_seconds", 0.0, 1e9)
    check.whole(resources.memory_mib, f"{field}.spec.resources.memory_mib", 0, 1 << 30)
    return Offer(
        job_id=check.job_id(message.job_id, f"{field}.job_id"),
        attempt=check.whole(message.attempt, f"{field}.attempt", 1, 2**31 - 1),
        fence=check.whole(message.fence, f"{field}.fence", 1, 2**62),
        application=_application(spec.application, f"{field}.spec.application"),
        flavor=check.label(spec.flavor, f"{field}.spec.flavor"),
        command=tuple(spec.command),
        inputs=tuple(Input(each.name, each.object.key, each.object.sha256) for each in inputs),
        outputs=tuple(spec.outputs),
        wall_seconds=resources.wall_seconds,
        memory_mib=resources.memory_mib,
        function=spec.function,
        parameters=tuple(spec.parameters.items()),
        trace_context=traceparents.valid(message.trace_context),
    )


def item(answer: Answer) -> appmanager_pb2.StartResponse.Item:
    """An answer for the wire."""
    return appmanager_pb2.StartResponse.Item(
        job_id=answer.job_id, verdict=_VERDICTS[answer.verdict], reason=answer.reason
    )


def _application(value: str, field: str) -> str:
    name, _, version = value.partition("@")
    check.label(name, field)
    if version:
        check.label(version, field)
    return value


class RegistryCalls:
    """The registry through a channel.

    Args:
        stub: On a channel of the SDK, which picks replicas and retries.
        manager_id: This replica's id, for the job's history.
        host: Its host.
        lease: Seconds to ask for.
        version: Of this code, for the job's history.
    """

    def __init__(
        self,
        stub: registry_pb2_grpc.RegistryStub,
        *,
        manager_id: str,
        host: str,
        lease: float,
        version: str = "",
    ) -> None:
        self._stub = stub
        self._manager_id = manager_id
        self._host = host
        self._version = version
        self.take_lease(lease)

    def take_lease(self, lease: float) -> None:
        """Asks for another lease from now on, seconds."""
        self._lease = convert.duration(lease)
        # A renewal that takes longer than a third of the lease is better sent anew.
        self._renew_timeout = min(TIMEOUT, lease / 3.0)

    def begin(self, job_id: str, fence: int, attempt: int, runner_id: str) -> int:
        """Begins an attempt."""
        request = registry_pb2.BeginRequest(
            claim=registry_pb2.Claim(job_id=job_id, fence=fence),
            attempt=attempt,
            runner_id=runner_id,
            manager_id=self._manager_id,
            host=self._host,
            lease=self._lease,
            manager_version=self._version,
        )
        try:
            return self._stub.Begin(request, timeout=TIMEOUT).fence
        except grpc.RpcError as error:
            if _code(error) in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
                raise TakenError(_details(error)) from error
            raise RegistryAwayError(_details(error)) from error

    def begin_many(self, beginnings: Sequence[Beginning]) -> list[int | str]:
        """Begins attempts."""
        items = [
            registry_pb2.BeginManyRequest.Item(
                claim=registry_pb2.Claim(job_id=each.job_id, fence=each.fence),
                attempt=each.attempt,
                runner_id=each.runner_id,
            )
            for each in beginnings
        ]
        request = registry_pb2.BeginManyRequest(
            items=items,
            manager_id=self._manager_id,
            host=self._host,
            lease=self._lease,
            manager_version=self._version,
        )
        try:
            response = self._stub.BeginMany(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise RegistryAwayError(_details(error)) from error
        return [each.fence or each.reason for each in response.items]

    def renew(self, leases: Sequence[Lease]) -> list[tuple[Held, int]]:
        """Renews leases."""
        items = [
            registry_pb2.RenewRequest.Item(claim=_claim(lease), runner_id=lease.runner_id)
            for lease in leases
        ]
        request = registry_pb2.RenewRequest(items=items, lease=self._lease)
        try:
            response = self._stub.Renew(request, timeout=self._renew_timeout)
        except grpc.RpcError as error:
            raise RegistryAwayError(_details(error)) from error
        return [(_HELD[each.verdict], each.fence) for each in response.items]

    def report(self, result: Result) -> str | None:
        """Reports an end."""
        try:
            (refused,) = self._report([result])
        except grpc.RpcError as error:
            if _code(error) is grpc.StatusCode.INVALID_ARGUMENT:
                # Saying it again would not make it right; the lease ends by itself.
                return _details(error)
            raise RegistryAwayError(_details(error)) from error
        return refused

    def report_many(self, results: Sequence[Result]) -> list[str | None]:
        """Reports ends."""
        try:
            return self._report(results)
        except grpc.RpcError as error:
            if _code(error) is grpc.StatusCode.INVALID_ARGUMENT:
                # One that can't be right must not keep the others from being heard.
                return [self.report(each) for each in results]
            raise RegistryAwayError(_details(error)) from error

    def _report(self, results: Sequence[Result]) -> list[str | None]:
        request = registry_pb2.ReportRequest(items=[_item(each) for each in results])
        response = self._stub.Report(request, timeout=TIMEOUT)
        return [None if each.accepted else each.reason for each in response.items]


def _item(result: Result) -> registry_pb2.ReportRequest.Item:
    message = registry_pb2.ReportRequest.Item(
        claim=_claim(result.lease),
        runner_id=result.lease.runner_id,
        outcome=_OUTCOMES[result.ended],
        reason=result.reason,
    )
    if result.exit_code is not None:
        message.exit_code = result.exit_code
    if result.ended is Ended.SUCCEEDED:
        files = [
            job_pb2.FileRef(
                name=name,
                object=job_pb2.ObjectRef(key=stored.key, sha256=stored.sha256, size=stored.size),
            )
            for name, stored in result.files
        ]
        message.manifest.CopyFrom(
            job_pb2.Manifest(attempt=result.attempt, runner_id=result.lease.runner_id, files=files)
        )
    return message


def _claim(lease: Lease) -> registry_pb2.Claim:
    return registry_pb2.Claim(job_id=lease.job_id, fence=lease.fence)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code: grpc.StatusCode = error.code()
    return code


def _details(error: grpc.RpcError) -> str:
    return str(error.details() or error)
