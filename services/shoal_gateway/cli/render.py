"""Tables and JSON for what the commands show."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from google.protobuf import timestamp_pb2

    from shoal import Replica
    from shoal.recipes.confighistory import Revision
    from shoal_gateway.aws.instances import Instance
    from shoal_protos.gateway.model.v1 import job_pb2

_COLOURS = {
    "UP": "green",
    "BUSY": "yellow",
    "DRAINING": "magenta",
    "DOWN": "red",
    "SILENT": "red",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "DEAD": "red",
    "CANCELLED": "magenta",
    "RUNNING": "cyan",
    "LEASED": "cyan",
    "running": "green",
    "pending": "cyan",
    "stopping": "magenta",
    "stopped": "yellow",
}


def new_table(title: str | None = None) -> Table:
    """An empty table as all commands show them."""
    return Table(
        title=title,
        title_justify="left",
        title_style="dim",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def coloured(word: str) -> Text:
    """A status or state in its colour."""
    return Text(word, style=_COLOURS.get(word, ""))


def ago(seconds: float) -> str:
    """A time span for people: ``42 s``, ``3 min``."""
    if seconds < 120.0:
        return f"{max(seconds, 0.0):.0f} s"
    if seconds < 7200.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.0f} h"


def revision_table(kept: Sequence[Revision]) -> Table:
    """The versions of a document, the latest first."""
    table = new_table()
    for column in ("version", "when", "who", "why"):
        table.add_column(column, overflow="fold")
    for each in reversed(kept):
        back = f"[version {each.restores}]" if each.restores is not None else ""
        why = f"{each.why} {back}".strip()
        table.add_row(str(each.version), when(each.when), each.who or "?", why)
    return table


def when(seconds: float) -> str:
    """A moment for people, local time."""
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def replica_json(service: str, replica: Replica) -> dict[str, Any]:
    """A replica for scripts."""
    return {
        "id": replica.id,
        "service": service,
        "host": replica.host,
        "address": replica.address,
        "port": replica.port,
        "tls": replica.ssl_port is not None,
        "version": replica.version,
        "flavor": replica.flavor,
        "zone": replica.zone,
        "status": str(replica.status),
        "contract": replica.metadata.get("protos_digest", ""),
        "jobs_as": replica.metadata.get("jobs_as", ""),
        "metrics": replica.metadata.get("metrics", ""),
        "since": replica.registered_at,
    }


def replica_table(rows: list[dict[str, Any]], title: str) -> Table:
    """``shoal ps``."""
    table = new_table(title)
    for name in ("replica", "service", "host", "address", "version", "flavor", "status"):
        table.add_column(name)
    table.add_column("since", justify="right")
    now = time.time()
    for row in rows:
        since = ago(now - row["since"]) if row["since"] else "–"
        where = f"{row['address']}:{row['port']}" if row["port"] else "–"
        table.add_row(
            row["id"],
            row["service"],
            row["host"],
            where,
            row["version"] or "–",
            row["flavor"] or "–",
            coloured(row["status"]),
            since,
        )
    return table


def user_table(rows: Sequence[dict[str, Any]]) -> Table:
    """``shoal users list``; a star marks a user's own quota."""
    table = new_table()
    table.add_column("user")
    quotas = list(rows[0]["quotas"]) if rows else []
    for name in quotas:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("since", justify="right")
    now = time.time()
    for row in rows:
        bounds = [
            f"{each['used']} of {each['limit']}{'*' if each['own'] else ''}"
            for each in (row["quotas"][name] for name in quotas)
        ]
        name = row["name"] + (" (disabled)" if row["disabled"] else "")
        table.add_row(name, *bounds, ago(now - row["created"]))
    return table


def token_table(rows: Sequence[dict[str, Any]]) -> Table:
    """``shoal tokens list``."""
    table = new_table()
    for column in ("token", "user", "scopes", "until", "label"):
        table.add_column(column, overflow="fold")
    now = time.time()
    for row in rows:
        until = when(row["expires"])
        if row["revoked"] is not None:
            until = f"revoked {when(row['revoked'])}"
        elif row["expires"] <= now:
            until = f"expired {until}"
        table.add_row(row["id"], row["user"], ", ".join(row["scopes"]), until, row["label"])
    return table


