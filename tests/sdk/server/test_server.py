"""The blocking server, with real grpc and a directory in memory.

One file, in the order of a server's life: it is made, serves, is announced, drains, ends.
"""

import errno
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import shoal
from shoal.contracts import ServedContract
from shoal.drain import Phase
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2_grpc
from shoal_protos.v1 import replica_pb2, replica_pb2_grpc
from tests.sdk.server.support import ECHO, REQUEST, WAIT, health_of, held
from tests.support.waiting import eventually


def test_it_serves_and_announces_what_it_is(made, directory, stub_to):
    server = made(version="1.4", flavor="sql", zone="z1", host="host-1", weight=2.0,
                  metadata={"colour": "red"})  # fmt: skip
    replica = server.serve(directory)
    assert directory.watch("echo").replicas() == (replica,)
    assert (replica.id, replica.address, replica.version, replica.flavor) == (
        "one", "127.0.0.1", "1.4", "sql",
    )  # fmt: skip
    assert (replica.zone, replica.host, replica.weight) == ("z1", "host-1", 2.0)
    assert dict(replica.metadata) == {
        "colour": "red",
        "keepalive": "10",
        "protos": ECHO,
        "protos_digest": ServedContract.of([ECHO]).digest,
    }
    assert stub_to(replica.target).Echo(REQUEST, timeout=WAIT).server == "one"
    assert replica.target in repr(server)


def test_it_is_a_grpc_server(made, channel_to):
    server = made()
    assert isinstance(server, grpc.Server)
    handler = grpc.method_handlers_generic_handler(
        "a.B", {"C": grpc.unary_unary_rpc_method_handler(lambda request, context: request + b"!")}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert server.wait_for_termination(0.01)
    assert channel_to(f"127.0.0.1:{port}").unary_unary("/a.B/C")(b"hi", timeout=WAIT) == b"hi!"
    server.stop(None).wait(WAIT)
    assert not server.wait_for_termination(WAIT)


def test_ipv6(made, directory, stub_to):
    replica = made().serve(directory, bind="[::1]:0")
    assert replica.target.startswith("[::1]:")
    assert stub_to(replica.target).Echo(REQUEST, timeout=WAIT).server == "one"


def test_another_address_may_be_advertised(made, directory, stub_to):
    replica = made().serve(directory, bind="0.0.0.0:0", advertise="127.0.0.9")
    assert replica.address == "127.0.0.9"
    assert stub_to(replica.target).Echo(REQUEST, timeout=WAIT).server == "one"


def test_a_taken_port_is_an_error_that_names_it_and_announces_nothing(made, directory):
    port = made().serve(directory).port
    with pytest.raises(shoal.BindError, match=f"127.0.0.1:{port} can't be bound: Address already"):
        made(id="two").serve(directory, bind=f"127.0.0.1:{port}")
    assert [replica.id for replica in directory.watch("echo").replicas()] == ["one"]


def test_after_a_taken_port_the_same_server_may_take_another(made, directory):
    port = made().serve(directory).port
    second = made(id="two")
    with pytest.raises(shoal.BindError) as caught:
        second.serve(directory, bind=f"127.0.0.1:{port}")
    assert caught.value.errno == errno.EADDRINUSE
    assert second.serve(directory).port != port


def test_everywhere_is_refused_before_anything_is_bound(made, directory):
    with pytest.raises(ValueError, match="advertise="):
        made().serve(directory, bind="0.0.0.0:0")


def test_tls(made, directory, channel_to, tls):
    key, certificate = tls
    said = []
    announce = directory.announce
    directory.announce = lambda *a, **k: said.append(k["secure"]) or announce(*a, **k)
    replica = made().serve(directory, credentials=grpc.ssl_server_credentials([(key, certificate)]))
    assert said == [True]
    channel = channel_to(replica.target, grpc.ssl_channel_credentials(certificate))
    assert echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=WAIT).server == "one"


class Deaf(FixedDirectory):
    def announce(self, *_, **__):
        raise shoal.RegistrationError("nobody listens")


