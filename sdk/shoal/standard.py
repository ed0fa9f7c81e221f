"""The standard services that a server has beside the user's: health and reflection.

Their packages are an extra, ``shoal[server]``, and imported only where they are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio

from shoal.gate import HEALTH_SERVICE, REPLICA_SERVICE

MISSING = (
    "shoal.Server serves health and reflection with packages that are not installed: "
    "pip install 'shoal[server]', or make the server with health=False, reflection=False"
)


class Health:
    """``grpc.health.v1.Health`` of a blocking server; NOT_SERVING until told otherwise.

    Raises:
        ImportError: its package is not installed; names the cure.
    """

    def __init__(self, server: grpc.Server) -> None:
        try:
            from grpc_health.v1 import health, health_pb2_grpc
        except ImportError as error:
            raise ImportError(MISSING) from error
        self._servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def say(self, names: Iterable[str], *, serving: bool) -> None:
        """Tells the state of the server as a whole (the empty name) and of each service."""
        for name in ("", *names):
            self._servicer.set(name, _status(serving=serving))


class AioHealth:
    """The same of an asyncio server.

    Raises:
        ImportError: its package is not installed; names the cure.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        try:
            from grpc_health.v1 import health, health_pb2_grpc
        except ImportError as error:
            raise ImportError(MISSING) from error
        self._servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def say(self, names: Iterable[str], *, serving: bool) -> None:
        """Tells the state of the server as a whole (the empty name) and of each service."""
        for name in ("", *names):
            await self._servicer.set(name, _status(serving=serving))


def _status(*, serving: bool) -> Any:
    from grpc_health.v1 import health_pb2

    states = health_pb2.HealthCheckResponse
    return states.SERVING if serving else states.NOT_SERVING


def check_reflection() -> None:
    """Finds out early.

    Raises:
        ImportError: reflection's package is not installed; names the cure.
    """
    try:
        import grpc_reflection.v1alpha.reflection  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ImportError(MISSING) from error


def add_reflection(
    names: Iterable[str], server: Any, *, health: bool, descriptors: Any = None
) -> None:
    """Serves reflection of the named services, of Shoal's own and of the standard ones.

    With a pool of descriptors of their own, the named ones alone can be described.
    """
    from grpc_reflection.v1alpha import reflection

    standard = [REPLICA_SERVICE, *([HEALTH_SERVICE] if health else []), reflection.SERVICE_NAME]
    reflection.enable_server_reflection([*names, *standard], server, descriptors)
