"""One caller, one call after the other: Shoal against grpc's own round robin.

    python -m benchmarks.latency [--rounds 7] [--calls 3000] [--out build/bench/latency.json]

Three echo servers in processes of their own answer 100-byte messages. Each round measures both
callers over the same servers, in an order that alternates; the figure is the ratio of their mean
latencies per round, reported as median with minimum and maximum. Shoal runs with its shipped
defaults: peak EWMA, ejection, retry, budget.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
from rich.console import Console
from rich.progress import track

from shoal.channel import Channel
from shoal.testing import FixedDirectory
from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc
from tests.support.echo import EchoProcess

Call = Callable[[], object]


def mean_latency(call: Call, calls: int) -> float:
    """Mean seconds of one call over ``calls`` calls in a row."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def measure(ours: Call, peer: Call, *, rounds: int, calls: int) -> list[float]:
    """Ratios of ours to the peer's mean latency, one a round, the order alternating."""
    ratios = []
    for number in track(range(rounds), description="rounds"):
        if number % 2:
            theirs = mean_latency(peer, calls)
            mine = mean_latency(ours, calls)
        else:
            mine = mean_latency(ours, calls)
            theirs = mean_latency(peer, calls)
        ratios.append(mine / theirs)
    return ratios


def main() -> None:
    """Starts the servers, measures, prints and writes the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument("--calls", type=int, default=3000, help="calls a round and caller")
    parser.add_argument("--out", type=Path, default=Path("build/bench/latency.json"))
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error("--rounds must be at least 5: fewer say nothing on a shared machine")

    request = echo_pb2.EchoRequest(payload=b"x" * 100)
    with ExitStack() as stack:
        servers = [stack.enter_context(EchoProcess(f"echo-{n}")) for n in range(3)]
        targets = [server.target for server in servers]
        directory = stack.enter_context(FixedDirectory({"echo": targets}))
        shoal_stub = echo_pb2_grpc.EchoStub(stack.enter_context(Channel(directory, "echo")))
        core = grpc.insecure_channel(
            "ipv4:" + ",".join(targets),
            options=[("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}')],
        )
        core_stub = echo_pb2_grpc.EchoStub(stack.enter_context(core))

        def ours() -> object:
            return shoal_stub.Echo(request, timeout=5.0)

        def peer() -> object:
            return core_stub.Echo(request, timeout=5.0)

        for call in (ours, peer):
            mean_latency(call, 200)
        ratios = measure(ours, peer, rounds=options.rounds, calls=options.calls)

    record = {
        "case": "serial latency",
        "peer": "grpc core round_robin",
        "metric": "ratio of mean latencies",
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "rounds": options.rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([record], indent=2) + "\n", encoding="utf-8")
    Console().print(
        f"serial latency ÷ core round robin: {record['median']:.2f} "
        f"({record['min']:.2f} to {record['max']:.2f}, {options.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
