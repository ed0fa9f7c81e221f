"""Channels that ask for versions and contracts, over a fixed directory and real servers."""

from collections import Counter

import grpc
import pytest

import shoal
from shoal.contracts import KEY, ServedContract
from shoal.testing import FixedDirectory
from shoal_balancer import Replica
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.protos import SERVICE
from tests.support.versioned import ASK, BROKEN, LATER, OURS, SENTENCE, Calls, server, stub

ECHO = "shoal.testing.v1.Echo"
REQUEST = echo_pb2.EchoRequest(payload=b"x")


@pytest.fixture
def directory(servers):
    """Three echo servers of three versions."""
    versions = ("1.1.0", "1.4.2", "2.0.0")
    return FixedDirectory(
        {
            "echo": [
                Replica(f"r{version}", "127.0.0.1", each.port, version=version)
                for version, each in zip(versions, servers, strict=True)
            ]
        }
    )


def served(stub, times=12):
    calls = (stub.Echo.with_call(REQUEST, timeout=10.0) for _ in range(times))
    return Counter(shoal.replica_of(call).version for _, call in calls)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (">=1.2,<2", {"1.4.2"}),
        ("==1.1.0", {"1.1.0"}),
        ("^1.1", {"1.1.0", "1.4.2"}),
        (shoal.VersionRange.parse("2.*"), {"2.0.0"}),
        (None, {"1.1.0", "1.4.2", "2.0.0"}),
    ],
)
def test_calls_go_to_the_versions_that_were_asked_for(stubs, version, expected):
    stub = stubs(version=version, policy=shoal.RoundRobin())
    assert set(served(stub)) == expected


def test_a_range_and_a_filter_and_canary_shares_go_together(stubs):
    policy = shoal.Canary({"==1.4.*": 0.25}, shoal.RoundRobin())
    stub = stubs(version="<2", policy=policy, slow_start=None)
    found = served(stub, 80)
    assert found["1.4.2"] == pytest.approx(20, abs=4)
    assert found["1.1.0"] == pytest.approx(60, abs=4)
    only = stubs(version="<2", filter=shoal.where(version="1.1.0"))
    assert set(served(only)) == {"1.1.0"}


def test_when_no_version_is_left_the_error_says_which_there_are(channels):
    channel = channels(version="^3")
    with pytest.raises(shoal.CallError) as caught:
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=10.0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    details = caught.value.details()
    for version in ("1.1.0", "1.4.2", "2.0.0"):
        assert f"version {version} (replica r{version}) is not in '^3'" in details
    assert [each.replica.version for each in channel.snapshot().unfit] == [
        "1.1.0",
        "1.4.2",
        "2.0.0",
    ]


def test_what_cannot_be_read_is_said_when_the_channel_is_made(directory):
    with pytest.raises(ValueError, match="no version"):
        directory.channel("echo", version=">=one")
    with pytest.raises(ValueError, match=r"'no\.Such' is not known here"):
        directory.channel("echo", contract="no.Such")


def test_a_replica_that_moves_out_of_the_range_is_not_called_from_the_reserve(
    channels, directory, servers
):
    stub = echo_pb2_grpc.EchoStub(channels(version="<2"))
    assert served(stub)
    # The same replicas at the same places, upgraded: most of the set has left, in one change.
    directory.set(
        "echo",
        [Replica(f"r{v}", "127.0.0.1", s.port, version="3.0") for v, s in
         zip(("1.1.0", "1.4.2", "2.0.0"), servers, strict=True)],
    )  # fmt: skip
    with pytest.raises(shoal.CallError, match=r"is not in '<2'"):
        stub.Echo(REQUEST, timeout=10.0)


@pytest.fixture
def fleet():
    """A fixed directory, and a way to have servers of made contracts in it."""
    directory, calls, servers = FixedDirectory(), Calls(), []

    def serve(name, made, **options):
        servers.append(server(name, made, calls, **options))
        servers[-1].serve(directory)
        return servers[-1]

    serve.directory, serve.calls = directory, calls
    yield serve
    directory.close()
    for each in servers:
        assert each.stop(0).wait(30)


