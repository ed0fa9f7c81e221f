"""How ZooKeeper's servers are: asked by four-letter words, each by itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from shoal import zookeepertls
from shoal.directory import parse_hosts
from shoal.identity import server_name
from shoal.tls import Tls
from shoal_gateway import fourletters

# Seconds for an answer.
PATIENCE = 1.5
# Where ZooKeeper listens when an address does not say.
DEFAULT_PORT = 2181
# Bytes of an answer, at most.
MOST = 64 * 1024
_LATENCY = re.compile(r"[\d.]+/([\d.]+)/([\d.]+)")


@dataclass(frozen=True, slots=True)
class Member:
    """One server, as it says of itself.

    Attributes:
        address: ``host:port``.
        mode: "leader", "follower", "observer", "standalone"; empty when it does not say.
        problem: Why nothing, or not all, is known; empty when all is.
        version: Of ZooKeeper.
        latency: Mean time of a request since its start, milliseconds; None: not told.
        worst: The longest one, milliseconds.
        connections: Open client connections, the one that asked included.
        sessions: Sessions of the ensemble, where its leader or a lone server tells.
        outstanding: Requests that wait.
        nodes: Nodes that it keeps.
        synced: Followers in step, where the leader tells.
        answered: Time of this answer, milliseconds, as measured here.
    """

    address: str
    mode: str = ""
    problem: str = ""
    version: str = ""
    latency: float | None = None
    worst: float | None = None
    connections: int | None = None
    sessions: int | None = None
    outstanding: int | None = None
    nodes: int | None = None
    synced: int | None = None
    answered: float | None = None


def read(address: str, srvr: str, mntr: str, answered: float) -> Member:
    """A member out of its answers to ``srvr`` and ``mntr``.

    Args:
        address: Its address.
        srvr: The one answer; without it nothing is known.
        mntr: The other; without it sessions are not known.
        answered: Milliseconds that the first one took.
    """
    if not srvr.strip():
        return Member(address, problem="does not answer")
    if fourletters.NOT_ALLOWED in srvr:
        return Member(
            address,
            problem="lives, and does not tell: allow it with 4lw.commands.whitelist=srvr,mntr",
            answered=answered,
        )
    if "not currently serving" in srvr:
        return Member(address, problem="is not in a quorum, and serves nobody", answered=answered)
    told = fourletters.fields(srvr)
    if "Mode" not in told:
        return Member(address, problem="answers what is not ZooKeeper's", answered=answered)
    figures = fourletters.figures(mntr)
    latency = _LATENCY.fullmatch(told.get("Latency min/avg/max", ""))
    return Member(
        address=address,
        mode=told["Mode"],
        problem="" if figures else "does not tell its sessions: allow mntr, too",
        version=fourletters.version(told),
        latency=float(latency[1]) if latency else None,
        worst=float(latency[2]) if latency else None,
        connections=_whole(told.get("Connections")),
        sessions=_whole(figures.get("zk_global_sessions")),
        outstanding=_whole(told.get("Outstanding")),
        nodes=_whole(told.get("Node count")),
        synced=_whole(figures.get("zk_synced_followers")),
        answered=answered,
    )


def quorum(members: Sequence[Member]) -> str:
    """How the ensemble is, for a person."""
    if not members:
        return "no server is known"
    alive = [each for each in members if each.mode]
    if any(each.mode == "standalone" for each in alive):
        return "one server, no ensemble"
    leaders = [each for each in alive if each.mode == "leader"]
    if not leaders:
        told = [each for each in members if each.answered is not None]
        return "no leader: nothing can be written" if told or alive else "no server answers"
    return f"{len(alive)} of {len(members)} servers, led by {leaders[0].address}"


async def ask_all(hosts: str, tls: Tls | None) -> list[Member]:
    """Asks every server that an address names.

    Args:
        hosts: As `shoal.Directory` takes it.
        tls: Certificate for a ``tls://`` address.
    """
    servers = [each.strip() for each in parse_hosts(hosts)[0].split(",")]
    context, name = None, ""
    if tls is not None and hosts.startswith(zookeepertls.SCHEME):
        try:
            context = zookeepertls.context(tls)
            name = server_name(zookeepertls.SERVICE, tls.domain)
        except OSError as error:
            # Being renewed, it may be whole again at the next question.
            problem = f"was not asked: {tls.certificate} can't be used: {error}"
            return [Member(each, problem=problem) for each in servers]
    return list(await asyncio.gather(*(_ask(each, context, name) for each in servers)))


async def _ask(address: str, context: ssl.SSLContext | None, name: str) -> Member:
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            srvr = await _word("srvr", address, context, name)
            answered = (time.monotonic() - began) * 1000.0
            mntr = await _word("mntr", address, context, name)
    except TimeoutError:
        return Member(address, problem=f"did not answer within {PATIENCE:g} s")
    except OSError as error:
        return Member(address, problem=f"does not answer: {error.strerror or error}")
    return read(address, srvr, mntr, answered)


async def _word(word: str, address: str, context: ssl.SSLContext | None, name: str) -> str:
    host, _, port = address.rpartition(":") if re.search(r":\d+$", address) else (address, "", "")
    reader, writer = await asyncio.open_connection(
        host.strip("[]"),
        int(port or DEFAULT_PORT),
        ssl=context,
        server_hostname=name if context else None,
    )
    try:
        writer.write(word.encode("ascii"))
        await writer.drain()
        answer = b""
        while len(answer) < MOST and (chunk := await reader.read(MOST)):
            answer += chunk
    finally:
        writer.close()
        # It may have hung up first, which is how an answer ends.
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer.decode("utf-8", "replace")


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text.strip())
    except ValueError:
        return None
