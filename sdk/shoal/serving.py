"""What the sync and the asyncio server have in common: addresses, names, the gate, health."""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio

from shoal.drain import Phase, Roster
from shoal.errors import BindError
from shoal.refusal import DRAINING, refuse, refuse_aio
from shoal_balancer import Replica

REPLICA_SERVICE = "shoal.v1.Replica"
HEALTH_SERVICE = "grpc.health.v1.Health"

# What a draining replica answers on until its end.
_ALWAYS = (f"/{REPLICA_SERVICE}/", f"/{HEALTH_SERVICE}/")

_EVERYWHERE = ("0.0.0.0", "::", "[::]", "*", "")  # noqa: S104 - compared with, not bound

MISSING = (
    "shoal.Server serves health and reflection with packages that are not installed: "
    "pip install 'shoal[server]', or make the server with health=False, reflection=False"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server announces of itself, but for its address.

    Attributes:
        service: The service's name in the directory.
        id: The replica's name there.
        version: Version of the service.
        flavor: The kind of work it does.
        zone: Where it stands.
        host: The machine, for people.
        weight: Share of traffic it asks for.
        metadata: Anything else.
    """

    service: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    version: str = ""
    flavor: str = ""
    zone: str = ""
    host: str = ""
    weight: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def replica(self, address: str, port: int, names: Iterable[str]) -> Replica:
        """The replica at an address, with the names of the proto services that it serves."""
        facts = {**self.metadata, "protos": ",".join(sorted(names))}
        return Replica(
            id=self.id,
            address=address,
            port=port,
            version=self.version,
            flavor=self.flavor,
            zone=self.zone,
            host=self.host,
            weight=self.weight,
            metadata=MappingProxyType(facts),
        )


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[::1]:port``.

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]]*):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"an address is 'host:port' or '[ipv6]:port', not {address!r}")
    return match[1].strip("[]"), int(match[2])


def advertised(bind: str, advertise: str | None) -> str:
    """The host that callers are told to connect to.

    Raises:
        ValueError: the server listens everywhere, and nobody said under which address it is found.
    """
    if advertise is not None:
        return advertise.strip("[]")
    host, _ = split_address(bind)
    if host in _EVERYWHERE:
        raise ValueError(
            f"bind={bind!r} listens on every address; say which one callers should use: "
            "advertise='10.0.0.5'"
        )
    return host


def exclusive(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Server options with ports that are not shared: else a second bind succeeds silently."""
    return list({"grpc.so_reuseport": 0, **dict(options)}.items())


def bound(bind: str, add: Callable[[], int]) -> int:
    """The port that ``add`` has bound.

    Raises:
        BindError: it could not.
    """
    try:
        port = add()
    except RuntimeError as error:
        raise BindError(f"{bind} can't be bound: {error}. Is another server using it?") from error
    if port == 0:
        raise BindError(f"{bind} can't be bound. Is another server using it?")
    return port


def names_of(handlers: Iterable[Any]) -> list[str]:
    """Names of the services behind generic handlers, as far as they tell."""
    named = (getattr(handler, "service_name", None) for handler in handlers)
    return [name() for name in named if callable(name)]


class Gate(grpc.ServerInterceptor):
    """Lets calls in while serving, notes strangers while leaving, and refuses at the end.

    While the server serves, a call costs one comparison here.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Grpc's hook, once for each call."""
        handler = continuation(handler_call_details)
        roster = self._roster
        if roster.phase is Phase.SERVING or handler is None:
            return handler
        if handler_call_details.method.startswith(_ALWAYS):
            return handler
        return _swapped(handler, self._refusing if roster.phase is Phase.REFUSING else self._noting)

    def _refusing(self, behavior: Any) -> Any:
        roster = self._roster

        def turned_away(_request: Any, context: Any) -> Any:
            roster.refuse()
            refuse(
                context,
                "this replica is shutting down; another one will take the call",
                reason=DRAINING,
                code=grpc.StatusCode.UNAVAILABLE,
            )

        del behavior
        return turned_away

    def _noting(self, behavior: Any) -> Any:
        roster = self._roster

        def noted(request: Any, context: Any) -> Any:
            roster.called(context.peer())
            return behavior(request, context)

        return noted


class AioGate(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Grpc's hook, once for each call."""
        handler = await continuation(handler_call_details)
        roster = self._roster
        if roster.phase is Phase.SERVING or handler is None:
            return handler
        if handler_call_details.method.startswith(_ALWAYS):
            return handler
        return _swapped(handler, self._refusing if roster.phase is Phase.REFUSING else self._noting)

    def _refusing(self, behavior: Any) -> Any:
        roster = self._roster

        async def turned_away(_request: Any, context: Any) -> Any:
            roster.refuse()
            await refuse_aio(
                context,
                "this replica is shutting down; another one will take the call",
                reason=DRAINING,
                code=grpc.StatusCode.UNAVAILABLE,
            )

        del behavior
        return turned_away

    def _noting(self, behavior: Any) -> Any:
        roster = self._roster
        # grpc.aio looks at what kind of function a handler is, so each kind keeps its kind.
        if inspect.isasyncgenfunction(behavior):

            async def noted_stream(request: Any, context: Any) -> Any:
                roster.called(context.peer())
                async for response in behavior(request, context):
                    yield response

            return noted_stream
        if inspect.iscoroutinefunction(behavior):

            async def noted(request: Any, context: Any) -> Any:
                roster.called(context.peer())
                return await behavior(request, context)

            return noted
        return behavior


def _swapped(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    """The handler with its behaviour wrapped, whichever of the four kinds it is."""
    makers = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    make, behavior = makers[(bool(handler.request_streaming), bool(handler.response_streaming))]
    return make(wrap(behavior), handler.request_deserializer, handler.response_serializer)
