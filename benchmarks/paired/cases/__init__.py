"""The cases, by the name that ``--only`` takes."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.paired.bench import Bench
from benchmarks.paired.cases import (
    alone,
    deaths,
    latency,
    membership,
    observed,
    replicas,
    security,
    steps,
    throughput,
)
from benchmarks.paired.rows import Row

Case = Callable[[Bench], list[Row]]

CASES: dict[str, Case] = {
    "latency": latency.blocking,
    "latency-aio": latency.asynchronous,
    "throughput": throughput.blocking,
    "throughput-aio": throughput.asynchronous,
    "slow": replicas.slow,
    "failing": replicas.failing,
    "kill": deaths.kill,
    "stop": deaths.stop,
    "pick": alone.pick,
    "memory": alone.memory,
    "membership": membership.membership,
    "steps": steps.blocking,
    "steps-aio": steps.asynchronous,
    "metrics": observed.blocking,
    "metrics-aio": observed.asynchronous,
    "tls": security.blocking,
    "tls-aio": security.asynchronous,
}
