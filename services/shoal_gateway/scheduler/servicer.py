"""The scheduler on the wire. Its work needs no call; these are for seeing and for hints."""

# ruff: noqa: N802, D102, ARG002 - methods are named, documented and called as the contract says

from __future__ import annotations

from typing import Any

from shoal_gateway.scheduler.logic import Dispatcher
from shoal_gateway.status import speaks_status
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc


@speaks_status
class SchedulerServicer(scheduler_pb2_grpc.SchedulerServicer):
    """Passes hints on and says what was done.

    Args:
        dispatcher: Does the work.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def Wake(
        self, request: scheduler_pb2.WakeRequest, context: Any
    ) -> scheduler_pb2.WakeResponse:
        self._dispatcher.wake()
        return scheduler_pb2.WakeResponse()

    async def Status(
        self, request: scheduler_pb2.StatusRequest, context: Any
    ) -> scheduler_pb2.StatusResponse:
        tally = self._dispatcher.tally
        return scheduler_pb2.StatusResponse(
            leased=tally.leased,
            started=tally.started,
            released=tally.released,
            taken=tally.taken,
            on_offer=tally.on_offer,
        )
