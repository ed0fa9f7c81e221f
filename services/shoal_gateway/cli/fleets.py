"""Commands about a fleet: start, see, break and end it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.testing.installed import ZooKeeperError
from shoal_gateway.cli import render
from shoal_gateway.cli.context import Where, err, out, print_json
from shoal_gateway.cli.dashboard import MISSING
from shoal_gateway.cli.root import Json, Store, Users, app, progress, where
from shoal_gateway.fleet import Fleet, FleetError, page, processes
from shoal_gateway.fleet.layout import SERVICES
from shoal_gateway.fleet.pginstalled import PostgresError


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
        bool,
        typer.Option("--dashboard/--no-dashboard", help="Serve the live page, too."),
    ] = True,
) -> None:
    """Start a local fleet: ZooKeeper, hosts, and a replica of each service on each host.

    Examples:  shoal up    shoal up --ensemble 3    shoal up --store postgres    shoal up --tls

    shoal up --users required
    """
    with progress() as tell:
        fleet = where().local(tell)
        before = fleet.exists
        try:
            state = fleet.up(
                hosts=hosts,
                ensemble=ensemble,
                store=store.value,
                require_signed=require_signed,
                users=users.value,
                tls=tls,
                certificates=certs,
            )
        except (KeyboardInterrupt, FleetError, PostgresError, ZooKeeperError):
            # Half a fleet is no use to anybody; one that ran before this command is left alone.
            if fleet.exists and not before:
                fleet.down()
            raise
    out.print(f"{len(state.replicas)} replicas on {hosts} hosts; ZooKeeper at {state.zookeeper}")
    if users is Users.REQUIRED:
        out.print(f"Callers need a token; yours is in {fleet.layout.token}, as administrator.")
    if dashboard:
        _show(where().local())
    out.print("See them with `shoal ps`, end them with `shoal down`.", style="dim")


def _show(fleet: Fleet) -> None:
    """Serves the page; a fleet without one is a fleet all the same."""
    if absent := page.missing():
        out.print(f"No dashboard: {MISSING.format(name=absent)}.", style="dim")
        return
    try:
        out.print(f"Dashboard: {fleet.start_dashboard()}", highlight=False)
    except FleetError as error:
        err.print(f"shoal: {error}", style="yellow", markup=False)


@app.command()
def down() -> None:
    """End the local fleet: drain its replicas, then end everything it has started.

    Example:  shoal down
    """
    with progress() as tell:
        where().local(tell).down()


@app.command()
def ps(json_: Json = False) -> None:
    """List the replicas: service, host, address, version, flavor, status, since.

    Examples:  shoal ps    shoal ps --json
    """
    meant = where()
    rows: list[dict[str, Any]] = []
    with meant.directory() as directory:
        for service in SERVICES:
            watch = directory.watch(service)
            watch.wait_known(10.0)
            rows += [render.replica_json(service, each) for each in watch.replicas()]
        state = directory.describe()
    if not meant.zookeeper:
        _note_dead(meant, rows)
    rows.sort(key=lambda row: (SERVICES.index(row["service"]), row["flavor"], row["id"]))
    if json_:
        print_json({"zookeeper": meant.address(), "state": state, "replicas": rows})
    else:
        out.print(render.replica_table(rows, f"ZooKeeper {meant.address()}: {state}"))
        shared = [row["id"] for row in rows if row["jobs_as"] == "manager"]
        if shared:
            out.print(
                f"Jobs of {', '.join(shared)} run as their manager's account, and can read each"
                " other's files; its log says why (docs/users.md).",
                style="dim",
                highlight=False,
            )


def _note_dead(meant: Where, rows: list[dict[str, Any]]) -> None:
    """Replicas of the local fleet whose process is gone are DOWN, listed in ZooKeeper or not.

    A killed replica's node stays until its session times out.
    """
    fleet = meant.local()
    found = {row["id"]: row for row in rows}
    for each in fleet.state.replicas.values():
        if fleet.running(each.id):
            continue
        row = found.get(each.id)
        if row is None:
            keys = ("address", "version", "zone", "contract", "jobs_as")
            row = dict.fromkeys(keys, "") | {
                "port": 0,
                "tls": False,
                "since": 0,
                "flavor": each.flavor,
            }
            row |= {"id": each.id, "service": each.service, "host": each.host}
            rows.append(row)
        row["status"] = "DOWN"


@app.command()
def kill(
    name: Annotated[str, typer.Argument(help="A replica or a host, as `shoal ps` shows.")],
) -> None:
    """Kill a replica with SIGKILL, or lose a host: all on it at once, and its directory.

    Examples:  shoal kill registry-2    shoal kill host-3
    """
    for each in where().local().kill(name):
        out.print(f"killed {each}")


@app.command()
def start(
    name: Annotated[
        str | None, typer.Argument(help="A replica or a host; all when left out.")
    ] = None,
) -> None:
    """Start a replica, a host's replicas, or whatever of the fleet does not run.

    Examples:  shoal start registry-2    shoal start host-3    shoal start
    """
    with progress() as tell:
        fleet = where().local(tell)
        started = fleet.start(name)
    for each in started:
        out.print(f"started {each}")
    shown = fleet.state.dashboard
    if name is None and shown is not None and not processes.alive(shown):
        _show(fleet)


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