def test_a_replica_of_another_contract_gets_no_call(fleet):
    fleet("good", OURS, version="1.0")
    fleet("bad", BROKEN, version="2.0")
    with fleet.directory.channel("made", contract=OURS.service) as channel:
        do = stub(channel)
        assert {do(ASK, timeout=10.0).who for _ in range(20)} == {"good"}
        [unfit] = channel.snapshot().unfit
    assert unfit.replica.id == "bad"
    assert SENTENCE in unfit.why
    assert unfit.contract
    assert fleet.calls.by_replica == {"good": 20}


def test_when_none_is_left_the_error_names_field_version_and_replica(fleet):
    fleet("bad", BROKEN, version="2.0")
    with (
        fleet.directory.channel("made", contract=OURS.service) as channel,
        pytest.raises(shoal.CallError) as caught,
    ):
        stub(channel)(ASK, timeout=10.0)
    assert f"version 2.0 (replica bad) has another contract: {SENTENCE}" in caught.value.details()
    assert fleet.calls.by_replica == {}


def test_one_that_took_its_place_is_called(fleet):
    bad = fleet("bad", BROKEN, version="2.0")
    with fleet.directory.channel("made", contract=OURS.service) as channel:
        with pytest.raises(shoal.CallError):
            stub(channel)(ASK, timeout=10.0)
        fleet("good", LATER, version="2.1")
        assert stub(channel)(ASK, timeout=10.0).who == "good"
        bad.drain()
        assert stub(channel)(ASK, timeout=10.0).who == "good"


def test_an_older_replica_is_taken_where_that_is_said(fleet):
    fleet("old", OURS, version="1.0")
    service = LATER.service
    # It uses nothing that the old one has not.
    method = service.methods_by_name["Do"]
    with fleet.directory.channel("made", contract=shoal.Contract(method, older=True)) as channel:
        assert stub(channel, made=LATER)(LATER.type("Ask")(id="7"), timeout=10.0).who == "old"
    with (
        fleet.directory.channel("made", contract=method) as channel,
        pytest.raises(shoal.CallError, match=r"Ask\.urgent was removed, or is not there yet"),
    ):
        stub(channel, made=LATER)(LATER.type("Ask")(id="7"), timeout=10.0)
    with (
        fleet.directory.channel("made", contract=shoal.Contract(service, older=True)) as channel,
        pytest.raises(shoal.CallError, match=r"method shoal\.testing\.made\.Made\.Redo is gone"),
    ):
        stub(channel, made=LATER)(LATER.type("Ask")(id="7"), timeout=10.0)


def test_a_server_that_publishes_nothing_is_called(fleet):
    replica = fleet("silent", BROKEN, contract=False).replica
    assert KEY not in replica.metadata
    with fleet.directory.channel("made", contract=OURS.service) as channel:
        # It can't be known, and proto itself reads what it can.
        stub(channel)(OURS.type("Ask")(), timeout=10.0)
    assert fleet.calls.by_replica == {"silent": 1}


def test_a_contract_that_is_not_to_be_read_is_held_against_nobody_until_it_is(fleet, caplog):
    replica = fleet("bad", BROKEN).replica
    digest = replica.metadata[KEY]
    other = FixedDirectory({"made": [replica]})
    with other.channel("made", contract=OURS.service) as channel:
        stub(channel)(OURS.type("Ask")(), timeout=10.0)
        assert f"the contract {digest} was not published; replicas" in caplog.text
        other.publish_contract(ServedContract.of([SERVICE], BROKEN.pool))
        with pytest.raises(shoal.CallError, match=SENTENCE):
            stub(channel)(ASK, timeout=10.0)


class Slow(FixedDirectory):
    """Answers for contracts when it is told to."""

    def __init__(self, services):
        super().__init__(services)
        self.asked = []

    def ask_contract(self, digest, reader):
        self.asked.append((digest, reader))


