"""One of three replicas is slow, or fails every call at once."""

from __future__ import annotations

from functools import partial

from benchmarks.paired.bench import Bench, turned
from benchmarks.paired.callers import CORE, OURS, REQUEST, TIMEOUT, servers, stub
from benchmarks.paired.load import Run, loaded
from benchmarks.paired.rows import Row, at_least, at_most, never_above, ratios

THREADS = 8
# A sleep of the handler, seconds: long against what a call costs, so that two cores are not what
# is measured.
WORK = 0.005
TIMES = 20


def slow(bench: Bench) -> list[Row]:
    """One takes 20 times as long as the others; every round begins with new channels."""
    case = f"one of three {TIMES} × slow"
    callers = (OURS, CORE)
    runs: dict[str, list[Run]] = {name: [] for name in callers}
    shares: dict[str, list[float]] = {name: [] for name in callers}
    with servers(WORK, WORK, WORK * TIMES) as started:
        targets = [server.target for server in started]
        for number in bench.each(case):
            for name in turned(callers, number):
                before = [server.calls for server in started]
                with stub(name, targets) as echo:
                    call = partial(echo.Echo, REQUEST, timeout=TIMEOUT)
                    run = loaded({"Echo": call}, threads=THREADS, seconds=bench.seconds(4.0, 0.4))
                shares[name].append(_share_of_last(before, [server.calls for server in started]))
                runs[name].append(run)
                bench.runs[case, name] = run
    rates = {name: [run.rate for run in each] for name, each in runs.items()}
    tails = {name: [1e3 * run.quantile(0.99) for run in each] for name, each in runs.items()}
    return [
        Row(case, CORE, "throughput ÷ peer's", ratios(rates[OURS], rates[CORE]), at_least(4.5)),
        Row(case, CORE, "p99 ÷ peer's", ratios(tails[OURS], tails[CORE]), at_most(0.17)),
        *(Row(case, name, "calls a second", tuple(rates[name])) for name in callers),
        *(Row(case, name, "p99, ms", tuple(tails[name])) for name in callers),
        *(Row(case, name, "calls to the slow one, %", tuple(shares[name])) for name in callers),
    ]


def failing(bench: Bench) -> list[Row]:
    """One answers UNAVAILABLE at once: no caller should take that for speed."""
    case = "one of three fails at once"
    callers = (OURS, CORE)
    shares: dict[str, list[float]] = {name: [] for name in callers}
    safe: dict[str, list[float]] = {name: [] for name in callers}
    once: dict[str, list[float]] = {name: [] for name in callers}
    with servers(0.0, 0.0, fail=1) as started:
        targets = [server.target for server in started]
        for number in bench.each(case):
            for name in turned(callers, number):
                seen: list[list[int]] = []

                def look(seen: list[list[int]] = seen) -> None:
                    seen.append([server.calls for server in started])

                with stub(name, targets) as echo:
                    run = loaded(
                        {
                            "Echo": partial(echo.Echo, REQUEST, timeout=TIMEOUT),
                            "EchoOnce": partial(echo.EchoOnce, REQUEST, timeout=TIMEOUT),
                        },
                        threads=THREADS,
                        seconds=bench.seconds(4.0, 1.3),
                        events=[(1.0, look)],
                    )
                look()
                shares[name].append(_share_of_last(*seen))
                safe[name].append(run.failed("Echo"))
                once[name].append(run.failed("EchoOnce"))
    share = "share of calls that it gets after 1 s, %"
    return [
        Row(case, OURS, share, tuple(shares[OURS]), at_most(1.0)),
        Row(case, OURS, "failed idempotent calls", tuple(safe[OURS]), never_above(0)),
        Row(case, OURS, "failed non-idempotent calls", tuple(once[OURS])),
        Row(case, CORE, share, tuple(shares[CORE])),
        Row(case, CORE, "failed idempotent calls", tuple(safe[CORE])),
        Row(case, CORE, "failed non-idempotent calls", tuple(once[CORE])),
    ]


def _share_of_last(before: list[int], after: list[int]) -> float:
    """Per cent of the calls between two looks that the last server got."""
    gained = [now - then for then, now in zip(before, after, strict=True)]
    return 100.0 * gained[-1] / sum(gained)
