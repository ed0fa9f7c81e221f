"""Public keys over a real ZooKeeper, and jobs that are signed with them."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

import shoal
from shoal.errors import (
    CoordinationError,
    KeysUnknownError,
    SignatureError,
)
from shoal.recipes.keydocs import Standing
from shoal.signing import Signer
from shoal_gateway.client import Gateway, Submission
from tests.support.waiting import eventually

WAIT = 60.0
SHOAL = Path(sys.executable).with_name("shoal")


@pytest.fixture
def follow():
    made = []

    def make(directory, **options):
        made.append(shoal.Keys(directory, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def verified(keys, signer, owner="alice"):
    """Whether a signature of the owner's passes; else why not."""
    try:
        keys.verify(owner, signer.id, "test", b"message", signer.sign("test", b"message"))
    except (SignatureError, KeysUnknownError) as error:
        return str(error)
    return True


def test_a_key_is_used_by_others_from_its_publication_to_its_revocation(directories, follow):
    alice, verifier = follow(directories()), follow(directories())
    verifier.wait(WAIT)
    first, second = Signer.generate(), Signer.generate()
    assert "is not known; publish it" in verified(verifier, first)
    published = alice.publish("alice", first.public, comment="laptop")
    eventually(lambda: verified(verifier, first) is True, WAIT)
    assert alice.publish("alice", first.public, not_after=time.time() + 5) == published
    # It is hers alone, and for what she signed.
    assert "not known" in verified(verifier, first, owner="bob")
    with pytest.raises(SignatureError, match="changed on the way"):
        verifier.verify("alice", first.id, "test", b"other", first.sign("test", b"message"))
    # The next one takes over while the first still holds; then that is revoked.
    alice.publish("alice", second.public)
    eventually(lambda: verified(verifier, second) is True, WAIT)
    assert verified(verifier, first) is True
    alice.revoke("alice", first.id, why="laptop was stolen")
    eventually(lambda: verified(verifier, first) is not True, WAIT)
    assert verified(verifier, first).endswith("is revoked (laptop was stolen)")
    assert verified(verifier, second) is True
    assert [key.id for key in verifier.all()] == [second.id, first.id]


def test_a_key_holds_from_its_beginning_to_its_end_by_the_verifiers_clock(directories, follow):
    now = [1000.0]
    keys = follow(directories(), clock=lambda: now[0])
    signer = Signer.generate()
    keys.publish("alice", signer.public, not_before=2000.0)
    eventually(lambda: "not valid yet" in str(verified(keys, signer)), WAIT)
    now[0] = 1996.0  # clocks may differ by a little
    assert verified(keys, signer) is True
    now[0] = 2500.0
    assert verified(keys, signer) is True
    keys.end("alice", signer.id, 3000.0)
    assert keys.end("alice", signer.id, 4000.0).not_after == 3000.0
    eventually(lambda: keys.find("alice", signer.id).not_after == 3000.0, WAIT)
    now[0] = 2999.9
    assert verified(keys, signer) is True
    now[0] = 3000.0
    assert verified(keys, signer).endswith("is expired")


def test_what_is_no_key_is_passed_over_and_told(directories, follow, operator, caplog):
    directory = directories()
    keys, good, other = follow(directory), Signer.generate(), Signer.generate()
    keys.publish("alice", good.public)
    root = f"/{directory.hosts.partition('/')[2]}/keys"
    document, _ = operator.get(f"{root}/alice/{good.id}")
    operator.create(f"{root}/alice/{other.id}", document)
    operator.create(f"{root}/bob/notes", b"?", makepath=True)
    eventually(lambda: set(keys.broken) == {f"alice/{other.id}", "bob/notes"}, WAIT)
    assert "not what its name says" in verified(keys, other)
    assert verified(keys, good) is True
    assert "/keys/bob/notes is passed over" in caplog.text


