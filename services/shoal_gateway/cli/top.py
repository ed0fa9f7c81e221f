"""``shoal top``: replicas and what they do, as it changes."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal_gateway.cli import completing, render
from shoal_gateway.cli.codes import UnreachableError, unknown
from shoal_gateway.cli.context import out
from shoal_gateway.cli.keyboard import Keyboard
from shoal_gateway.cli.root import Json, app, where
from shoal_gateway.cli.toprows import (
    BY_NAME,
    COLUMNS,
    Jobs,
    Order,
    Row,
    document,
    jobs_of,
    rows_of,
)
from shoal_gateway.lookout import PATIENCE, Look, Lookout

# Of the jobs' states, those that something still happens in, in that order.
OPEN = ("QUEUED", "LEASED", "RUNNING")


@app.command()
def top(
    interval: Annotated[
        float, typer.Option("-n", "--interval", help="Seconds between looks.", min=0.1)
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Two looks, for the rates, and no more.")
    ] = False,
    sort: Annotated[
        str,
        typer.Option(
            help=f"Column to begin with: {', '.join(BY_NAME)}.",
            autocompletion=completing.columns,
        ),
    ] = "service",
    service: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--service",
            help="Only this; again for more (default: the gateway's).",
            autocompletion=completing.services,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Show the replicas and what each does, as it changes: load, calls and jobs a second.

    Each replica is asked itself, once in an interval. Keys sort the table, the same key again the
    other way round; q or Ctrl-C ends it. --json prints one document a line for each look.

    Examples:  shoal top    shoal top -n 0.5 --sort utilisation    shoal top --service appmanager

    shoal top --once --json | jq '.replicas[] | select(.state != "UP")'
    """
    if sort not in BY_NAME:
        raise typer.BadParameter(f"there is no column {sort!r}", param_hint="--sort")
    meant = where()
    order = Order(BY_NAME[sort])
    with (
        meant.directory() as directory,
        Lookout(directory, service or (), token=meant.token()) as lookout,
    ):
        if not lookout.wait_known():
            raise UnreachableError(unknown(meant.address(), directory.describe()))
        screen = _Screen(lookout, order, f"ZooKeeper {meant.address()}")
        if json_:
            screen.print_json(interval, once=once)
        elif once or not out.is_terminal:
            screen.print_tables(interval, once=once)
        else:
            screen.live(interval)


class _Screen:
    """Looks, and shows what was seen.

    Args:
        lookout: Looks.
        order: To begin with.
        title: What stands above.
    """

    def __init__(self, lookout: Lookout, order: Order, title: str) -> None:
        self._lookout = lookout
        self._order = order
        self._title = title
        self._before: Look | None = None
        self._now: Look | None = None

    def print_json(self, interval: float, *, once: bool) -> None:
        """A document a line."""
        self._first(interval)
        while True:
            rows, jobs, look = self._seen()
            sys.stdout.write(json.dumps(document(time.time(), look, rows, jobs)) + "\n")
            sys.stdout.flush()
            if once:
                return
            self._next(interval)

    def print_tables(self, interval: float, *, once: bool) -> None:
        """Tables one below the other, for what is no terminal."""
        self._first(interval)
        while True:
            out.print(self._shown(keys=False))
            if once:
                return
            self._next(interval)

    def live(self, interval: float) -> None:
        """On a screen of its own, until q or Ctrl-C."""
        self._now = self._lookout.look()
        with Keyboard() as keyboard, Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                live.update(self._shown(keys=True), refresh=True)
                due = time.monotonic() + interval
                while (left := due - time.monotonic()) > 0.0:
                    pressed = keyboard.wait(left)
                    if "q" in pressed:
                        return
                    for key in pressed:
                        self._order = self._order.pressed(key)
                    if pressed:
                        live.update(self._shown(keys=True), refresh=True)
                self._look(interval)

    def _first(self, interval: float) -> None:
        self._now = self._lookout.look()
        self._next(interval)

    def _next(self, interval: float) -> None:
        time.sleep(interval)
        self._look(interval)

    def _look(self, interval: float) -> None:
        # A replica that does not answer must not hold up the others for many intervals.
        self._before, self._now = self._now, self._lookout.look(max(min(interval, PATIENCE), 0.5))

    def _seen(self) -> tuple[list[Row], Jobs | None, Look]:
        now = self._now
        if now is None:
            raise RuntimeError("nothing was looked at yet")
        rows = self._order.sorted(rows_of(now, self._before))
        return rows, jobs_of(now, self._before), now

    def _shown(self, *, keys: bool) -> Group:
        rows, jobs, look = self._seen()
        head = Text(f"{self._title}: {look.directory}", style="dim")
        parts: list[RenderableType] = [head, _told(jobs), _table(rows, self._order, keys=keys)]
        parts += [Text(f"{row.replica}: {row.fault}", style="red") for row in rows if row.fault]
        if keys:
            parts.append(Text("sort by the underlined letter   q ends", style="dim"))
        return Group(*parts)


def _told(jobs: Jobs | None) -> Text:
    if jobs is None:
        return Text("jobs: no registry answers", style="red")
    words = [f"{jobs.counts.get(state, 0)} {state.lower()}" for state in OPEN]
    over = sum(count for state, count in jobs.counts.items() if state not in (*OPEN, "SUBMITTED"))
    words.append(f"{over} ended")
    rate = f", {jobs.ended:.1f} a second" if jobs.ended is not None else ""
    return Text(f"jobs: {', '.join(words)}{rate}")


HEADS = {
    "service": "service",
    "replica": "replica",
    "host": "host",
    "version": "version",
    "state": "state",
    "utilisation": "util",
    "in_flight": "in flight",
    "calls": "calls/s",
    "errors": "errors/s",
    "running": "jobs running",
    "jobs": "jobs/s",
    "latency": "latency ms",
}
TEXTS = ("service", "replica", "host", "version", "state")


def _table(rows: list[Row], order: Order, *, keys: bool) -> Table:
    table = render.new_table()
    for column in COLUMNS.values():
        table.add_column(
            _head(column.field, column.key if keys else "", order),
            justify="left" if column.field in TEXTS else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(
            row.service if not row.flavor else f"{row.service} {row.flavor}",
            row.replica,
            row.host or "–",
            row.version or "–",
            render.coloured(row.state),
            _percent(row.utilisation),
            _whole(row.in_flight),
            _figure(row.calls),
            _errors(row.errors),
            _whole(row.running) + (f" of {row.slots}" if row.slots is not None else ""),
            _figure(row.jobs),
            _figure(row.latency),
        )
    return table


def _head(field: str, key: str, order: Order) -> Text:
    head = Text(HEADS[field])
    at = HEADS[field].find(key) if key else -1
    if at >= 0:
        head.stylize("underline", at, at + 1)
    elif key:
        head.append(f" {key}", style="underline")
    if order.column.field == field:
        head.append(" ↓" if order.column.descending != order.reverse else " ↑")
    return head


def _percent(value: float | None) -> Text:
    if value is None:
        return Text("–")
    style = "red" if value >= 1.0 else "yellow" if value >= 0.8 else ""
    return Text(f"{value:.0%}", style=style)


def _errors(value: float | None) -> Text:
    return Text(_figure(value), style="red" if value else "")


def _whole(value: int | None) -> str:
    return "–" if value is None else str(value)


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100.0 else f"{value:.1f}"
