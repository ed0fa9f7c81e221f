"""One call of each kind of a blocking channel."""

from __future__ import annotations

from shoal_protos.testing.v1 import echo_pb2 as pb

DEADLINE = 30.0


ONCE = "/shoal.testing.v1.Echo/EchoOnce"


def sent(*payloads):
    return iter([pb.EchoRequest(payload=payload) for payload in payloads])


SAFE = {
    "unary": lambda stub, **o: stub.Echo(pb.EchoRequest(payload=b"x"), **o),
    "with_call": lambda stub, **o: stub.Echo.with_call(pb.EchoRequest(payload=b"x"), **o)[0],
    "future": lambda stub, **o: stub.Echo.future(pb.EchoRequest(payload=b"x"), **o).result(30),
    "up": lambda stub, **o: stub.EchoUp(sent(b"x"), **o),
    "up_future": lambda stub, **o: stub.EchoUp.future(sent(b"x"), **o).result(30),
    "down": lambda stub, **o: next(stub.EchoDown(pb.EchoRequest(payload=b"x"), **o)),
    "both": lambda stub, **o: next(stub.EchoBoth(sent(b"x"), **o)),
}


UNSAFE = {
    "unary": lambda stub, **o: stub.EchoOnce(pb.EchoRequest(payload=b"x"), **o),
    "with_call": lambda stub, **o: stub.EchoOnce.with_call(pb.EchoRequest(payload=b"x"), **o)[0],
    "future": lambda stub, **o: stub.EchoOnce.future(pb.EchoRequest(payload=b"x"), **o).result(30),
}
