"""``shoal.v1.Replica`` as every server serves it, blocking and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from shoal.connections import normal
from shoal.drain import Phase, Roster
from shoal.views import ChannelView
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc

# Longer than any that a channel makes: what is remembered of strangers must stay small.
MAX_CALLER = 512
Views = Callable[[], Iterable[ChannelView]]
_NO_CALLER = f"caller_id: must be 1 to {MAX_CALLER} characters long"


class Hellos(replica_pb2_grpc.ReplicaServicer):
    """For the blocking server.

    Args:
        roster: Who calls.
        replica_id: The replica's id in the directory.
        views: Looks at the channels of the process.
    """

    def __init__(self, roster: Roster, replica_id: str, views: Views = tuple) -> None:
        self._roster = roster
        self._id = replica_id
        self._views = views

    def Hello(  # noqa: N802 - the proto's name
        self, request: replica_pb2.HelloRequest, context: grpc.ServicerContext
    ) -> replica_pb2.HelloResponse:
        """A caller may call."""
        if not 0 < len(request.caller_id) <= MAX_CALLER:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_CALLER)
        self._roster.hello(request.caller_id, normal(context.peer()))
        return _answer(self._roster, self._id)

    def Released(  # noqa: N802 - the proto's name
        self, request: replica_pb2.ReleasedRequest, context: grpc.ServicerContext
    ) -> replica_pb2.ReleasedResponse:
        """A caller has moved away."""
        if not 0 < len(request.caller_id) <= MAX_CALLER:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_CALLER)
        self._roster.released(request.caller_id)
        return replica_pb2.ReleasedResponse()

    def Callees(  # noqa: N802 - the proto's name
        self,
        request: replica_pb2.CalleesRequest,  # noqa: ARG002 - grpc's signature
        context: grpc.ServicerContext,  # noqa: ARG002 - as above
    ) -> replica_pb2.CalleesResponse:
        """Somebody watches."""
        return callees(self._views())


class AioHellos(replica_pb2_grpc.ReplicaServicer):
    """For the asyncio server; arguments as for the blocking one."""

    def __init__(self, roster: Roster, replica_id: str, views: Views = tuple) -> None:
        self._roster = roster
        self._id = replica_id
        self._views = views

    async def Hello(  # noqa: N802 - the proto's name
        self, request: replica_pb2.HelloRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> replica_pb2.HelloResponse:
        """A caller may call."""
        if not 0 < len(request.caller_id) <= MAX_CALLER:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_CALLER)
        self._roster.hello(request.caller_id, normal(context.peer()))
        return _answer(self._roster, self._id)

    async def Released(  # noqa: N802 - the proto's name
        self, request: replica_pb2.ReleasedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> replica_pb2.ReleasedResponse:
        """A caller has moved away."""
        if not 0 < len(request.caller_id) <= MAX_CALLER:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_CALLER)
        self._roster.released(request.caller_id)
        return replica_pb2.ReleasedResponse()

    async def Callees(  # noqa: N802 - the proto's name
        self,
        request: replica_pb2.CalleesRequest,  # noqa: ARG002 - grpc's signature
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 - as above
    ) -> replica_pb2.CalleesResponse:
        """Somebody watches."""
        return callees(self._views())


def callees(views: Iterable[ChannelView]) -> replica_pb2.CalleesResponse:
    """What several channels know of those they call, each replica once.

    Of latencies the one of the channel that has called most: it knows best.
    """
    found: dict[tuple[str, str, str], replica_pb2.Callee] = {}
    most: dict[tuple[str, str, str], int] = {}
    for view in views:
        for each in view.replicas:
            if each.state == "unused":
                continue  # nobody went there
            key = (view.service, each.replica.id, each.replica.target)
            callee = found.get(key)
            if callee is None:
                callee = found[key] = replica_pb2.Callee(
                    service=key[0], replica_id=key[1], target=key[2], reachable=True
                )
            callee.calls += each.calls
            callee.failures += each.failures
            callee.in_flight += each.in_flight
            callee.ejected = callee.ejected or each.ejected_for is not None
            callee.reachable = callee.reachable and each.reachable
            if each.ewma is not None and each.calls >= most.get(key, 0):
                callee.latency_seconds = each.ewma
                most[key] = each.calls
    return replica_pb2.CalleesResponse(callees=[found[key] for key in sorted(found)])


def _answer(roster: Roster, replica_id: str) -> replica_pb2.HelloResponse:
    return replica_pb2.HelloResponse(
        replica_id=replica_id, draining=roster.phase is not Phase.SERVING
    )
