"""``shoal dns``: the fleet's services by their names."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from typing import Annotated

import typer

from shoal_gateway.cli.context import out
from shoal_gateway.cli.root import app, where


@app.command()
def dns(
    zone: Annotated[str, typer.Option(help="The services' names end with it.")] = "shoal.local",
    bind: Annotated[str, typer.Option(help="Address and port, UDP and TCP.")] = "127.0.0.1:5353",
    ttl: Annotated[int, typer.Option(help="Seconds that an answer may be kept.", min=0)] = 2,
    negative_ttl: Annotated[
        int, typer.Option(help='The same of "there is no such name".', min=0)
    ] = 2,
    server: Annotated[
        list[str] | None,
        typer.Option(help="This server's addresses as others see them (default: --bind's)."),
    ] = None,
) -> None:
    """Answer DNS with the services' replicas: A, AAAA, SRV and TXT. Ctrl-C ends it.

    Examples:  shoal dns

    dig @127.0.0.1 -p 5353 registry.shoal.local

    dig @127.0.0.1 -p 5353 _registry._tcp.shoal.local SRV

    dig @127.0.0.1 -p 5353 local.appmanager.shoal.local TXT

    shoal dns --zone gateway.example.org --bind 10.0.0.5:53
    """
    try:
        from shoal.dns.server import DnsServer, split_address
        from shoal.dns.serving import serve
        from shoal.dns.view import Zone, labels_of
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    host, port = split_address(bind)
    given = [ipaddress.ip_address(each) for each in server or [host]]
    ours = Zone(
        labels_of(zone), ttl, negative_ttl, tuple(each for each in given if not each.is_unspecified)
    )

    def started(answering: DnsServer) -> None:
        told = f"answering for {'.'.join(ours.name)} at {answering.host} port {answering.port}"
        out.print(told, highlight=False)

    async def answer() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        with where().directory() as directory:
            await serve(directory, ours, host, port, stopped, started=started)

    asyncio.run(answer())