def test_who_cannot_be_announced_does_not_serve(made, stub_to):
    server = made()
    bound = []
    original = server.add_insecure_port
    server.add_insecure_port = lambda address: bound.append(original(address)) or bound[0]
    with pytest.raises(shoal.RegistrationError, match="nobody listens"):
        server.serve(Deaf())
    with pytest.raises(grpc.RpcError) as caught:
        stub_to(f"127.0.0.1:{bound[0]}").Echo(REQUEST, timeout=WAIT)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_health_is_serving_only_while_announced(made, directory, channel_to):
    server = made(linger=WAIT)
    port = server.add_insecure_port("127.0.0.1:0")
    target = f"127.0.0.1:{port}"
    health = health_pb2_grpc.HealthStub(channel_to(target))
    seen = []
    announce = directory.announce

    def watched(*arguments, **options):
        seen.extend(health_of(health, name) for name in ("", ECHO))
        return announce(*arguments, **options)

    directory.announce = watched
    server.serve(directory)
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        (health_pb2.HealthCheckResponse.NOT_SERVING),
    )
    assert seen == [not_serving] * 2
    assert [health_of(health, name) for name in ("", ECHO, "shoal.v1.Replica")] == [serving] * 3
    with pytest.raises(grpc.RpcError) as caught:
        health_of(health, "no.Such")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    # A caller that stays keeps the drain waiting, so that health can be looked at.
    replica_pb2_grpc.ReplicaStub(channel_to(target)).Hello(
        replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT
    )
    left = server.stop()
    eventually(lambda: server.roster.phase is Phase.LEAVING)
    eventually(lambda: health_of(health) == not_serving)
    eventually(lambda: health_of(health, ECHO) == not_serving)
    replica_pb2_grpc.ReplicaStub(channel_to(target)).Released(
        replica_pb2.ReleasedRequest(caller_id="c"), timeout=WAIT
    )
    assert left.wait(WAIT)


def test_reflection_lists_what_is_served(made, directory, channel_to):
    replica = made().serve(directory)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel_to(replica.target))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=WAIT)
    assert {service.name for service in answer.list_services_response.service} == {
        ECHO,
        "shoal.v1.Replica",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("package", ["grpc_health.v1", "grpc_reflection.v1alpha"])
def test_without_the_extra_it_says_what_to_install(package, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"shoal\[server\]"):
        shoal.Server("echo")
    shoal.Server("echo", health=False, reflection=False)


def test_hello_says_who_is_there_and_needs_a_name(made, directory, channel_to):
    replica = made().serve(directory)
    stub = replica_pb2_grpc.ReplicaStub(channel_to(replica.target))
    answer = stub.Hello(replica_pb2.HelloRequest(caller_id="c"), timeout=WAIT)
    assert (answer.replica_id, answer.draining) == ("one", False)
    for call, request in (
        (stub.Hello, replica_pb2.HelloRequest()),
        (stub.Released, replica_pb2.ReleasedRequest()),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=WAIT)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "caller_id" in caught.value.details()
    stub.Released(replica_pb2.ReleasedRequest(caller_id="c"), timeout=WAIT)


def test_interceptors_of_the_user_still_run(directory, channel_to, made):
    seen = []

    class Note(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            seen.append(details.method)
            return continuation(details)

    replica = made(interceptors=[Note()]).serve(directory)
    echo_pb2_grpc.EchoStub(channel_to(replica.target)).Echo(REQUEST, timeout=WAIT)
    assert seen == [f"/{ECHO}/Echo"]


def test_calls_are_counted_while_they_run_of_all_kinds(made, directory, stub_to):
    server = made()
    release = held(server)
    stub = stub_to(server.serve(directory).target)
    calls = [
        stub.Echo.future(REQUEST, timeout=WAIT),
        stub.EchoDown(REQUEST, timeout=WAIT),
        stub.EchoUp.future(iter([REQUEST]), timeout=WAIT),
        stub.EchoBoth(iter([REQUEST]), timeout=WAIT),
    ]
    eventually(lambda: server.roster.running == 4)
    calls[1].cancel()
    eventually(lambda: server.roster.running == 3)
    release.set()
    for call in (calls[0], calls[2]):
        call.result(WAIT)
    assert len(list(calls[3])) == 1
    eventually(lambda: server.roster.running == 0)


def test_an_unknown_method_is_unimplemented(made, directory, channel_to):
    replica = made().serve(directory)
    with pytest.raises(grpc.RpcError) as caught:
        channel_to(replica.target).unary_unary("/no.Such/Method")(b"", timeout=WAIT)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_descriptors_that_are_too_large_are_said_before_anything_is_bound(
    made, directory, monkeypatch
):
    monkeypatch.setattr("shoal.contracts.served.MOST_PACKED", 10)
    server = made()
    server.add_insecure_port = None
    with pytest.raises(shoal.ContractError, match="at most 10 are published"):
        server.serve(directory)
    quiet = made(id="two", contract=False)
    assert "protos_digest" not in quiet.serve(directory).metadata
