"""``shoal zookeeper``: who may write what in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError

from shoal import protection, zookeepertls
from shoal.directory import parse_hosts
from shoal.errors import ShoalError
from shoal.identity import PeerIdentity
from shoal_gateway.cli.context import out, print_json
from shoal_gateway.cli.root import Json, app, where
from shoal_gateway.fleet.names import SERVICES

group = typer.Typer(
    help="Who may write what in ZooKeeper: protect, check.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="zookeeper")


@group.command()
def protect(
    service: Annotated[
        list[str] | None,
        typer.Option(help="A service that announces itself (repeat; default: the gateway's)."),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(help="Whose certificate may write everywhere (repeat; default: operator)."),
    ] = None,
    root: Annotated[
        bool, typer.Option("--root", help="Close the root node, too: this ensemble is ours alone.")
    ] = False,
    json_: Json = False,
) -> None:
    """Let each service write under its own name only, and everybody read.

    It takes an operator's certificate, and may be repeated: who is not named keeps their rights.

    Examples:  shoal --zookeeper tls://zk1:2281/gateway --tls certs/operator zookeeper protect

    … zookeeper protect --service climate --service registry --root
    """
    with _connected() as (client, chroot, domain):
        operators = [PeerIdentity(each) for each in operator or ["operator"]]
        plan = protection.plan(chroot, service or SERVICES, operators, domain)
        changed: list[str] = []

        def told(path: str) -> None:
            changed.append(path)
            if not json_:
                out.print(f"closed {path}", highlight=False)

        with _explained():
            protection.protect(client, plan, told)
            if root and chroot:
                protection.close(client, "/", plan.nodes[chroot], told)
    if json_:
        print_json({"changed": changed})
    else:
        out.print(f"{len(changed)} nodes made or closed", style="dim")


@group.command()
def check(json_: Json = False) -> None:
    """List nodes that anybody who may connect can change; the exit code is 1 if there are any.

    Examples:  shoal --zookeeper tls://zk1:2281/gateway --tls certs/operator zookeeper check
    """
    with _connected() as (client, chroot, _), _explained():
        found = list(protection.open_nodes(client, chroot or "/"))
    if json_:
        print_json({"open": found})
    else:
        for path in found:
            out.print(path, highlight=False)
        told = (
            f"{len(found)} nodes stand open: `shoal zookeeper protect`" if found else "all closed"
        )
        out.print(told, style="red" if found else "dim")
    if found:
        raise typer.Exit(1)


@contextmanager
def _connected() -> Iterator[tuple[KazooClient, str, str]]:
    """A client, the chroot, and the domain of the certificates."""
    address, tls = where().address(), where().tls()
    if tls is None or not address.startswith(zookeepertls.SCHEME):
        raise ValueError(
            f"{address} is not spoken to with certificates, so ZooKeeper can't tell who writes: "
            "give a tls:// address and --tls DIR (docs/security.md)"
        )
    servers, chroot = parse_hosts(address)
    client = zookeepertls.client(servers, tls)
    try:
        yield client, chroot, tls.domain
    finally:
        client.stop()
        client.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except NoAuthError as error:
        raise ShoalError(
            "ZooKeeper refuses: this certificate is no operator's here (--tls DIR)"
        ) from error
    except KazooException as error:
        raise ShoalError(f"ZooKeeper went away: {error!r}") from error
