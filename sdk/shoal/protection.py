"""Who may write what in a ZooKeeper that knows its callers: a plan, and its way into the tree.

Whoever may connect reads everything. A service writes under its own name, and where all services
coordinate it may begin something of its own. Operators write everywhere; documents and keys are
theirs alone. What a process makes is its own by `shoal.zookeepertls.OWN`; here are the parents,
which nobody owns by having been first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError
from kazoo.security import ACL, Id, Permissions

from shoal.identity import DOMAIN, PeerIdentity
from shoal.zookeepertls import READABLE, principal

# Below these every service may begin something that is then its own.
SHARED = ("protos", "locks", "leaders", "meetings", "barriers", "groups")
# What operators write and services read.
OPERATED = ("config", "keys")

_MEMBERS = Permissions.READ | Permissions.CREATE | Permissions.DELETE
_BEGIN = Permissions.READ | Permissions.CREATE

Acls = tuple[ACL, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the ACLs of a tree should be.

    Attributes:
        nodes: Of the parents, which are made where they are missing.
        below: Of whatever else is there already, by the parent it is under.
    """

    nodes: Mapping[str, Acls]
    below: Mapping[str, Acls]


def plan(
    chroot: str,
    services: Iterable[str],
    operators: Iterable[PeerIdentity] = (PeerIdentity("operator"),),
    domain: str = DOMAIN,
) -> Plan:
    """Who may write what below a chroot.

    Args:
        chroot: ``/gateway``, or empty for the whole tree.
        services: Those that announce themselves here.
        operators: Who may change everything.
        domain: What the names of certificates end with.

    Raises:
        ValueError: a name can't stand in a certificate.
    """
    operating = tuple(ACL(Permissions.ALL, principal(each, domain)) for each in operators)
    served = {name: principal(PeerIdentity(name), domain) for name in services}

    def allowed(permissions: int, ids: Iterable[Id]) -> Acls:
        return (*operating, *(ACL(permissions, each) for each in ids), READABLE)

    nodes = {chroot or "/": allowed(0, ()), f"{chroot}/services": allowed(0, ())}
    below = {}
    for name, its in served.items():
        nodes[f"{chroot}/services/{name}"] = allowed(_MEMBERS, [its])
        below[f"{chroot}/services/{name}"] = allowed(Permissions.ALL, [its])
    for name in SHARED:
        nodes[f"{chroot}/{name}"] = allowed(_BEGIN, served.values())
        below[f"{chroot}/{name}"] = allowed(_MEMBERS, served.values())
    for name in OPERATED:
        nodes[f"{chroot}/{name}"] = below[f"{chroot}/{name}"] = allowed(0, ())
    return Plan(nodes, below)


def protect(
    client: KazooClient, wanted: Plan, told: Callable[[str], None] = lambda _path: None
) -> None:
    """Makes the parents that are missing, and closes whatever stands open to anybody.

    What belongs to somebody already stays theirs, and whoever the plan does not name keeps their
    rights. Idempotent; may be interrupted and repeated.

    Args:
        client: Connected, as an operator.
        wanted: The plan.
        told: Called with each node that was made or changed.

    Raises:
        KazooException: ZooKeeper refused something, or went away.
    """
    for path, acls in wanted.nodes.items():
        try:
            # The ACL is of the last; those before it, if any, are nobody's business here.
            client.create(path, b"", acl=list(acls), makepath=True)
            told(path)
        except NodeExistsError:
            close(client, path, acls, told)
    for root, acls in wanted.below.items():
        for path in open_nodes(client, root):
            try:
                client.set_acls(path, list(acls))
            except NoNodeError:
                continue  # gone meanwhile
            told(path)


def close(
    client: KazooClient, path: str, acls: Acls, told: Callable[[str], None] = lambda _path: None
) -> None:
    """Closes a node to all but these, and those who are named there already.

    Args:
        client: Connected, as an operator.
        path: The node.
        acls: What those who are named here may.
        told: Called with the path if anything was changed.

    Raises:
        KazooException: ZooKeeper refused something, or went away.
    """
    found, _ = client.get_acls(path)
    named = {each.id for each in acls}
    # Parents are shared: who adds a service must not shut out the others.
    kept = [each for each in found if each.id.scheme != "world" and each.id not in named]
    if set(found) != {*acls, *kept}:
        client.set_acls(path, [*acls, *kept])
        told(path)


def open_nodes(client: KazooClient, root: str) -> Iterator[str]:
    """Nodes, from ``root`` on, that anybody who may connect can change.

    Raises:
        KazooException: ZooKeeper refused something, or went away.
    """
    if root == "/zookeeper":
        return  # its own
    try:
        acls, _ = client.get_acls(root)
        children = client.get_children(root)
    except NoNodeError:
        return
    if any(each.id.scheme == "world" and each.perms & ~Permissions.READ for each in acls):
        yield root
    for child in sorted(children):
        yield from open_nodes(client, f"{root.rstrip('/')}/{child}")
