"""``shoal dashboard``: the live page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal_gateway.cli import codes
from shoal_gateway.cli.context import err, out
from shoal_gateway.cli.root import app, where

if TYPE_CHECKING:
    from shoal_gateway.dashboard.web import Actor


@app.command()
def dashboard(
    bind: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback is open to others.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0: a free one (default: 8470, or a free one).", min=0, max=65535),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name by which browsers come to it, besides --bind (repeat)."),
    ] = None,
    allow_actions: Annotated[
        bool,
        typer.Option(
            "--allow-actions", help="Buttons to kill, restart and upgrade; a local fleet only."
        ),
    ] = False,
    url_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve a live page of the fleet until Ctrl-C: replicas, calls, jobs, ZooKeeper, configuration.

    Whoever reaches it sees what you may see: it calls with your token and certificate.

    Examples:  shoal dashboard    shoal --zookeeper zk1:2181/gateway dashboard --port 8080

    shoal dashboard --allow-actions
    """
    from shoal_gateway.fleet import page

    if absent := page.missing():
        err.print(f"shoal: {page.MISSING.format(name=absent)}", style="red")
        raise typer.Exit(codes.USAGE)
    import asyncio

    from shoal_gateway.dashboard import serving
    from shoal_gateway.dashboard.guard import is_loopback

    meant = where()
    if allow_actions and not is_loopback(bind):
        raise ValueError(
            f"--allow-actions goes with an address of loopback only, and {bind} is none: whoever"
            " reaches the page could kill replicas"
        )
    actor = _actor() if allow_actions else None
    token = meant.token()
    if not is_loopback(bind):
        err.print(f"{bind} is open to others: they see all that you may see.", style="yellow")
    elif token is not None or meant.tls() is not None:
        told = "Everybody on this machine, jobs too, can see on it all that you may see."
        err.print(told, style="yellow")
    options = serving.Options(bind, port, tuple(name or ()), token, url_file)
    with meant.directory() as directory:
        asyncio.run(
            serving.serve(
                directory,
                options,
                actor=actor,
                ready=lambda url: out.print(f"{url}  (Ctrl-C ends it)", highlight=False),
            )
        )


def _actor() -> Actor:
    from shoal_gateway.dashboard.actions import FleetActor

    fleet = where().local()
    fleet.state  # noqa: B018 - there is one
    return FleetActor(fleet)