def test_a_call_waits_for_a_contract_that_is_being_read(fleet):
    replica = fleet("good", OURS).replica
    slow = Slow({"made": [replica]})
    with slow.channel("made", contract=OURS.service) as channel:
        future = stub(channel).future(ASK, timeout=20.0)
        assert channel.snapshot().unfit[0].pending
        assert not channel.pool.known
        [(digest, reader)] = slow.asked
        assert fleet.calls.by_replica == {}
        reader(digest, ServedContract.of([SERVICE], OURS.pool))
        assert future.result().who == "good"
        assert channel.pool.known
    # The same digest again: nothing is asked twice.
    assert len(slow.asked) == 1


def test_a_set_that_comes_between_the_pick_and_the_end_of_patience_is_looked_at(fleet):
    replica = fleet("good", OURS).replica
    slow = Slow({"made": [replica]})
    with slow.channel("made", contract=OURS.service) as channel:
        pick = channel.pool.take

        def take(*arguments):
            node = pick(*arguments)
            while slow.asked:
                digest, reader = slow.asked.pop()
                reader(digest, ServedContract.of([SERVICE], OURS.pool))
            return node

        channel.pool.take = take
        assert stub(channel)(ASK, timeout=10.0).who == "good"


class Learned:
    """An echo replica whose service lacks a method that we know."""

    def __init__(self, port):
        import google.protobuf.descriptor_pb2 as d
        from google.protobuf import descriptor_pool

        file = d.FileDescriptorProto()
        echo_pb2.DESCRIPTOR.CopyToProto(file)
        methods = [each for each in file.service[0].method if each.name != "EchoOnce"]
        del file.service[0].method[:]
        file.service[0].method.extend(methods)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self.contract = ServedContract.of([ECHO], pool)
        facts = {"protos": ECHO, KEY: self.contract.digest}
        self.replica = Replica("less", "127.0.0.1", port, version="0.9", metadata=facts)


def test_what_is_needed_is_learned_from_the_first_call_of_each_method(servers):
    less = Learned(servers[0].port)
    directory = FixedDirectory({"echo": [less.replica]})
    directory.publish_contract(less.contract)
    with directory.channel("echo", contract=shoal.Contract()) as channel:
        stub = echo_pb2_grpc.EchoStub(channel)
        for _ in range(2):
            assert stub.Echo(REQUEST, timeout=10.0).server == "a"
        assert stub.Echo._plain
        sent = len(servers[0].seen)
        with pytest.raises(shoal.CallError, match=rf"method {ECHO}\.EchoOnce is gone"):
            stub.EchoOnce(REQUEST, timeout=10.0)
        # From now on the channel needs it, whatever is called.
        with pytest.raises(shoal.CallError, match="EchoOnce is gone"):
            stub.Echo(REQUEST, timeout=10.0)
        assert len(servers[0].seen) == sent
        whole = ServedContract.of([ECHO])
        directory.publish_contract(whole)
        facts = {"protos": ECHO, KEY: whole.digest}
        directory.set("echo", [Replica("all", "127.0.0.1", servers[1].port, metadata=facts)])
        assert stub.EchoOnce(REQUEST, timeout=10.0).server == "b"
        assert next(stub.EchoDown(REQUEST, timeout=10.0)).server == "b"


def test_a_new_version_that_went_wrong_is_told_of_once(fleet, caplog):
    fleet("good", OURS, version="1.0")
    with fleet.directory.channel("made", contract=OURS.service):
        fleet("bad", BROKEN, version="2.0")
        fleet("good-2", OURS, version="1.0")
    told = [each.getMessage() for each in caplog.records if each.name == "shoal.pool"]
    assert len(told) == 1
    assert SENTENCE in told[0]
    assert "fixed:/services/made: passed over: version 2.0 (replica bad)" in told[0]


def test_many_are_told_of_in_few_words(directory):
    many = [Replica(f"r{n}", "127.0.0.1", 1, version=f"{1 + n % 6}.0") for n in range(30)]
    directory.set("echo", many)
    with (
        directory.channel("echo", version="^9") as channel,
        pytest.raises(shoal.CallError) as caught,
    ):
        echo_pb2_grpc.EchoStub(channel).Echo(REQUEST, timeout=10.0)
    details = caught.value.details()
    assert "version 1.0 (replicas r0, r12, r18 and 2 more) is not in '^9'" in details
    assert "2 other versions or faults" in details
