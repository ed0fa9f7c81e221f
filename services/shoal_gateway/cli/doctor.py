"""``shoal doctor``: what stands in the way, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from shoal_gateway.cli.codes import FAILED
from shoal_gateway.cli.context import Where, out, print_json
from shoal_gateway.cli.root import Json, app, where

if TYPE_CHECKING:
    from shoal_gateway.doctor.findings import Check, Finding
    from shoal_gateway.fleet import FleetState

# Hosts that `shoal up` has unless it is told otherwise.
HOSTS = 3
STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@app.command()
def doctor(
    port: Annotated[
        list[str] | None,
        typer.Option(help="A port that must be free, PORT or ADDRESS:PORT; again for more."),
    ] = None,
    objects: Annotated[
        str | None,
        typer.Option(help="An object store; one small object is stored there, and read again."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only what is not as it should be.")
    ] = False,
    json_: Json = False,
) -> None:
    """Look at all that a fleet stands on, and say how to mend what is wrong.

    Java and ZooKeeper, versions, ports, clocks, permissions, certificates, disks, and the replicas
    of the fleet that is there. Exit code 1 when there is a problem; warnings are none.

    Examples:  shoal doctor    shoal doctor --quiet    shoal doctor --json

    shoal --zookeeper zk1:2181,zk2:2181/gateway doctor --port 7400 --objects s3://bucket/prefix

    shoal --zookeeper tls://zk1:2281/gateway --tls certs/operator doctor
    """
    from shoal_gateway.doctor.findings import Verdict, all_of

    for each in port or ():
        number = each.rpartition(":")[2]
        if not (number.isdecimal() and 0 < int(number) < 65536):
            raise typer.BadParameter(f"{each!r} is no port", param_hint="--port")
    findings: list[Finding] = []
    for finding in all_of(_checks(where(), port or [], objects)):
        findings.append(finding)
        if not json_ and not (quiet and finding.verdict is Verdict.OK):
            # At once: some of it takes seconds.
            _tell(finding)
    problems = sum(each.verdict is Verdict.PROBLEM for each in findings)
    warnings = sum(each.verdict is Verdict.WARNING for each in findings)
    if json_:
        rows = [
            {
                "what": each.what,
                "verdict": str(each.verdict),
                "found": each.found,
                "mend": each.mend or None,
            }
            for each in findings
        ]
        print_json({"problems": problems, "warnings": warnings, "findings": rows})
    else:
        told = f"{len(findings)} looked at; problems: {problems}, warnings: {warnings}"
        out.print(told, style="red" if problems else "dim", highlight=False)
    if problems:
        raise typer.Exit(FAILED)


def _tell(finding: Finding) -> None:
    word = Text(f"{finding.verdict:<8}", style=STYLES[str(finding.verdict)])
    out.print(word, Text(f"{finding.what}: {finding.found}"), soft_wrap=True)
    if finding.mend:
        out.print(Text(f"         → {finding.mend}", style="dim"), soft_wrap=True)


def _checks(meant: Where, ports: list[str], objects: str | None) -> Iterator[tuple[str, Check]]:
    """What there is to look at, from the ground up."""
    from shoal_gateway.doctor import ensemble, machine, places, versions

    state = None if meant.zookeeper else _state(meant)
    here = meant.zookeeper is None
    yield "Python", versions.python
    yield "packages", versions.packages
    yield "Java", lambda: machine.java(needed=here)
    yield "ZooKeeper's jar", lambda: machine.jar(needed=here)
    if here:
        yield "hosts' addresses", lambda: machine.addresses(_hosts(state))
    yield "ports", lambda: machine.ports(ports)
    yield "permissions", lambda: _permissions(meant)
    yield "disks", lambda: machine.disks(_places(meant))
    certified = _certificates(meant, state)
    yield "certificates", lambda: places.certificates(certified)
    if objects is not None:
        yield "objects", lambda: places.objects(objects)
    if here and state is None:
        yield "open files", lambda: machine.open_files(0)
        yield "fleet", lambda: _no_fleet(meant)
        return
    tls = meant.tls() if meant.certificate or certified else None
    yield "ZooKeeper", lambda: ensemble.servers(meant.address(), tls)
    yield "ZooKeeper session", lambda: ensemble.session(meant.address(), tls)
    if state is not None:
        yield "processes", lambda: _processes(meant)
    yield "services", lambda: _services(meant)


def _state(meant: Where) -> FleetState | None:
    from shoal_gateway.fleet import NoFleetError

    try:
        return meant.local().state
    except NoFleetError:
        return None


def _hosts(state: FleetState | None) -> list[str]:
    from shoal_gateway.fleet.layout import hosts

    return list(state.hosts.values() if state is not None else hosts(HOSTS).values())


def _places(meant: Where) -> list[Path]:
    from shoal.diskcache import default_directory

    cache = default_directory()
    return [meant.fleet, *([cache] if cache is not None else [])]


def _permissions(meant: Where) -> Iterator[Finding]:
    from shoal.diskcache import default_directory
    from shoal_gateway.doctor.findings import warning
    from shoal_gateway.doctor.machine import writable

    yield writable("fleet's directory", meant.fleet)
    for name in ("cache", "objects"):
        if (meant.fleet / name).exists():
            yield writable(f"fleet's {name}", meant.fleet / name)
    cache = default_directory()
    if cache is None:
        mend = "set SHOAL_CACHE_DIR: without it nobody can start while ZooKeeper is down"
        yield warning("cache", "this user has no home", mend)
    else:
        yield writable("cache", cache)


def _certificates(meant: Where, state: FleetState | None) -> list[Path]:
    """Of the caller, and of a local fleet's services."""
    own = [meant.certificate] if meant.certificate is not None else []
    if state is None or not state.certificates:
        return own
    found = sorted(each.parent for each in Path(state.certificates).glob("*/tls.crt"))
    return own + [each for each in found if each not in own]


def _no_fleet(meant: Where) -> Iterator[Finding]:
    from shoal_gateway.doctor.findings import ok

    yield ok("fleet", f"none in {meant.fleet} yet: start one with `shoal up`")


def _processes(meant: Where) -> Iterator[Finding]:
    """Of the local fleet: which of them should run, and don't."""
    from shoal_gateway.doctor.findings import ok, warning

    fleet = meant.local()
    gone = [name for name in fleet.state.replicas if not fleet.running(name)]
    for name in gone:
        yield warning(f"process of {name}", "does not run", f"shoal start {name}")
    if not gone:
        yield ok("processes", f"all {len(fleet.state.replicas)} replicas run")


def _services(meant: Where) -> Iterator[Finding]:
    from shoal_gateway.doctor import ensemble, machine, replicas
    from shoal_gateway.doctor.findings import problem
    from shoal_gateway.lookout import Lookout

    with meant.directory() as directory, Lookout(directory, token=meant.token()) as lookout:
        if not lookout.wait_known(ensemble.PATIENCE):
            yield problem("services", "not known, for ZooKeeper can't be read", "see above")
            return
        look = lookout.look()
    yield from machine.open_files(len(look.replicas))
    yield from replicas.services(look)
