"""Which submits pass, by their signatures."""

import pytest

from shoal.errors import KeysUnknownError, SignatureError
from shoal.signing import Signer, verifies
from shoal_gateway.api.signers import WINDOW, Signers
from shoal_gateway.errors import InvalidError, UnauthenticatedError, UnavailableError
from shoal_gateway.signatures import sign
from shoal_protos.gateway.api.v1 import api_pb2

NOW = 1_700_000_000.0
SIGNER = Signer.generate()


class Known:
    """One key, of ada's."""

    def verify(self, owner, key_id, domain, message, signature):
        if (owner, key_id) != ("ada", SIGNER.id):
            raise SignatureError(f"the key {key_id} of {owner!r} is not known")
        if not verifies(SIGNER.public, domain, message, signature):
            raise SignatureError("the signature is not one under this")


class Unknown:
    def verify(self, *_):
        raise KeysUnknownError("public keys are not known yet")


def request(owner="ada", *, signed_at=NOW, signer=SIGNER, **changes):
    made = api_pb2.SubmitRequest(owner=owner, idempotency_key="k", application="nap")
    if signer is not None:
        sign(made, signer, signed_at)
    made.MergeFrom(api_pb2.SubmitRequest(**changes))
    return made


def signers(keys=None, **options):
    return Signers(Known() if keys is None else keys, now=lambda: NOW, **options)


def test_a_signed_one_is_told_by_whom():
    assert signers().of(request()) == f"ada/{SIGNER.id}"
    assert signers(required=True).of(request()) == f"ada/{SIGNER.id}"


def test_an_unsigned_one_passes_unless_signatures_are_required():
    assert signers().of(request(signer=None)) == ""
    assert Signers().of(request(signer=None)) == ""
    with pytest.raises(UnauthenticatedError, match=r"takes signed jobs only.*shoal keys new"):
        signers(required=True).of(request(signer=None))


@pytest.mark.parametrize(
    "asked",
    [
        request(parameters={"seconds": "9"}),
        request(signer=Signer.generate()),
        request(owner="bob"),
    ],
)
def test_what_does_not_verify_is_refused_though_it_had_not_to_be_signed(asked):
    with pytest.raises(UnauthenticatedError, match=r"^signature: "):
        signers().of(asked)


@pytest.mark.parametrize(
    ("off", "told"), [(-WINDOW - 1, "301 s ago"), (WINDOW + 1, "301 s in the future")]
)
def test_a_signature_of_another_time_is_refused(off, told):
    with pytest.raises(UnauthenticatedError, match=f"{told}.*both clocks"):
        signers().of(request(signed_at=NOW + off))
    for near in (-WINDOW, WINDOW):
        assert signers().of(request(signed_at=NOW + near))


@pytest.mark.parametrize(
    ("signature", "field"),
    [
        (api_pb2.Signature(signature=bytes(64)), "signature.key_id"),
        (api_pb2.Signature(key_id="x", signature=bytes(63)), "signature.signature"),
    ],
)
def test_what_is_no_signature_is_named(signature, field):
    with pytest.raises(InvalidError) as caught:
        signers().of(request(signer=None, signature=signature))
    assert caught.value.field == field
    with pytest.raises(InvalidError, match="owner"):
        signers().of(request(owner=""))


def test_keys_that_are_not_known_now_are_no_verdict():
    with pytest.raises(UnavailableError, match="not known yet"):
        signers(Unknown()).of(request())
    with pytest.raises(UnauthenticatedError, match=r"can't verify.*install"):
        Signers(now=lambda: NOW).of(request())


def test_of_many_the_one_that_may_not_pass_is_named():
    good, plain = request(), request(signer=None)
    many = api_pb2.SubmitManyRequest(requests=[good, plain])
    assert signers().of_all(many) == [f"ada/{SIGNER.id}", ""]
    with pytest.raises(UnauthenticatedError, match=r"^requests\[1\].signature: "):
        signers(required=True).of_all(many)
