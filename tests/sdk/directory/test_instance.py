"""Registrations on the wire: Curator's x-discovery JSON, ours and foreign ones."""

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InstanceFormatError
from shoal.instance import decode, encode
from shoal_balancer import Replica, Status

# As Curator's JsonInstanceSerializer writes it.
CURATOR = {
    "name": "jobs",
    "id": "uuid",
    "address": "10.0.0.5",
    "port": 50051,
    "sslPort": None,
    "payload": None,
    "registrationTimeUTC": 1558000134185,
    "serviceType": "DYNAMIC",
    "uriSpec": None,
}


def document(**changes):
    return json.dumps({**CURATOR, **changes}).encode()


def test_curators_own_registration_is_read():
    replica = decode(document())
    assert replica == Replica("uuid", "10.0.0.5", 50051, registered_at=1558000134.185)
    assert replica.routable


def test_ours_has_the_fields_that_curator_reads():
    written = json.loads(encode("jobs", Replica("a", "10.0.0.5", 1, registered_at=5.5)))
    assert set(CURATOR) <= set(written)
    assert written["name"] == "jobs"
    assert written["registrationTimeUTC"] == 5500
    assert written["serviceType"] == "DYNAMIC"
    assert written["payload"]["status"] == "UP"


def test_the_tls_port_goes_where_curator_expects_it():
    data = encode("jobs", Replica("a", "10.0.0.5", 443, ssl_port=443))
    written = json.loads(data)
    assert (written["port"], written["sslPort"]) == (None, 443)
    assert (decode(data).port, decode(data).ssl_port) == (443, 443)


def test_both_doors_of_a_replica_are_kept():
    replica = Replica("a", "10.0.0.5", 80, ssl_port=443)
    again = decode(encode("jobs", replica))
    assert (again.port, again.ssl_port) == (80, 443)


def test_a_tls_port_that_is_none_is_passed_over_beside_a_good_port():
    assert decode(document(sslPort=0)).ssl_port is None
    with pytest.raises(InstanceFormatError, match="sslPort"):
        decode(document(port=None, sslPort=0))


@pytest.mark.parametrize(
    ("changes", "routable"),
    [
        ({}, True),  # `enabled` missing means true (CURATOR-275)
        ({"enabled": None}, True),
        ({"enabled": True}, True),
        ({"enabled": False}, False),
        ({"payload": {"status": "BUSY"}}, True),
        ({"payload": {"status": "draining"}}, False),
        ({"payload": {"metadata": {"instance_status": "OUT_OF_SERVICE"}}}, False),
        ({"payload": {"metadata": {"instance_status": "UP"}}}, True),
        ({"payload": "a string"}, True),
        ({"payload": [1]}, True),
        ({"unknown": {"deep": [1]}}, True),
    ],
)
def test_who_takes_calls(changes, routable):
    assert decode(document(**changes)).routable is routable


# As Spring Cloud Zookeeper announces an application: root /services, typed payload, a URI template.
SPRING = b"""{"name":"jobs","id":"0c2c8a47-1","address":"10.0.0.5","port":8080,"sslPort":null,
"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
"id":"application-1","name":"jobs",
"metadata":{"instance_status":"UP","zone":"eu-1","version":"3","team":"sea"}},
"registrationTimeUTC":1558000134185,"serviceType":"DYNAMIC","uriSpec":{"parts":[
{"value":"scheme","variable":true},{"value":"://","variable":false},
{"value":"address","variable":true},{"value":":","variable":false},
{"value":"port","variable":true}]}}"""


def test_spring_clouds_payload_is_read():
    replica = decode(SPRING)
    assert (replica.id, replica.target, replica.routable) == ("0c2c8a47-1", "10.0.0.5:8080", True)
    assert (replica.zone, replica.version, replica.status) == ("eu-1", "3", Status.UP)
    assert replica.metadata["team"] == "sea"
    assert not any(key.startswith("@") for key in replica.metadata)
    # It filters by that word alone, and so do we: the node stays enabled.
    away = decode(SPRING.replace(b'"UP"', b'"OUT_OF_SERVICE"'))
    assert away.enabled
    assert not away.routable


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"7", "a JSON object"),
        (document(id=""), "'id'"),
        (document(address=None), "'address'"),
        (document(port=0), "'port'"),
        (document(port="50051"), "'port'"),
        (document(port=None), "neither 'port' nor 'sslPort'"),
        (document(payload={"weight": "heavy"}), "'weight'"),
        (document(payload={"weight": -1}), "'weight'"),
        (document(payload={"weight": float("nan")}), "'weight'"),
        (document(payload={"weight": 10**400}), "'weight'"),
    ],
)
def test_what_cannot_be_called_says_why(data, why):
    with pytest.raises(InstanceFormatError, match=why):
        decode(data)


text = st.text(min_size=1, max_size=20)
replicas = st.builds(
    Replica,
    id=text,
    address=text,
    port=st.integers(1, 65535),
    ssl_port=st.none() | st.integers(1, 65535),
    version=text,
    flavor=text,
    zone=text,
    host=text,
    weight=st.floats(0.01, 100.0),
    status=st.sampled_from(Status),
    enabled=st.booleans(),
    registered_at=st.integers(0, 2**40).map(lambda millis: millis / 1000.0),
    metadata=st.dictionaries(text.filter(lambda key: not key.startswith("@")), text).map(
        lambda extra: MappingProxyType(
            {
                key: value
                for key, value in extra.items()
                if key not in ("version", "flavor", "zone", "weight", "status", "host")
            }
        )
    ),
)


@given(replicas)
def test_a_replica_survives_the_way_there_and_back(replica):
    assert decode(encode("jobs", replica)) == replica


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*CURATOR, "enabled"]), json_values))
def test_any_object_is_a_replica_or_a_reason(changes):
    try:
        replica = decode(document(**changes))
    except InstanceFormatError:
        return
    assert replica.id
    assert 0 < replica.port < 65536
    assert replica.weight > 0.0


@given(st.binary())
def test_any_bytes_are_a_replica_or_a_reason(data):
    with pytest.raises(InstanceFormatError):
        decode(data)
