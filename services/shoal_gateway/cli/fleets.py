"""Commands about a fleet: start, see, break and end it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal_gateway.cli import completing
from shoal_gateway.cli.context import err, out, print_json
from shoal_gateway.cli.root import Json, Store, Users, app, progress, where

if TYPE_CHECKING:
    from shoal_gateway.fleet import Fleet


@app.command()
def up(
    ensemble: Annotated[int, typer.Option(help="ZooKeeper servers: 1, 3 or 5.", min=1)] = 1,
    hosts: Annotated[int, typer.Option(help="Hosts, as loopback addresses.", min=1, max=20)] = 3,
    store: Annotated[Store, typer.Option(help="What the registry keeps jobs in.")] = Store.SQLITE,
    require_signed: Annotated[
        bool, typer.Option("--require-signed", help="Refuse jobs that nobody has signed.")
    ] = False,
    users: Annotated[
        Users, typer.Option(help="Whether callers need a token, and see their own jobs only.")
    ] = Users.OPEN,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls", help="Certificates on both ends, of an authority of the fleet's own."
        ),
    ] = False,
    certs: Annotated[
        Path | None, typer.Option(help="The same with those in a directory of `shoal certs`.")
    ] = None,
    dashboard: Annotated[
        bool | None,
        typer.Option(
            "--dashboard/--no-dashboard",
            help="Serve the live page, too (default: unless callers need a token or certificate, "
            "for it asks nobody for one).",
            show_default=False,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Start a local fleet: ZooKeeper, hosts, and a replica of each service on each host.

    Examples:  shoal up    shoal up --ensemble 3    shoal up --store postgres    shoal up --tls

    shoal up --users required
    """
    with progress() as tell:
        fleet = where().local(tell)
        state = fleet.up(
            hosts=hosts,
            ensemble=ensemble,
            store=store.value,
            require_signed=require_signed,
            users=users.value,
            tls=tls,
            certificates=certs,
        )
    token = fleet.layout.token if users is Users.REQUIRED else None
    # To whoever is on this machine, jobs too, it would show what an administrator may see.
    closed = token is not None or bool(state.certificates)
    url = _show(fleet) if dashboard or (dashboard is None and not closed) else None
    if json_:
        print_json(
            {
                "fleet": str(fleet.directory),
                "zookeeper": state.zookeeper,
                "hosts": state.hosts,
                "replicas": list(state.replicas),
                "token_file": str(token) if token is not None else None,
                "dashboard": url,
            }
        )
        return
    out.print(f"{len(state.replicas)} replicas on {hosts} hosts; ZooKeeper at {state.zookeeper}")
    if token is not None:
        out.print(f"Callers need a token; yours is in {token}, as administrator.")
    if url is not None:
        out.print(f"Dashboard: {url}", highlight=False)
    elif dashboard is None and closed:
        out.print("No dashboard: it asks nobody who they are; `shoal dashboard` serves it.")
    out.print("See them with `shoal ps`, end them with `shoal down`.", style="dim")


def _show(fleet: Fleet) -> str | None:
    """Serves the page; its URL. A fleet without one is a fleet all the same."""
    from shoal_gateway.fleet import FleetError, page

    if absent := page.missing():
        err.print(f"No dashboard: {page.MISSING.format(name=absent)}.", style="dim")
        return None
    try:
        return fleet.start_dashboard()
    except FleetError as error:
        err.print(f"shoal: {error}", style="yellow")
        return None


@app.command()
def down() -> None:
    """End the local fleet: drain its replicas, then end everything it has started.

    Example:  shoal down
    """
    with progress() as tell:
        where().local(tell).down()


@app.command()
def kill(
    name: Annotated[
        str,
        typer.Argument(
            help="A replica or a host, as `shoal ps` shows.", autocompletion=completing.replicas
        ),
    ],
    json_: Json = False,
) -> None:
    """Kill a replica with SIGKILL, or lose a host: all on it at once, and its directory.

    Examples:  shoal kill registry-2    shoal kill host-3
    """
    killed = where().local().kill(name)
    if json_:
        print_json({"killed": killed})
        return
    for each in killed:
        out.print(f"killed {each}")


@app.command()
def start(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A replica or a host; all when left out.", autocompletion=completing.replicas
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Start a replica, a host's replicas, or whatever of the fleet does not run.

    Examples:  shoal start registry-2    shoal start host-3    shoal start
    """
    from shoal_gateway.fleet import processes

    with progress() as tell:
        fleet = where().local(tell)
        started = fleet.start(name)
    shown = fleet.state.dashboard
    url = None
    if name is None and shown is not None and not processes.alive(shown):
        url = _show(fleet)
    if json_:
        print_json({"started": started})
        return
    for each in started:
        out.print(f"started {each}")
    if url is not None:
        out.print(f"Dashboard: {url}", highlight=False)


@app.command()
def demo(
    count: Annotated[int, typer.Option("--jobs", help="How many jobs.", min=10)] = 100,
    seed: Annotated[int, typer.Option(help="Of the faults and the jobs.", min=0)] = 1,
    directory: Annotated[
        Path, typer.Option("--out", help="Where report, picture and logs go.")
    ] = Path("build/demo"),
    tls: Annotated[bool, typer.Option("--tls", help="With certificates on both ends.")] = False,
) -> None:
    """Run jobs through a fresh fleet while replicas and a host are killed, and check everything.

    Examples:  shoal demo --jobs 100 --seed 1    shoal demo --tls
    """
    from shoal_gateway.demo.run import demonstrate

    raise typer.Exit(demonstrate(count, seed, directory, tls=tls))
