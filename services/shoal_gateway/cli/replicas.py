"""``shoal ps``: the replicas, once or as they come and go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from shoal_gateway.cli import render
from shoal_gateway.cli.codes import UnreachableError, unknown
from shoal_gateway.cli.context import Where, out, print_json
from shoal_gateway.cli.keyboard import Keyboard
from shoal_gateway.cli.root import Json, app, where
from shoal_gateway.fleet.names import SERVICES

if TYPE_CHECKING:
    from shoal.directory import Directory

# Seconds between two drawings that only let ages tick; news is drawn when it comes.
TICK = 1.0


@app.command()
def ps(
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Until q or Ctrl-C, as replicas come and go.")
    ] = False,
    json_: Json = False,
) -> None:
    """List the replicas: service, host, address, version, flavor, status, since.

    With --watch it is drawn anew when the directory tells of a change; with --json besides, each
    change is one document on one line.

    Examples:  shoal ps    shoal ps --json    shoal ps --watch    shoal ps --watch --json
    """
    meant = where()
    with meant.directory() as directory:
        view = _View(meant, directory)
        if not view.wait():
            raise UnreachableError(unknown(meant.address(), directory.describe()))
        if watch and json_:
            _stream(view)
        elif watch:
            _live(view)
        elif json_:
            print_json(view.document())
        else:
            out.print(view.table())


class _View:
    """The replicas of a fleet as they are known at the moment."""

    def __init__(self, meant: Where, directory: Directory) -> None:
        self._meant = meant
        self._directory = directory
        self._watches = {service: directory.watch(service) for service in SERVICES}

    def wait(self) -> bool:
        """Waits until the directory has said what it knows; False if that is nothing."""
        from shoal_gateway.lookout import wait_known

        return wait_known(self._watches.values())

    @contextmanager
    def told(self, changed: Callable[[], None]) -> Iterator[None]:
        """Calls ``changed`` when replicas have come, gone or changed; on the directory's thread."""
        with ExitStack() as stack:
            for watch in self._watches.values():
                stack.callback(watch.subscribe(lambda _: changed()))
            yield

    def rows(self) -> list[dict[str, Any]]:
        """A row for each replica, those of a local fleet that were killed among them."""
        rows = [
            render.replica_json(service, each)
            for service, watch in self._watches.items()
            for each in watch.replicas()
        ]
        if not self._meant.zookeeper:
            _note_dead(self._meant, rows)
        rows.sort(key=lambda row: (SERVICES.index(row["service"]), row["flavor"], row["id"]))
        return rows

    def document(self) -> dict[str, Any]:
        """For scripts."""
        state = self._directory.describe()
        return {"zookeeper": self._meant.address(), "state": state, "replicas": self.rows()}

    def table(self) -> RenderableType:
        """For people."""
        rows = self.rows()
        title = f"ZooKeeper {self._meant.address()}: {self._directory.describe()}"
        table = render.replica_table(rows, title)
        shared = [row["id"] for row in rows if row["jobs_as"] == "manager"]
        if not shared:
            return table
        note = (
            f"Jobs of {', '.join(shared)} run as their manager's account, and can read each"
            " other's files; its log says why (docs/users.md)."
        )
        return Group(table, Text(note, style="dim"))


def _live(view: _View) -> None:
    """On a screen of its own; where there is no terminal, a table after each change."""
    with Keyboard() as keyboard, view.told(keyboard.wake):
        if not out.is_terminal:
            for _ in _changes(view, keyboard):
                out.print(view.table())
            return
        with Live(console=out, screen=True, auto_refresh=False) as live:
            while "q" not in keyboard.wait(TICK):
                live.update(view.table(), refresh=True)


def _stream(view: _View) -> None:
    with Keyboard() as keyboard, view.told(keyboard.wake):
        for document in _changes(view, keyboard):
            sys.stdout.write(json.dumps(document) + "\n")
            sys.stdout.flush()


def _changes(view: _View, keyboard: Keyboard) -> Iterator[dict[str, Any]]:
    """The first document, and then each that differs from the one before."""
    before: list[dict[str, Any]] | None = None
    while True:
        document = view.document()
        if document["replicas"] != before:
            before = document["replicas"]
            yield document
        # A process of the local fleet that was killed is missed before ZooKeeper misses it.
        keyboard.wait(TICK)


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
            keys = ("address", "version", "zone", "contract", "jobs_as", "metrics")
            row = dict.fromkeys(keys, "") | {
                "port": 0,
                "tls": False,
                "since": 0,
                "flavor": each.flavor,
            }
            row |= {"id": each.id, "service": each.service, "host": each.host}
            rows.append(row)
        row["status"] = "DOWN"
