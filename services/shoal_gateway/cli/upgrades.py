"""Commands that make releases and roll services to them."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal_gateway.cli import completing
from shoal_gateway.cli.codes import FAILED, PAUSED
from shoal_gateway.cli.context import err, out, print_json
from shoal_gateway.cli.root import Json, app, bar, where
from shoal_gateway.fleet import Fleet, FleetError
from shoal_gateway.fleet.gate import Patience
from shoal_gateway.fleet.rollout import Outcome, Plan
from shoal_gateway.fleet.upgrade import Result, Upgrade, Wish
from shoal_gateway.fleet.upgradelock import held

# Services whose new replica takes over what its predecessor has on its host.
IN_PLACE_ONLY = {"appmanager"}


class Strategy(StrEnum):
    """How a replica is replaced."""

    SURGE = "surge"
    IN_PLACE = "in-place"


@app.command()
def release(
    version: Annotated[str, typer.Argument(help="What to call it: 1.1")],
    checkout: Annotated[
        Path | None,
        typer.Option("--from", help="A checkout of Shoal (default: the code that runs this)."),
    ] = None,
    json_: Json = False,
) -> None:
    """Copy code into the fleet's directory under a name that `shoal upgrade` can roll out.

    Examples:  shoal release 1.1    shoal release 1.2 --from ../shoal-next
    """
    where().address()  # a fleet is there
    made = where().local().layout.releases.make(version, checkout)
    if json_:
        print_json({"version": made.version, "path": str(made.path)})
        return
    out.print(f"release {made.version} lies in {made.path}", soft_wrap=True)


@app.command()
def upgrade(
    service: Annotated[
        str,
        typer.Argument(
            help="registry, api, scheduler or appmanager.", autocompletion=completing.services
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="A release (`shoal release`), or the first version.",
            autocompletion=completing.releases,
        ),
    ],
    strategy: Annotated[
        Strategy | None,
        typer.Option(
            help="Start the new replica before the old one ends, or after (default: surge; app "
            "managers in-place, for they take over what runs on their host)."
        ),
    ] = None,
    max_unavailable: Annotated[
        int, typer.Option(help="Replicas that may be replaced at once.", min=1)
    ] = 1,
    min_healthy: Annotated[
        float, typer.Option(help="Seconds that a new replica must stay healthy.", min=0.0)
    ] = 3.0,
    deadline: Annotated[
        float, typer.Option(help="Seconds until it must have been so, or has failed.", min=1.0)
    ] = 45.0,
    canary: Annotated[
        float | None,
        typer.Option(
            help="Upgrade this share first (0.34: one of three) and watch it.", min=0.0, max=1.0
        ),
    ] = None,
    watch: Annotated[float, typer.Option(help="Seconds to watch the canary.", min=0.0)] = 10.0,
    json_: Json = False,
) -> None:
    """Roll a service to another version, replica by replica, and back when one fails.

    A new replica must be alive, announced with its version, SERVING, and answer a call, for
    --min-healthy seconds; else all is rolled back and the exit code is 1. One upgrade of a fleet
    at a time. Ctrl-C stops between two replicas (exit code 4): the same command goes on from there.

    Examples:  shoal upgrade registry --to 1.1

    shoal upgrade appmanager --to 1.1 --max-unavailable 2 --min-healthy 10

    shoal upgrade api --to 1.1 --canary 0.34 --watch 60

    shoal upgrade api --to 0.1.0
    """
    fleet = where().local()
    surge = (strategy or (Strategy.IN_PLACE if service in IN_PLACE_ONLY else Strategy.SURGE)) is (
        Strategy.SURGE
    )
    if surge and service in IN_PLACE_ONLY:
        raise FleetError(
            f"{service} can't surge: a new one takes over what the old one runs, so there can't be "
            "two at once; use --strategy in-place"
        )
    wish = Wish(
        service,
        to,
        Plan(surge, max_unavailable, canaries(fleet, service, canary)),
        Patience(min_healthy, deadline),
        watch,
    )
    result = _carry_out(fleet, wish)
    if json_:
        print_json(_document(result))
    else:
        _tell(result, service)
    match result.outcome:
        case Outcome.DONE:
            return
        case Outcome.PAUSED:
            raise typer.Exit(PAUSED)
        case _:
            raise typer.Exit(FAILED)


def canaries(fleet: Fleet, service: str, share: float | None) -> int:
    """How many replicas a share of a service is: rounded, and at least one unless it is 0."""
    if not share:
        return 0
    replicas = [each for each in fleet.state.replicas.values() if each.service == service]
    return max(1, math.floor(share * len(replicas) + 0.5))


def _carry_out(fleet: Fleet, wish: Wish) -> Result:
    upgrade: Upgrade | None = None

    def lost() -> None:
        err.print("the upgrade lock is lost; stopping after this step", style="red")
        if upgrade is not None:
            upgrade.stop()

    what = f"upgrade of {wish.service} to {wish.version}"
    with (
        held(fleet.state.zookeeper, what, lost, fleet.tls()),
        fleet.directory_of() as directory,
        bar() as shown,
    ):
        task = shown.add_task(what, total=None)

        def tell(step: str, done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)
            shown.console.print(step, highlight=False)

        upgrade = Upgrade(fleet, directory, wish, tell=tell)
        with _asked_to_stop(upgrade):
            try:
                result = upgrade.run()
            except KeyboardInterrupt:
                err.print("stopped at once: see `shoal ps`; the same command goes on from there")
                raise
        if result.outcome is Outcome.DONE:
            slots = shown.tasks[task].total or 1
            shown.update(task, completed=slots, total=slots)
        return result


@contextmanager
def _asked_to_stop(upgrade: Upgrade) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop after the step; a second one stops at once."""
    before: dict[int, Any] = {}

    def heard(number: int, _frame: Any) -> None:
        err.print("stopping after this step; once more to stop at once", style="yellow")
        upgrade.stop()
        signal.signal(number, signal.default_int_handler)

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _document(result: Result) -> dict[str, Any]:
    return {
        "outcome": result.outcome.value,
        "version": result.version,
        "upgraded": list(result.upgraded),
        "kept": list(result.kept),
        "failure": result.failure,
    }


def _tell(result: Result, service: str) -> None:
    if result.failure:
        err.print(f"shoal: {result.failure}", style="red", soft_wrap=True)
    upgraded, kept = ", ".join(result.upgraded) or "none", ", ".join(result.kept) or "none"
    match result.outcome:
        case Outcome.DONE:
            said = f"{service} runs {result.version}: {upgraded}"
        case Outcome.ROLLED_BACK:
            said = f"{service} is rolled back; as before: {kept}"
        case Outcome.PAUSED:
            said = (
                f"stopped between two replicas. {result.version}: {upgraded}; as before: {kept}.\n"
                f"Go on with `shoal upgrade {service} --to {result.version}`, or go back by "
                "upgrading to the version before (`shoal ps`)."
            )
        case Outcome.UNHEALTHY:
            said = (
                f"{service} does not run {result.version} as it should: {upgraded}; as before: "
                f"{kept}.\nMend what is said above, or start it again with `shoal start`, and give "
                "the command again; or upgrade to another version."
            )
        case _:
            said = f"the rollback of {service} is stuck: {kept} are as before, {upgraded} are not"
    out.print(said, highlight=False, soft_wrap=True)
