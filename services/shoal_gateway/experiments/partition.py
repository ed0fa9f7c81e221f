"""The network breaks between replicas that all live: drops, delays, forgotten connections, one way.

The run is good when the checker finds nothing and every fault met with traffic. How long callers
felt each fault is measured by two kinds of plain calls: some leave the whole deadline to one
attempt, some give up an attempt early and take another replica.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import grpc

from shoal.retry import Retry
from shoal.testing import Fault as NetworkFault
from shoal_gateway.experiments import measures, workload
from shoal_gateway.experiments.disturbance import Disturbance, disturbances
from shoal_gateway.experiments.faults import Breakage, Fault, Happened, Injector, spread
from shoal_gateway.experiments.lab import Lab, experiment, read_history
from shoal_gateway.experiments.links import Links
from shoal_gateway.experiments.plots import calls, throughput
from shoal_gateway.experiments.prober import Probe, Prober
from shoal_gateway.experiments.settings import Settings
from shoal_gateway.fleet.state import FleetState
from shoal_protos.gateway.api.v1 import api_pb2, api_pb2_grpc

NAPS = (0.3, 0.7)
DELAY = 0.3
KINDS = (
    NetworkFault.drop(),
    NetworkFault.late(DELAY),
    NetworkFault.half_open(),
    NetworkFault.deaf(),
    NetworkFault.mute(),
)
# Schedulers are called for hints only: nobody would feel a fault before one.
SERVICES = ("registry", "api", "appmanager")
# Of app managers those of the flavor that the jobs need.
FLAVORS = ("", "local")
# How often each kind comes, and seconds that it lasts: in a full run and in a small one.
TIMES, SMALL_TIMES = 2, 1
BROKEN, SMALL_BROKEN = 10.0, 3.0
CUT_OFF, SMALL_CUT_OFF = 20.0, 5.0
# Of a plain call: its deadline, and a patient caller's and an impatient one's time for an attempt.
DEADLINE = 2.0
ATTEMPT = {"one attempt may take all": None, "0.5 s for an attempt": 0.5}
# A call that takes longer has felt something. An idle fleet answers in 5 ms.
SLOW = 0.45
# A job that nobody has submitted.
NOBODYS = "00000000-0000-4000-8000-000000000000"
# Callers of a kind, and calls a second of each: one that hangs must not blind the others.
CALLERS, RATE = 4, 5.0
# The jobs have ended this many seconds after the last arrival, or the run has failed.
PATIENCE = 600.0


def run(settings: Settings) -> int:
    """Runs the experiment; its exit code."""
    hosts = 2 if settings.small else 3
    with Links() as links:
        return experiment(
            "partition", settings, partial(_body, links), hosts=hosts, route=links.route
        )


def schedule(
    settings: Settings, links: Links, state: FleetState, rng: random.Random
) -> list[Fault]:
    """What is broken when."""
    small = settings.small
    victims = {
        service: sorted(
            each.id for each in state.replicas.values()
            if each.service == service and each.flavor in FLAVORS
        )
        for service in SERVICES
    }  # fmt: skip
    kinds = list(KINDS) * (SMALL_TIMES if small else TIMES)
    # Every service in turn, whatever the order of the kinds becomes.
    services = [SERVICES[number % len(SERVICES)] for number in range(len(kinds))]
    rng.shuffle(services)
    wanted: list[tuple[Breakage, float]] = [
        (partial(links.replica, rng.choice(victims[service]), kind),
         SMALL_BROKEN if small else BROKEN)
        for service, kind in zip(services, kinds, strict=True)
    ]  # fmt: skip
    cut_off = SMALL_CUT_OFF if small else CUT_OFF
    wanted.append((partial(links.host, rng.choice(sorted(state.hosts))), cut_off))
    if not small:
        wanted.append((partial(links.from_zookeeper, rng.choice(sorted(state.hosts))), cut_off))
    rng.shuffle(wanted)
    times = spread(rng, len(wanted), settings.seconds)
    return [
        Fault(at, seconds, breakage) for at, (breakage, seconds) in zip(times, wanted, strict=True)
    ]


def _body(links: Links, lab: Lab) -> dict[str, Any]:
    settings = lab.settings
    rng = random.Random(settings.seed)  # noqa: S311 - replayable, not secret
    tasks = workload.naps(settings.jobs, settings.seed, "partition", seconds=NAPS)
    injector = Injector(lab.history, schedule(settings, links, lab.fleet.state, rng))
    client = lab.client()
    with ExitStack() as stack:
        probers = {
            name: stack.enter_context(_probing(lab, attempt)) for name, attempt in ATTEMPT.items()
        }
        client.start(tasks, workload.arrivals(settings.jobs, settings.seconds, rng))
        injector.start()
        try:
            lab.follow(client, settings.seconds + PATIENCE)
            injector.finish(120.0)
        finally:
            injector.stop()
    judged = lab.judge(client, tasks)
    report = lab.report(injector.happened, judged)
    began = lab.history.began
    probes = {
        name: sorted((each for one in several for each in one.probes), key=lambda each: each.at)
        for name, several in probers.items()
    }
    felt = {
        name: disturbances(injector.happened, each, began, slow=SLOW)
        for name, each in probes.items()
    }
    missed = [
        f"fault {each.number} ({each.what}) met with no traffic: it has shown nothing"
        for each, hit in zip(injector.happened, links.hits, strict=True)
        if not hit
    ]
    _draw(lab, injector.happened, probes)
    return {
        **report,
        "problems": [*report["problems"], *missed],
        "good": report["good"] and not missed,
        "slow_after_seconds": SLOW,
        "faults": _told(lab, injector.happened, links.hits, felt),
    }


@contextmanager
def _probing(lab: Lab, attempt: float | None) -> Iterator[list[Prober]]:
    """Plain calls of the api, and through it of the registry, as long as the context lasts."""
    retry = Retry(attempts=3, attempt_timeout=attempt)
    with lab.directory.channel("api", retry=retry) as channel, ExitStack() as stack:
        call = partial(_ask, api_pb2_grpc.ApiStub(channel))
        yield [stack.enter_context(Prober(call, RATE)) for _ in range(CALLERS)]


def _ask(api: api_pb2_grpc.ApiStub) -> None:
    """Asks for a job that nobody has submitted: the answer that there is none is a good one."""
    try:
        api.Get(api_pb2.GetRequest(id=NOBODYS), timeout=DEADLINE)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


def _told(
    lab: Lab, happened: Sequence[Happened], hits: Sequence[int], felt: dict[str, list[Disturbance]]
) -> list[dict[str, Any]]:
    lines = read_history(lab.settings.out)
    told = []
    for index, (each, hit) in enumerate(zip(happened, hits, strict=True)):
        meanwhile = measures.latencies(lines, between=(each.at, each.until))["job_seconds"]
        told.append({
            "number": each.number,
            "what": each.what,
            "seconds": round(each.until - each.at, 2),
            "bytes_or_connections_met": hit,
            "jobs_submitted_meanwhile_seconds": meanwhile,
            "disturbance": {name: asdict(one[index]) for name, one in felt.items()},
        })  # fmt: skip
    return told


def _draw(lab: Lab, happened: Sequence[Happened], probes: dict[str, list[Probe]]) -> None:
    settings = lab.settings
    done = list(measures.successes(read_history(settings.out)).values())
    end = max([*done, *(each.until for each in happened)])
    title = f"{settings.jobs} jobs, seed {settings.seed}: the network breaks {len(happened)} times"
    throughput(settings.out / "throughput.png", {"per second": done}, happened, end, title)
    calls(settings.out / "calls.png", probes, happened, lab.history.began, end, title)
