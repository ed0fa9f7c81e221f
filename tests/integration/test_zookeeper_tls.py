"""A ZooKeeper that speaks TLS and knows its callers: who gets in, and who may write what."""

from __future__ import annotations

import json

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.security import ACL, Permissions

import shoal
from shoal import protection, zookeepertls
from shoal.identity import PeerIdentity
from shoal.testing.zookeeper import ZooKeeperEnsemble, ZooKeeperServer
from shoal_balancer import Replica
from shoal_gateway.cli.app import run
from tests.support.authorities import Certificates
from tests.support.waiting import eventually

SERVICES = ("registry", "api")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certs") / "own")


@pytest.fixture(scope="module")
def secured(certificates, tmp_path_factory):
    place = tmp_path_factory.mktemp("secured")
    with ZooKeeperServer(place, tls=certificates.of("zookeeper")) as server:
        yield server


@pytest.fixture(scope="module")
def tree(secured, certificates):
    """A protected one; its address."""
    operator = zookeepertls.client(address(secured), certificates.of("operator"))
    protection.protect(operator, protection.plan("/gateway", SERVICES))
    operator.stop()
    operator.close()
    return f"{secured.hosts}/gateway"


@pytest.fixture
def client(secured, certificates):
    """A client of ZooKeeper's with a service's certificate, or a user's."""
    made = []

    def make(name, user=False):
        tls = certificates.user(name) if user else certificates.of(name)
        made.append(zookeepertls.client(address(secured), tls))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        each.close()


