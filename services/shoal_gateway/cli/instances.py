"""``shoal fleet``: a fleet's instances in EC2, found by their tags."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from shoal import Replica
from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.instances import SERVICES_ROLE, Ec2Fleet, Instance, find, fleet_name
from shoal_gateway.aws.refresh import Refresh, Refreshes, Undo, Wish
from shoal_gateway.aws.restart import ALL_UNITS, Restarts
from shoal_gateway.cli import render
from shoal_gateway.cli.codes import FAILED, PAUSED
from shoal_gateway.cli.context import Where, err, out, print_json, sure
from shoal_gateway.cli.root import Json, app, bar, where
from shoal_gateway.fleet.names import SERVICES

# Seconds for the directory to say what it knows.
KNOWN = 10.0

group = typer.Typer(
    help="Instances of a fleet in EC2: list, restart-instance, terminate-instance, upgrade. They"
    " are those that carry the tag shoal:fleet=NAME. Needs shoal[aws]; region and credentials are"
    " found as boto3 finds them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="fleet")

Name = Annotated[
    str,
    typer.Option("--name", "-n", envvar="SHOAL_FLEET_NAME", help="The fleet: its tag shoal:fleet."),
]
Region = Annotated[
    str | None, typer.Option(help="AWS's region (default: that of environment or profile).")
]
ZooKeeper = Annotated[
    str | None,
    typer.Option(
        "--zk", help="Its directory, to see what runs on each: as `shoal --zookeeper`, which does."
    ),
]
InstanceId = Annotated[str, typer.Argument(help="Such as i-0123456789abcdef0.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


class Interrupted(StrEnum):
    """What Ctrl-C does to a refresh."""

    ASK = "ask"
    ROLLBACK = "rollback"
    CANCEL = "cancel"
    LEAVE = "leave"


@group.command("list")
def list_(
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", envvar="SHOAL_FLEET_NAME", help="Only this fleet."),
    ] = None,
    role: Annotated[str, typer.Option(help="Only this role: services, zookeeper.")] = "",
    region: Region = None,
    zk: ZooKeeper = None,
    json_: Json = False,
) -> None:
    """List the instances of a fleet, or of all: zone, address, state, group; with --zk replicas.

    Examples:  shoal fleet list    shoal fleet list --name blue --zk zk1:2181/gateway

    shoal fleet list --name blue --role services --json
    """
    found = find(
        clients.client("ec2", region=region),
        clients.client("autoscaling", region=region),
        fleet_name(name) if name else "",
    )
    found = tuple(each for each in found if not role or each.role == role)
    meant = where()
    address = zk or meant.zookeeper
    replicas, state = (
        (None, "") if address is None else _replicas(replace(meant, zookeeper=address))
    )
    hosted, elsewhere = on_hosts(found, replicas or ())
    if json_:
        rows = [asdict(each) | _hosted_json(hosted[each.id], replicas) for each in found]
        more = [render.replica_json(service, each) for service, each in elsewhere]
        print_json({"instances": rows, "directory": state or None, "elsewhere": more})
        return
    title = f"ZooKeeper {address}: {state}" if address else None
    out.print(render.instance_table(found, hosted if address else None, title))
    if elsewhere and not role:
        names = ", ".join(f"{each.id} on {each.host or each.address}" for _, each in elsewhere)
        err.print(
            f"announced from hosts that are none of these: {names}", style="yellow", markup=False
        )


@group.command()
def restart_instance(
    instance: InstanceId,
    name: Name,
    unit: Annotated[
        list[str] | None,
        typer.Option(help="Only these units, by name or pattern (default: shoal-*.service)."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for the restart.", min=30.0)] = 300.0,
    region: Region = None,
    json_: Json = False,
) -> None:
    """Restart Shoal's units on one instance through SSM: each drains, stops, and starts again.

    Examples:  shoal fleet restart-instance i-0123456789abcdef0 --name blue

    shoal fleet restart-instance i-0123456789abcdef0 -n blue --unit shoal-registry.service
    """
    found = Ec2Fleet.open(name, region).instance(instance)
    if found.state != "running":
        raise AwsError(f"{found.id} is {found.state}; only what runs can be restarted")
    ssm = clients.client("ssm", region=region)
    with err.status(f"restarting {found.id} ({found.role}, {found.zone})"):
        printed = Restarts(ssm).restart(found, unit or ALL_UNITS, timeout=timeout)
    if json_:
        print_json({"instance": found.id, "printed": printed})
        return
    out.print(f"{found.id} is restarted", highlight=False)
    if printed:
        out.print(printed, highlight=False, style="dim")


@group.command()
def terminate_instance(
    instance: InstanceId,
    name: Name,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="The group gets one smaller and starts no other.")
    ] = False,
    yes: Yes = False,
    region: Region = None,
    json_: Json = False,
) -> None:
    """Terminate an instance of the fleet, and no other; its group drains and replaces it.

    Asks first. An instance without exactly the tag shoal:fleet=NAME is refused.

    Examples:  shoal fleet terminate-instance i-0123456789abcdef0 --name blue

    shoal fleet terminate-instance i-0123456789abcdef0 -n blue --shrink --yes
    """
    fleet = Ec2Fleet.open(name, region)
    found = fleet.instance(instance)
    if found.state in ("shutting-down", "terminated"):
        if json_:
            print_json({"instance": found.id, "state": found.state, "terminated": False})
        else:
            out.print(f"{found.id} is {found.state} already", highlight=False)
        return
    if shrink and not found.group:
        raise AwsError(f"{found.id} is in no autoscaling group that could shrink")
    after = "no other takes its place"
    if found.group:
        after = f"group {found.group} " + ("gets one smaller" if shrink else "starts another")
    sure(
        f"Terminate {found.id} ({found.role or 'no role'}, {found.zone}, {found.address}) of fleet"
        f" {name}? {after.capitalize()}.",
        yes,
    )
    fleet.terminate(found, shrink=shrink)
    if json_:
        print_json({"instance": found.id, "state": "shutting-down", "terminated": True})
        return
    out.print(f"{found.id} is being terminated; {after}", highlight=False)


@group.command()
def upgrade(
    name: Name,
    to: Annotated[
        str | None,
        typer.Option(
            help="Version of the launch template, a number (default: what each group says now,"
            " with nothing to roll back to)."
        ),
    ] = None,
    role: Annotated[str, typer.Option(help="Groups of this role.")] = SERVICES_ROLE,
    min_healthy: Annotated[
        int, typer.Option(help="Per cent of a group that stay in service.", min=0, max=100)
    ] = 90,
    max_healthy: Annotated[
        int | None,
        typer.Option(help="Per cent at most: above 100 new ones come first.", min=100, max=200),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Seconds to watch a new instance (default: the group's).")
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Replace also instances that are as wanted already.")
    ] = False,
    deadline: Annotated[float, typer.Option(help="Seconds for each group.", min=1.0)] = 3600.0,
    undo: Annotated[
        Undo | None,
        typer.Option(
            help="What is done after the deadline (default: rollback with --to, else cancel)."
        ),
    ] = None,
    interrupted: Annotated[
        Interrupted,
        typer.Option(help="What Ctrl-C does; ask leaves it running where nobody can be asked."),
    ] = Interrupted.ASK,
    region: Region = None,
    json_: Json = False,
) -> None:
    """Replace the fleet's instances group by group through instance refreshes, and follow them.

    With --to, AWS rolls back by itself when new instances do not become healthy, and Ctrl-C may.
    Exit code 1: not as wished; 4: left running (the same command follows it again).

    Examples:  shoal fleet upgrade --name blue --to 12

    shoal fleet upgrade -n blue --min-healthy 66 --undo cancel --deadline 1800
    """
    if to is not None and not to.isdecimal():
        raise ValueError(
            f"--to {to}: a version of the launch template is a number; AWS can't roll back to or"
            " from $Latest and $Default"
        )
    if to is None and Undo.ROLLBACK in (undo, interrupted):
        raise ValueError("there is nothing to roll back to without --to; say cancel or leave")
    fleet = Ec2Fleet.open(name, region)
    autoscaling = clients.client("autoscaling", region=region)
    groups = fleet.groups(role)
    if not groups:
        raise AwsError(f"fleet {name!r} has no autoscaling group of role {role!r} here")
    wish = Wish(to or "", min_healthy, max_healthy, warmup, not all_)
    how = undo or (Undo.ROLLBACK if to else Undo.CANCEL)
    done: list[Refresh] = []
    for one in groups:
        refreshes = Refreshes(one, autoscaling)
        done.append(_refreshed(refreshes, one, wish, deadline, how, interrupted))
        if not done[-1].good:
            break  # the other groups stay as they are
    if json_:
        print_json([asdict(each) for each in done])
    else:
        for each in done:
            _tell(each)
    if not done[-1].good:
        raise typer.Exit(FAILED if done[-1].over else PAUSED)


def _refreshed(
    refreshes: Refreshes,
    name: str,
    wish: Wish,
    deadline: float,
    undo: Undo,
    interrupted: Interrupted,
) -> Refresh:
    refresh = refreshes.start(wish)
    with bar() as shown:
        task = shown.add_task(name, total=100)

        def tell(now: Refresh) -> None:
            shown.update(task, completed=now.percent, description=f"{name}: {now.status}")

        try:
            return refreshes.follow(refresh, tell, deadline)
        except TimeoutError as error:
            err.print(f"shoal: {error}", style="red")
            how = undo
        except KeyboardInterrupt:
            shown.stop()
            how = _choice(interrupted, wish)
        off = refreshes.undo(refresh, how)
        # What was called off ends soon or is on its way back; what is left is left.
        return off if how is Undo.LEAVE else _end(refreshes, off, tell, deadline)


def _end(
    refreshes: Refreshes, off: Refresh, tell: Callable[[Refresh], object], deadline: float
) -> Refresh:
    try:
        return refreshes.follow(off, tell, deadline)
    except TimeoutError as error:
        err.print(f"shoal: {error}", style="red")
        return refreshes.look(off.id)


def _choice(interrupted: Interrupted, wish: Wish) -> Undo:
    if interrupted is not Interrupted.ASK:
        return Undo(interrupted.value)
    if not sys.stdin.isatty():
        return Undo.LEAVE
    able = [each.value for each in Undo if each is not Undo.ROLLBACK or wish.template]
    while True:
        answer = str(typer.prompt(f"The refresh goes on. {', '.join(able)}?", default="leave"))
        if answer in able:
            return Undo(answer)


def _tell(refresh: Refresh) -> None:
    reason = f": {refresh.reason}" if refresh.reason else ""
    to = f" to template version {refresh.template}" if refresh.template else ""
    said = f"{refresh.group}: refresh {refresh.id}{to} is {refresh.status} at {refresh.percent} %"
    style = "green" if refresh.good else "red" if refresh.over else "yellow"
    out.print(said + reason, highlight=False, soft_wrap=True, style=style)


def _replicas(meant: Where) -> tuple[list[tuple[str, Replica]], str]:
    """What the directory says, by service, and its state."""
    with meant.directory() as directory:
        watches = {service: directory.watch(service) for service in SERVICES}
        found = []
        for service, watch in watches.items():
            if not watch.wait_known(KNOWN):
                err.print(
                    f"shoal: ZooKeeper at {meant.zookeeper} has not said in {KNOWN:g} s which"
                    f" replicas of {service} there are",
                    style="yellow",
                )
                break
            found += [(service, each) for each in watch.replicas()]
        return found, directory.describe()


def on_hosts(
    instances: Iterable[Instance], replicas: Iterable[tuple[str, Replica]]
) -> tuple[dict[str, list[tuple[str, Replica]]], list[tuple[str, Replica]]]:
    """Replicas by the instance that they run on, and those that run on none of them.

    A replica says its host, which is the instance's id under ``--placement ec2``; else its address
    tells.
    """
    by_name: dict[str, str] = {}
    for instance in instances:
        by_name[instance.id] = instance.id
        if instance.address:
            by_name[instance.address] = instance.id
    hosted: defaultdict[str, list[tuple[str, Replica]]] = defaultdict(list)
    elsewhere = []
    for service, replica in replicas:
        id_ = by_name.get(replica.host) or by_name.get(replica.address)
        if id_ is None:
            elsewhere.append((service, replica))
        else:
            hosted[id_].append((service, replica))
    return hosted, elsewhere


def _hosted_json(
    hosted: list[tuple[str, Replica]], replicas: list[tuple[str, Replica]] | None
) -> dict[str, Any]:
    if replicas is None:
        return {"replicas": None}
    return {"replicas": [render.replica_json(service, each) for service, each in hosted]}
