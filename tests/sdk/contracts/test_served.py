"""What a replica publishes of its services, and what a caller asks of it."""

import gzip

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from shoal.contracts import Contract, ServedContract
from shoal.contracts import served as module
from shoal.errors import ContractError
from shoal_protos.gateway.registry.v1 import registry_pb2
from shoal_protos.testing.v1 import echo_pb2
from tests.support.protos import SERVICE, Made, asking, field, method

ECHO = "shoal.testing.v1.Echo"
REGISTRY = "shoal.gateway.registry.v1.Registry"


def test_one_contract_has_one_digest_in_whatever_order_and_pool_it_is_found():
    one = ServedContract.of([ECHO, REGISTRY])
    assert one.digest == ServedContract.of([REGISTRY, ECHO, ECHO]).digest
    again = ServedContract.unpack(one.digest, one.packed())
    assert again.service(ECHO).full_name == ECHO
    copied = ServedContract.of([ECHO, REGISTRY], again._pool)
    assert copied.digest == one.digest
    assert one.digest.startswith("sha256:")
    assert len(one.digest) == 71
    assert ServedContract.of([ECHO]).digest != one.digest


def test_comments_and_protobufs_own_files_are_not_part_of_it():
    files = descriptor_pb2.FileDescriptorSet.FromString(ServedContract.of([REGISTRY]).files).file
    names = [file.name for file in files]
    assert not any(name.startswith("google/protobuf/") for name in names)
    # Each after what it imports.
    assert names[-1] == registry_pb2.DESCRIPTOR.name
    assert not any(file.HasField("source_code_info") for file in files)


def test_what_has_no_descriptors_has_no_contract():
    assert ServedContract.of(["some.other.Service"]) is None
    assert ServedContract.of([]) is None
    assert (
        ServedContract.of(["some.other.Service", ECHO]).digest == ServedContract.of([ECHO]).digest
    )


def test_what_is_damaged_or_something_else_is_not_believed():
    one = ServedContract.of([ECHO])
    with pytest.raises(ContractError, match=r"sha256:.* is damaged"):
        ServedContract.unpack(one.digest, one.packed()[:-9])
    with pytest.raises(ContractError, match="damaged"):
        ServedContract.unpack(one.digest, b"not gzip")
    with pytest.raises(ContractError, match="something else"):
        ServedContract.unpack(one.digest, gzip.compress(b"others"))
    nonsense = ServedContract(b"\xff\xff")
    with pytest.raises(ContractError, match="can't be understood"):
        nonsense.service(ECHO)


def test_what_would_unpack_to_far_too_much_is_not_unpacked(monkeypatch):
    one = ServedContract.of([ECHO])
    monkeypatch.setattr(module, "MOST_BYTES", len(one.files) - 1)
    with pytest.raises(ContractError, match="something else"):
        ServedContract.unpack(one.digest, one.packed())


def test_descriptors_that_are_too_large_say_what_to_do(monkeypatch):
    one = ServedContract.of([REGISTRY])
    monkeypatch.setattr(module, "MOST_PACKED", 100)
    with pytest.raises(ContractError, match=r"take \d+ bytes .* at most 100 .* contract=False"):
        one.packed()


def test_a_file_that_imports_protobufs_own_is_read_although_they_are_not_in_it():
    file = descriptor_pb2.FileDescriptorProto(
        name="stamped.proto",
        package="stamped",
        dependency=["google/protobuf/type.proto"],
    )
    file.message_type.add(name="M").field.add(
        name="t", number=1, type=11, label=1, type_name=".google.protobuf.Type"
    )
    file.service.add(name="S").method.add(
        name="Do", input_type=".stamped.M", output_type=".stamped.M"
    )
    whole = descriptor_pb2.FileDescriptorSet(file=[file])
    found = ServedContract(whole.SerializeToString()).service("stamped.S")
    assert found.methods[0].input_type.fields[0].message_type.full_name == "google.protobuf.Type"


def test_a_contract_is_made_of_what_people_have_at_hand():
    service = echo_pb2.DESCRIPTOR.services_by_name["Echo"]
    all_of_it = {each.full_name for each in service.methods}
    for what in (service, echo_pb2, echo_pb2.DESCRIPTOR, ECHO, f"/{ECHO}"):
        assert set(Contract(what).asked()._methods) == all_of_it
    for what in (f"{ECHO}/EchoDown", f"/{ECHO}/EchoDown", service.methods_by_name["EchoDown"]):
        assert set(Contract(what).asked()._methods) == {f"{ECHO}.EchoDown"}
    assert Contract.of(None) is None
    assert not Contract.of(service).learns
    assert not Contract.of([f"{ECHO}/Echo", REGISTRY]).learns
    assert repr(Contract(f"{ECHO}/Echo", older=True)) == f"Contract({ECHO}.Echo, older=True)"


def test_what_is_not_known_says_what_to_do():
    with pytest.raises(ValueError, match=r"'no\.Such' is not known here: import"):
        Contract("no.Such")
    with pytest.raises(ValueError, match="has no method 'Nope'"):
        Contract(f"{ECHO}/Nope")
    with pytest.raises(TypeError, match="not of 7"):
        Contract(7)


def served(made):
    return ServedContract.of([SERVICE], made.pool)


def test_a_replicas_descriptors_are_compared_in_a_pool_of_their_own():
    asked = Contract(asking(field("id", 1)).service).asked()
    [problem] = asked.problems(served(asking(field("id", 1, "int32"))), SERVICE)
    assert problem.element == "shoal.testing.made.Ask.id"
    assert asked.problems(served(asking(field("id", 1))), SERVICE) == ()


def test_a_service_that_is_named_and_not_described_is_not_judged():
    asked = Contract(Made().service).asked()
    echo = ServedContract.of([ECHO])
    assert asked.problems(echo, f"{ECHO},{SERVICE}") == ()
    assert [str(each) for each in asked.problems(echo, ECHO)] == [
        f"service {SERVICE} is not served"
    ]


def test_calls_teach_what_is_needed():
    asked = Contract().asked()
    assert not asked
    name = f"/{ECHO}/Echo"
    without = Made(method("Do"))
    assert asked.problems(served(without), SERVICE) == ()
    assert asked.unlearned(name)
    assert asked.learn(name)
    assert not asked.unlearned(name)
    assert not asked.learn(name)
    assert [str(each) for each in asked.problems(served(without), SERVICE)] == [
        f"service {ECHO} is not served"
    ]
    # A method without a descriptor here teaches nothing, once.
    assert not asked.learn("/no.Such/Method")
    assert not asked.unlearned("/no.Such/Method")
    assert not Contract(ECHO).asked().unlearned(name)


def test_the_default_pool_is_left_alone():
    served(asking(field("id", 1))).service(SERVICE)
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindServiceByName(SERVICE)
