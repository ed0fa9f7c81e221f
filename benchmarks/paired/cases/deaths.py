"""One of three servers is killed, or stopped in its tracks, under 16 threads."""

from __future__ import annotations

import signal
from functools import partial

from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import CORE, OURS, REQUEST, TIMEOUT, servers, stub
from benchmarks.paired.load import Run, loaded
from benchmarks.paired.rows import Row, never_above
from shoal import Retry

THREADS = 16
CALLERS = (OURS, CORE)
# When it happens, seconds after the load began.
AT = 1.0


def kill(bench: Bench) -> list[Row]:
    """SIGKILL; every thread calls an idempotent method and another in turn."""
    case = "SIGKILL one of three"
    runs: dict[str, list[Run]] = {name: [] for name in CALLERS}
    for number in bench.each(case):
        for name in turned(CALLERS, number):
            with servers(0.0, 0.0, 0.0) as started:
                run = _load(
                    name,
                    [server.target for server in started],
                    seconds=bench.seconds(3.0, 1.3),
                    timeout=TIMEOUT,
                    event=partial(started[-1].signal, signal.SIGKILL),
                )
            runs[name].append(run)
            bench.runs[case, name] = run
    worst = "worst idempotent call, ms"
    rows = []
    for name in CALLERS:
        ours = name == OURS
        each = runs[name]
        rows += [
            _failures(case, name, each, "Echo", target=ours),
            Row(
                case,
                name,
                worst,
                tuple(1e3 * run.worst("Echo", since=AT) for run in each),
                never_above(100.0) if ours else None,
            ),
            Row(
                case,
                name,
                f"{worst}, in the half second before",
                tuple(1e3 * run.worst("Echo", since=AT / 2, until=AT) for run in each),
            ),
            _failures(case, name, each, "EchoOnce", target=False),
        ]
    return rows


def stop(bench: Bench) -> list[Row]:
    """SIGSTOP: its connections stay, and nothing comes back; ours with a timeout per attempt."""
    case = "SIGSTOP one of three, deadline 1 s"
    runs: dict[str, list[Run]] = {name: [] for name in CALLERS}
    for number in bench.each(case):
        for name in turned(CALLERS, number):
            with servers(0.0, 0.0, 0.0) as started:
                run = _load(
                    name,
                    [server.target for server in started],
                    seconds=bench.seconds(4.0, 1.6),
                    timeout=1.0,
                    event=partial(started[-1].signal, signal.SIGSTOP),
                    retry=Retry(attempt_timeout=0.2),
                )
            runs[name].append(run)
            bench.runs[case, name] = run
    return [
        _failures(case, name, runs[name], method, target=name == OURS and method == "Echo")
        for name in CALLERS
        for method in ("Echo", "EchoOnce")
    ]


def _load(
    name: str,
    targets: list[str],
    *,
    seconds: float,
    timeout: float,
    event: partial[None],
    retry: Retry | None = None,
) -> Run:
    with stub(name, targets, retry) as echo:
        return loaded(
            {
                "Echo": partial(echo.Echo, REQUEST, timeout=timeout),
                "EchoOnce": partial(echo.EchoOnce, REQUEST, timeout=timeout),
            },
            threads=THREADS,
            seconds=seconds,
            events=[(AT, event)],
        )


def _failures(case: str, name: str, runs: list[Run], method: str, *, target: bool) -> Row:
    kind = {"Echo": "idempotent", "EchoOnce": "non-idempotent"}[method]
    return Row(
        case,
        name,
        f"failed {kind} calls",
        tuple(run.failed(method) for run in runs),
        never_above(0) if target else None,
    )