def instance_table(
    instances: Sequence[Instance],
    hosted: Mapping[str, Sequence[tuple[str, Replica]]] | None,
    title: str | None,
) -> Table:
    """``shoal fleet list``; without ``hosted`` nothing is said of replicas."""
    table = new_table(title)
    for name in ("instance", "fleet", "role", "zone", "address", "type", "state", "group"):
        table.add_column(name)
    table.add_column("since", justify="right")
    if hosted is not None:
        table.add_column("replicas")
    now = time.time()
    for each in instances:
        row: list[str | Text] = [each.id, each.fleet, each.role or "–", each.zone]
        row += [each.address or "–", each.kind]
        group = Text(each.group or "–")
        if each.lifecycle not in ("", "InService"):
            group.append(f" {each.lifecycle}", style="magenta")
        if each.healthy is False:
            group.append(" unhealthy", style="red")
        row += [coloured(each.state), group, ago(now - each.launched)]
        if hosted is not None:
            told = [_replica(*pair) for pair in hosted.get(each.id, ())]
            row.append(Text("\n").join(told) if told else "–")
        table.add_row(*row)
    return table


def _replica(service: str, replica: Replica) -> Text:
    flavor = f" {replica.flavor}" if replica.flavor else ""
    named = f"{service}{flavor} {replica.version or '–'} "
    return Text(named).append_text(coloured(str(replica.status)))


def clock(stamp: timestamp_pb2.Timestamp) -> str:
    """A time of day, local."""
    from shoal_gateway.convert import unix

    moment = dt.datetime.fromtimestamp(unix(stamp)).astimezone()
    return moment.strftime("%H:%M:%S.%f")[:-3]


def job_json(job: job_pb2.Job) -> dict[str, Any]:
    """A job for scripts."""
    from shoal_gateway.client import state_name
    from shoal_gateway.convert import unix

    return {
        "id": job.id,
        "application": job.spec.application,
        "flavor": job.spec.flavor,
        "owner": job.owner,
        "signed_by": job.signed_by or None,
        "trace_context": job.trace_context or None,
        "state": state_name(job.state),
        "cancelling": job.cancelling,
        "attempt": job.attempt,
        "parameters": dict(job.spec.parameters),
        "exit_code": job.exit_code if job.HasField("exit_code") else None,
        "reason": job.reason,
        "submitted_at": unix(job.submitted_at),
        "started_at": unix(job.started_at) if job.HasField("started_at") else None,
        "ended_at": unix(job.ended_at) if job.HasField("ended_at") else None,
    }


def job_table(jobs: list[job_pb2.Job]) -> Table:
    """``shoal jobs``."""
    from shoal_gateway.client import state_name
    from shoal_gateway.convert import unix

    table = new_table()
    for name in ("job", "application", "parameters", "state"):
        table.add_column(name)
    for name in ("attempt", "took", "submitted"):
        table.add_column(name, justify="right")
    now = time.time()
    for job in jobs:
        took = "–"
        if job.HasField("ended_at") and job.HasField("started_at"):
            took = f"{unix(job.ended_at) - unix(job.started_at):.1f} s"
        parameters = " ".join(
            f"{key}={value}" for key, value in sorted(job.spec.parameters.items())
        )
        table.add_row(
            job.id,
            job.spec.application,
            parameters,
            coloured(state_name(job.state)),
            str(job.attempt),
            took,
            f"{ago(now - unix(job.submitted_at))} ago",
        )
    return table


def attempt_table(job: job_pb2.Job) -> Table:
    """The attempts of ``shoal job``."""
    table = new_table()
    for name in (
        "attempt",
        "host",
        "app manager",
        "version",
        "runner",
        "outcome",
        "started",
        "ended",
    ):
        table.add_column(name)
    for each in job.attempts:
        table.add_row(
            str(each.number),
            each.host,
            each.manager_id,
            each.manager_version or "–",
            each.runner_id[:8],
            each.outcome,
            clock(each.started_at),
            clock(each.ended_at) if each.HasField("ended_at") else "–",
        )
    return table


def key_table(rows: list[dict[str, Any]]) -> Table:
    """``shoal keys list``."""
    table = new_table()
    for name in ("owner", "key", "standing", "from", "until", "comment"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            row["owner"],
            row["id"],
            row["standing"] + (f" ({row['why']})" if row["why"] else ""),
            day(row["not_before"]),
            day(row["not_after"]),
            row["comment"],
        )
    return table


def certificate_table(rows: list[dict[str, Any]], now: float) -> Table:
    """``shoal certs show``."""
    table = new_table()
    for name in ("name", "for", "until", "left", "serial", "authority"):
        table.add_column(name, overflow="fold")
    for row in rows:
        left = (row["not_after"] - now) / 86400.0
        style = "red" if left <= 0 else "yellow" if left < 10 else ""
        table.add_row(
            row["name"],
            row["names"][0] if row["names"] else "nobody",
            day(row["not_after"]),
            Text(f"{left:.1f} days", style=style),
            row["serial"][:16],
            row["issuer"][-16:],
        )
    return table


def day(seconds: float | None) -> str:
    """A date and time for people."""
    if seconds is None:
        return "–"
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
