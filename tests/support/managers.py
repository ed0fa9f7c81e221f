"""App managers without processes: they begin jobs at the registry and end them when told."""

from __future__ import annotations

import asyncio
import hashlib
import uuid

import grpc

from shoal_gateway.convert import duration
from shoal_protos.gateway.appmanager.v1 import appmanager_pb2, appmanager_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

Verdict = appmanager_pb2.StartResponse
Outcome = registry_pb2.ReportRequest
CONTENT = b'{"seconds": 0.1}\n'


class Manager(appmanager_pb2_grpc.AppManagerServicer):
    """One manager with slots.

    Args:
        gateway: The stack, for its registry and its objects.
        slots: Jobs at once.
        finish: Whether jobs succeed by themselves as soon as they have begun.
    """

    def __init__(self, gateway, *, name="appmanager-0", slots=100, finish=True) -> None:
        self.gateway = gateway
        self.name = name
        self.slots = slots
        self.finish = finish
        self.delay = asyncio.Event()
        self.delay.set()
        self.entered = asyncio.Event()
        self.answered = asyncio.Event()
        self.offered = 0
        self.running: dict[str, tuple[registry_pb2.Offer, str, int]] = {}
        self.began = asyncio.Event()

    async def Start(self, request, context):
        self.entered.set()
        self.offered += len(request.offers)
        # A manager that hangs is not cut short by its caller's patience.
        return await asyncio.shield(asyncio.ensure_future(self._start(request)))

    async def _start(self, request):
        await self.delay.wait()
        items = [await self._begin(offer) for offer in request.offers]
        self.answered.set()
        return appmanager_pb2.StartResponse(
            items=items, utilisation=min(1.0, len(self.running) / self.slots)
        )

    async def _begin(self, offer):
        if len(self.running) >= self.slots:
            return Verdict.Item(job_id=offer.job_id, verdict=Verdict.VERDICT_FULL)
        runner_id = str(uuid.uuid4())
        try:
            begun = await self.gateway.registry.Begin(
                registry_pb2.BeginRequest(
                    claim=registry_pb2.Claim(job_id=offer.job_id, fence=offer.fence),
                    attempt=offer.attempt,
                    runner_id=runner_id,
                    manager_id=self.name,
                    host="host-1",
                    lease=duration(60.0),
                ),
                timeout=30,
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return Verdict.Item(job_id=offer.job_id, verdict=Verdict.VERDICT_TAKEN)
        self.running[offer.job_id] = (offer, runner_id, begun.fence)
        self.began.set()
        if self.finish:
            await self.succeed(offer.job_id)
        return Verdict.Item(job_id=offer.job_id, verdict=Verdict.VERDICT_STARTED)

    def write(self, job_id, data, stream="stdout") -> None:
        offer, runner_id, _ = self.running[job_id]
        prefix = f"jobs/{job_id}/attempt-{offer.attempt}/{runner_id}/logs/{stream}/"
        objects = self.gateway.objects
        offset = sum(each.size for each in objects.list(prefix))
        objects.put(f"{prefix}{offset:020d}", [data])

    async def renew(self, job_id):
        _, runner_id, fence = self.running[job_id]
        claim = registry_pb2.Claim(job_id=job_id, fence=fence)
        answer = await self.gateway.registry.Renew(
            registry_pb2.RenewRequest(
                items=[{"claim": claim, "runner_id": runner_id}], lease=duration(60.0)
            ),
            timeout=30,
        )
        return answer.items[0]

    async def succeed(self, job_id):
        offer, runner_id, _ = self.running[job_id]
        key = f"jobs/{job_id}/attempt-{offer.attempt}/{runner_id}/outputs/nap.json"
        self.gateway.objects.put(key, [CONTENT])
        stored = job_pb2.ObjectRef(
            key=key, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
        )
        manifest = job_pb2.Manifest(
            attempt=offer.attempt,
            runner_id=runner_id,
            files=[job_pb2.FileRef(name="nap.json", object=stored)],
        )
        return await self.report(job_id, Outcome.OUTCOME_SUCCEEDED, exit_code=0, manifest=manifest)

    async def report(self, job_id, outcome, fence=None, **fields):
        _, runner_id, held = self.running.pop(job_id)
        claim = registry_pb2.Claim(job_id=job_id, fence=fence or held)
        item = Outcome.Item(claim=claim, runner_id=runner_id, outcome=outcome, **fields)
        answer = await self.gateway.registry.Report(Outcome(items=[item]), timeout=30)
        return answer.items[0]