@pytest.fixture
def directory(certificates, tmp_path):
    made = []

    def make(hosts, name):
        made.append(shoal.Directory(hosts, tls=certificates.of(name), cache_dir=tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        each.close()


def address(server):
    return server.hosts.removeprefix(zookeepertls.SCHEME)


def refused(servers, tls, **changes):
    """Whether a client with this certificate, or none, gets no session."""
    handler = SequentialThreadingHandler()
    zookeepertls.demand_name(handler)
    options = {**zookeepertls.settings(tls), **changes} if tls is not None else {}
    client = KazooClient(servers, handler=handler, **options)
    try:
        client.start(2)
    except KazooTimeoutError:
        return True
    else:
        return False
    finally:
        client.stop()
        client.close()


def test_strangers_get_no_session(secured, certificates, tmp_path):
    others = Certificates(tmp_path / "others").of("registry")
    ours = certificates.of("registry")
    servers = address(secured)
    assert refused(servers, None)
    assert refused(servers, ours, certfile=None)
    # It trusts our ZooKeeper, but is not trusted by it.
    assert refused(servers, others, ca=str(ours.authorities))
    assert refused(servers, certificates.expired("registry"))
    assert not refused(servers, certificates.of("registry"))


def test_another_service_that_answers_in_zookeepers_place_is_refused(certificates, tmp_path):
    with ZooKeeperServer(tmp_path / "zk", tls=certificates.of("zookeeper")) as real:
        assert not refused(address(real), certificates.of("registry"))
    # With a certificate of the same authority. Its own words are asked for in vain, too.
    fake = ZooKeeperServer(tmp_path / "fake", tls=certificates.of("api"))
    fake.spawn()
    try:
        eventually(lambda: "binding to port" in fake.log.read_text(), what="its port")
        assert refused(address(fake), certificates.of("registry"))
        assert fake.ask("ruok") == ""
    finally:
        fake.close()


def test_a_service_writes_under_its_own_name_only(tree, directory, client):
    registry, api = directory(tree, "registry"), directory(tree, "api")
    announced = registry.announce("registry", Replica("registry-1", "127.0.0.1", 1))
    # Everybody finds it.
    assert api.ready("registry", 30)[0].id == "registry-1"
    with pytest.raises(shoal.RegistrationError, match="protect --service registry"):
        api.announce("registry", Replica("registry-2", "127.0.0.1", 2), timeout=2)
    stranger = client("api")
    node = "/gateway/services/registry/registry-1"
    for attack in (
        lambda: stranger.set(node, b"{}"),
        lambda: stranger.delete(node),
        lambda: stranger.set_acls(node, [zookeepertls.READABLE]),
        lambda: stranger.create("/gateway/services/registry/evil", b"", ephemeral=True),
        lambda: stranger.create("/gateway/services/evil", b""),
        lambda: stranger.delete("/gateway/services/registry", recursive=False),
    ):
        with pytest.raises(NoAuthError):
            attack()
    # Replicas of one service share its name.
    other = directory(tree, "registry")
    other.announce("registry", Replica("registry-2", "127.0.0.1", 2)).withdraw()
    announced.withdraw()


def test_users_read_and_write_nothing(tree, client):
    alice = client("alice", user=True)
    assert sorted(alice.get_children("/gateway/services")) == sorted(SERVICES)
    for path in ("services", "services/api", *protection.SHARED, *protection.OPERATED):
        with pytest.raises(NoAuthError):
            alice.create(f"/gateway/{path}/evil", b"")


def test_services_coordinate_and_cannot_disturb_each_other(tree, directory, client):
    registry = directory(tree, "registry")
    lock = shoal.Lock(registry, "x")
    lock.acquire(30)
    (node,) = client("api").get_children("/gateway/locks/x")
    with pytest.raises(NoAuthError):
        client("api").delete(f"/gateway/locks/x/{node}")
    with pytest.raises(shoal.CoordinationError, match="may this process create"):
        shoal.Lock(directory(tree, "api"), "x").acquire(30)
    # Others of the same name take their turn.
    with pytest.raises(shoal.LockTakenError):
        shoal.Lock(directory(tree, "registry"), "x").acquire(30, wait=False)
    lock.release()


def test_who_is_protected_later_takes_nothing_from_those_before(
    secured, certificates, directory, client
):
    place = str(certificates.of("operator").certificate.parent)
    command = ["--zookeeper", f"{secured.hosts}/later", "--tls", place, "zookeeper", "protect"]
    for name in SERVICES:
        assert run([*command, "--service", name]) == 0
    for name in SERVICES:
        lock = shoal.Lock(directory(f"{secured.hosts}/later", name), f"of-{name}")
        lock.acquire(30)
        lock.release()
    # Rights of those who are named are as planned, whatever they were.
    operator = client("operator")
    mine = zookeepertls.principal(PeerIdentity("api"))
    operator.set_acls("/later/locks", [ACL(Permissions.ALL, mine), zookeepertls.READABLE])
    assert run([*command, "--service", "api"]) == 0
    (left,) = [each for each in operator.get_acls("/later/locks")[0] if each.id == mine]
    assert left.perms == Permissions.READ | Permissions.CREATE


def test_a_lock_is_held_where_only_the_directorys_own_root_can_be_read(
    tree, certificates, client, tmp_path, caplog
):
    operator = client("operator")
    before, _ = operator.get_acls("/")
    own, _ = operator.get_acls("/gateway")
    operators = [each for each in own if each.id.scheme != "world"]
    operator.set_acls("/", operators)
    try:
        tls = certificates.of("registry")
        with shoal.Directory(tree, tls=tls, session_timeout=1.0, cache_dir=tmp_path) as directory:
            lock = shoal.Lock(directory, "alone")
            lock.acquire(30)
            assert not lock.lost.wait(1.2)
            # Closed, too, it is lost and said why.
            operator.set_acls("/gateway", operators)
            assert lock.lost.wait(30)
            assert "does not let this process read /gateway" in caplog.text
    finally:
        operator.set_acls("/gateway", own)
        operator.set_acls("/", before)


def test_operators_write_documents_that_services_read(tree, directory, client):
    operator = client("operator")
    operator.create("/gateway/config/api", b"{}")
    assert client("api").get("/gateway/config/api")[0] == b"{}"
    with pytest.raises(NoAuthError):
        client("api").set("/gateway/config/api", b"[]")
    operator.delete("/gateway/config/api")


def test_a_tree_that_stood_open_is_closed_and_check_says_so(secured, certificates, client, capsys):
    operator = client("operator")
    for path in ("/open/services/registry/registry-1", "/open/config/api/history", "/open/locks/x"):
        # As before certificates: no ACL but ZooKeeper's own default.
        operator.default_acl = None
        operator.create(path, b"kept", makepath=True)
    place = str(certificates.authority.directory / "operator")
    command = ["--zookeeper", f"{secured.hosts}/open", "--tls", place, "zookeeper"]
    assert run([*command, "check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["open"]
    assert "/open/services/registry/registry-1" in found
    assert "/open" in found
    assert run([*command, "protect", "--service", "registry"]) == 0
    assert "closed /open/config/api/history" in capsys.readouterr().out
    assert run([*command, "check"]) == 0
    assert client("registry").get("/open/services/registry/registry-1")[0] == b"kept"
    client("registry").delete("/open/services/registry/registry-1")
    with pytest.raises(NoAuthError):
        client("registry").set("/open/config/api/history", b"")
    # Repeated, it changes nothing.
    assert run([*command, "protect", "--service", "registry"]) == 0
    assert "0 nodes made or closed" in capsys.readouterr().out


def test_who_is_no_operator_is_told(tree, certificates, capsys):
    certificates.of("api")
    place = str(certificates.authority.directory / "api")
    assert run(["--zookeeper", tree, "--tls", place, "zookeeper", "protect", "--service", "x"]) == 1
    assert "this certificate is no operator's here" in capsys.readouterr().err
    plain = tree.removeprefix(zookeepertls.SCHEME)
    assert run(["--zookeeper", plain, "--tls", place, "zookeeper", "check"]) == 1
    assert "give a tls:// address" in capsys.readouterr().err


def test_a_tls_address_needs_a_certificate():
    with pytest.raises(ValueError, match=r"give tls=shoal\.Tls\.of"):
        shoal.Directory("tls://zk1:2281/gateway")


def test_a_renewed_certificate_is_used_at_the_next_connect(certificates, tmp_path):
    with ZooKeeperEnsemble(3, tmp_path / "zk", tls=certificates.of("zookeeper")) as ensemble:
        tls = certificates.of("registry")
        with shoal.Directory(ensemble.hosts, tls=tls, cache_dir=tmp_path / "cache") as directory:
            directory.announce("registry", Replica("registry-1", "127.0.0.1", 1))
            before = tls.certificate.read_bytes()
            certificates.of("registry")
            assert tls.certificate.read_bytes() != before
            # The leader goes: whoever was connected to it connects elsewhere.
            ensemble.leader().kill()
            lock = shoal.Lock(directory, "x")
            lock.acquire(60)
            assert directory.ready("registry", 30)
            lock.release()


@pytest.mark.parametrize("name", ["", "a/b", "ünsafe"])
def test_names_that_no_certificate_can_have_are_refused(name):
    with pytest.raises(ValueError, match="can't stand in a certificate"):
        protection.plan("/gateway", [name])


def test_the_plan_leaves_nothing_open():
    plan = protection.plan("", ["registry"], [PeerIdentity("ops", user=True)])
    assert "/" in plan.nodes
    for acls in (*plan.nodes.values(), *plan.below.values()):
        assert zookeepertls.READABLE in acls
        assert all(each.perms == 1 for each in acls if each.id.scheme == "world")
        assert acls[0].id.id == "CN=ops.users.shoal.internal"
