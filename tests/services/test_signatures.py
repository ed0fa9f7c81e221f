"""What of a submit a signature covers."""

import hashlib

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from shoal.signing import Signer, verifies
from shoal_gateway.api.logic import fingerprint
from shoal_gateway.signatures import DOMAIN, sign, signed_message
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2

AT = Timestamp(seconds=1_700_000_000, nanos=250_000_000)


def file(name="a.csv", sha="0" * 64, size=3):
    stored = job_pb2.ObjectRef(key=f"uploads/{sha}", sha256=sha, size=size)
    return job_pb2.FileRef(name=name, object=stored)


def request(**changes):
    fields = {
        "owner": "ada",
        "idempotency_key": "k",
        "application": "nap@1.0",
        "parameters": {"seconds": "0.5", "who": "me"},
        "inputs": [file()],
        "max_attempts": 3,
        "start_within": Duration(seconds=60),
    }
    return api_pb2.SubmitRequest(**{**fields, **changes})


CHANGES = {
    "owner": ["bob", ""],
    "idempotency_key": ["k2"],
    "application": ["nap@2.0"],
    "parameters": [{}, {"seconds": "0.5"}, {"seconds": "0.6", "who": "me"}, {"seconds0": ".5"}],
    "inputs": [
        [],
        [file(), file("b.csv")],
        [file("b.csv")],
        [file(sha="1" * 64)],
        [file(size=4)],
    ],
    "max_attempts": [0, 4],
    "start_within": [None, Duration(seconds=61), Duration(seconds=60, nanos=1)],
}


def test_every_field_is_covered():
    """A field that is added to the request must be signed, under a new domain."""
    fields = {field.name for field in api_pb2.SubmitRequest.DESCRIPTOR.fields}
    assert fields == {*CHANGES, "signature"}
    stored = {field.name for field in job_pb2.ObjectRef.DESCRIPTOR.fields}
    assert stored == {"key", "sha256", "size"}
    assert {field.name for field in job_pb2.FileRef.DESCRIPTOR.fields} == {"name", "object"}


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in CHANGES.items() for value in values]
)
def test_whatever_is_changed_changes_what_is_signed(field, value):
    assert signed_message(request(**{field: value}), AT) != signed_message(request(), AT)


def test_so_does_the_time_and_the_signature_itself_does_not():
    later = Timestamp(seconds=AT.seconds, nanos=AT.nanos + 1)
    assert signed_message(request(), later) != signed_message(request(), AT)
    signed = request(signature=api_pb2.Signature(key_id="x", signature=b"y"))
    assert signed_message(signed, AT) == signed_message(request(), AT)


def test_the_bytes_are_those_that_are_documented():
    def part(data):
        return len(data).to_bytes(4, "big") + data

    def digest(*parts):
        return hashlib.sha256(b"".join(map(part, parts))).digest()

    zeros = b"0" * 64
    assert signed_message(request(), AT) == b"".join(
        map(
            part,
            [
                b"ada",
                b"k",
                b"nap@1.0",
                digest(b"seconds", b"0.5", b"who", b"me"),
                digest(b"a.csv", b"uploads/" + zeros, zeros, b"3"),
                b"3",
                b"60.0",
                b"1700000000.250000000",
            ],
        )
    )


texts = st.text(max_size=4)
requests = st.builds(
    request,
    owner=texts,
    idempotency_key=texts,
    application=texts,
    parameters=st.dictionaries(texts, texts, max_size=3),
)


@given(requests, requests)
def test_no_two_requests_are_signed_alike(one, other):
    assert (signed_message(one, AT) == signed_message(other, AT)) == (one == other)


def test_sign_puts_in_what_verifies():
    asked, signer = request(), Signer.generate()
    sign(asked, signer, 1_700_000_000.25)
    assert asked.signature.key_id == signer.id
    assert asked.signature.signed_at == AT
    message = signed_message(asked, asked.signature.signed_at)
    assert verifies(signer.public, DOMAIN, message, asked.signature.signature)


def test_an_idempotency_key_stands_for_the_request_however_it_is_signed():
    plain, signed = request(), request()
    sign(signed, Signer.generate(), 1.0)
    assert fingerprint(signed) == fingerprint(plain)
    # As it was before there were signatures: what a store knows already must stay known.
    whole = plain.SerializeToString(deterministic=True)
    assert fingerprint(plain) == hashlib.sha256(whole).hexdigest()
    assert signed.HasField("signature")
