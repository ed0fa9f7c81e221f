"""Servers of made contracts: each says who it is, by a service that a test has written."""

from __future__ import annotations

import threading

import grpc

import shoal
import shoal.aio
from tests.support.protos import SERVICE, Made, field, message, method

# What callers here know: a job's number is a text.
OURS = Made(
    message("Ask", field("id", 1)),
    message("Answer", field("who", 1), field("id", 2)),
    method("Do"),
    method("Undo"),
)
# The same, later: with more of everything.
LATER = Made(
    message("Ask", field("id", 1), field("urgent", 2, "bool")),
    message("Answer", field("who", 1), field("id", 2), field("cost", 3, "double")),
    method("Do"),
    method("Undo"),
    method("Redo"),
)
# And one that broke: a number is a number now.
BROKEN = Made(
    message("Ask", field("id", 1, "int32")),
    message("Answer", field("who", 1), field("id", 2, "int32")),
    method("Do"),
    method("Undo"),
)
SENTENCE = "field shoal.testing.made.Ask.id changed from string to int32"


class Calls:
    """Counts what came, by replica."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.by_replica: dict[str, int] = {}

    def came(self, name):
        with self._lock:
            self.by_replica[name] = self.by_replica.get(name, 0) + 1


def _handlers(made, answer):
    kinds = {
        each.name: grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=made.type("Ask").FromString,
            response_serializer=made.type("Answer").SerializeToString,
        )
        for each in made.service.methods
    }
    return grpc.method_handlers_generic_handler(SERVICE, kinds)


def server(name, made, calls, service="made", **options):
    """A blocking server of a made contract."""

    def answer(request, _):
        calls.came(name)
        return made.type("Answer")(who=name, id=request.id)

    options = {"linger": 0.3, "grace": 10.0, "reflection": False, **options}
    found = shoal.Server(service, id=name, descriptors=made.pool, **options)
    found.add_generic_rpc_handlers((_handlers(made, answer),))
    return found


def aio_server(name, made, calls, service="made", **options):
    """The same for asyncio."""

    async def answer(request, _):
        calls.came(name)
        return made.type("Answer")(who=name, id=request.id)

    options = {"linger": 0.3, "grace": 10.0, "reflection": False, **options}
    found = shoal.aio.Server(service, id=name, descriptors=made.pool, **options)
    found.add_generic_rpc_handlers((_handlers(made, answer),))
    return found


def stub(channel, name="Do", made=OURS):
    """A method as a caller of a made contract knows it."""
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=made.type("Ask").SerializeToString,
        response_deserializer=made.type("Answer").FromString,
    )


ASK = OURS.type("Ask")(id="7")
