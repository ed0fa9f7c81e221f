"""``shoal.v1.Replica`` as every server serves it: Hello and Released, blocking and for asyncio."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from shoal.connections import normal
from shoal.drain import Phase, Roster
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc

# Longer than any that a channel makes: what is remembered of strangers must stay small.
MAX_CALLER = 512
_NO_CALLER = f"caller_id: must be 1 to {MAX_CALLER} characters long"


class Hellos(replica_pb2_grpc.ReplicaServicer):
    """For the blocking server.

    Args:
        roster: Who calls.
        replica_id: The replica's id in the directory.
    """

    def __init__(self, roster: Roster, replica_id: str) -> None:
        self._roster = roster
        self._id = replica_id

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


class AioHellos(replica_pb2_grpc.ReplicaServicer):
    """For the asyncio server."""

    def __init__(self, roster: Roster, replica_id: str) -> None:
        self._roster = roster
        self._id = replica_id

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


def _answer(roster: Roster, replica_id: str) -> replica_pb2.HelloResponse:
    return replica_pb2.HelloResponse(
        replica_id=replica_id, draining=roster.phase is not Phase.SERVING
    )