def test_two_who_change_a_key_at_once_both_have_their_way(directories, follow):
    one, other = follow(directories()), follow(directories())
    signer = Signer.generate()
    one.publish("alice", signer.public)
    at = time.time() + 1000.0
    threads = [
        threading.Thread(target=one.revoke, args=("alice", signer.id)),
        *(
            threading.Thread(target=other.end, args=("alice", signer.id, at - number))
            for number in range(5)
        ),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(WAIT)

    def both():
        key = one.find("alice", signer.id)
        return key and key.revoked_at is not None and key.not_after == at - 4

    eventually(both, WAIT)
    assert one.find("alice", signer.id).standing(0.0) is Standing.REVOKED


def test_what_cannot_be_published_or_changed_is_told(directories, follow):
    keys, signer = follow(directories()), Signer.generate()
    with pytest.raises(ValueError, match="name of a node"):
        keys.publish("a/b", signer.public)
    with pytest.raises(ValueError, match="never does"):
        keys.publish("alice", signer.public, not_before=10.0, not_after=10.0)
    with pytest.raises(ValueError, match="no key's id"):
        keys.revoke("alice", "../bob/x")
    with pytest.raises(SignatureError, match=f"there is no key {signer.id} of 'alice'"):
        keys.revoke("alice", signer.id)


def test_keys_outlive_zookeeper_for_as_long_as_they_are_trusted(own_zookeeper, directories, follow):
    directory = directories(f"{own_zookeeper.hosts}/keys")
    keys, signer = follow(directory), Signer.generate()
    strict = follow(directory, trust_for=0.5)
    keys.publish("alice", signer.public)
    for each in (keys, strict):
        eventually(lambda one=each: verified(one, signer) is True, WAIT)
    own_zookeeper.kill()
    eventually(lambda: "trusted for 0.5 s: ZooKeeper is" in str(verified(strict, signer)), WAIT)
    assert verified(keys, signer) is True
    with pytest.raises(CoordinationError, match=r"no answer within 0\.2 s"):
        keys.revoke("alice", signer.id, timeout=0.2)
    # Who starts now knows nothing, and says that and not "no such key".
    late = follow(directories(f"{own_zookeeper.hosts}/keys"))
    assert "not known yet: ZooKeeper is" in verified(late, signer)
    own_zookeeper.start()
    for each in (strict, late):
        eventually(lambda one=each: verified(one, signer) is True, WAIT)


@pytest.fixture
def command(fleet, tmp_path):
    def run(*arguments, code=0, owner="alice"):
        done = subprocess.run(
            [SHOAL, "--fleet", fleet.fleet.directory, "--owner", owner, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env={"XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else " ".join(done.stderr.split())

    return run


def test_a_job_is_signed_and_says_by_whom_until_its_key_is_revoked(fleet, command, tmp_path):
    nap = ("submit", "nap", "-p", "seconds=0", "--key", "again", "--json")
    command("keys", "new")
    file = tmp_path / "shoal" / "keys" / "alice.pem"
    first = Signer.load(file)
    assert "is not known; publish it (`shoal keys publish`)" in command(*nap, code=1)
    assert "is valid, until" in command("keys", "publish", "--days", "30", "--comment", "laptop")
    assert eventually(lambda: accepted(fleet, first), WAIT)
    (job,) = json.loads(command(*nap))
    assert job["signed_by"] == f"alice/{first.id}"
    shown = command("job", job["id"])
    assert f"signed by alice/{first.id}" in shown
    assert f"signed with alice/{first.id}" in shown

    told = command("keys", "rotate")
    second = Signer.load(file)
    assert second.id != first.id
    assert f"alice/{second.id} in {file}" in told.replace("\n", "")
    assert [path.name for path in file.parent.iterdir()] == ["alice.pem"]
    assert eventually(lambda: accepted(fleet, second), WAIT)
    assert accepted(fleet, first)
    # The same request, signed with another key, or not at all, is the same job.
    for more in ((), ("--unsigned",)):
        (same,) = json.loads(command(*nap, *more))
        assert (same["id"], same["signed_by"]) == (job["id"], job["signed_by"])

    command("keys", "revoke", second.id[:6], "--why", "lost it")
    eventually(lambda: accepted(fleet, second) is False, WAIT)
    assert "is revoked (lost it)" in command(*nap, code=1)
    listed = json.loads(command("keys", "list", "--mine", "--json"))["keys"]
    assert {key["id"]: key["standing"] for key in listed} == {
        first.id: "valid",
        second.id: "revoked",
    }
    assert accepted(fleet, first)


def accepted(fleet, signer):
    """Whether all three apis take what is signed with a key; None when they do not agree."""
    with fleet.fleet.directory_of() as directory:
        found = {taken(each, signer) for each in directory.ready("api", WAIT, count=3)}
    return found.pop() if len(found) == 1 else None


def taken(replica, signer):
    """Whether one api takes it."""
    with shoal.testing.FixedDirectory({"api": [replica.target]}) as only:
        gateway = Gateway(only, "alice", signer)
        try:
            return bool(gateway.submit_many([Submission("nap", {"seconds": "0"})]))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise


def test_an_api_that_requires_signatures_refuses_what_is_not_signed(directories, tmp_path):
    directory = directories()
    (tmp_path / "catalogue").mkdir()
    arguments = ["--zookeeper", directory.hosts, "--objects", f"file://{tmp_path}/objects"]
    arguments += ["--catalogue", str(tmp_path / "catalogue"), "--require-signed"]
    with subprocess.Popen([sys.executable, "-m", "shoal_gateway.api", *arguments]) as api:
        try:
            directory.ready("api", WAIT)
            with pytest.raises(grpc.RpcError, match="takes signed jobs only") as caught:
                Gateway(directory, "alice").submit("nap", inputs={}, parameters={})
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            signer = Signer.generate()
            with shoal.Keys(directory) as keys:
                keys.publish("alice", signer.public)

            def passes():
                # What verifies comes as far as the catalogue, which is empty.
                with pytest.raises(grpc.RpcError) as caught:
                    Gateway(directory, "alice", signer).submit("nap", inputs={}, parameters={})
                return caught.value.code() is grpc.StatusCode.NOT_FOUND

            eventually(passes, WAIT)
        finally:
            api.terminate()
        assert api.wait(WAIT) == 0
