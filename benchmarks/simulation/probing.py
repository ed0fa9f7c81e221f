"""Callers that ask replicas how busy they are, for the rivals that live on probes.

A probe costs a round trip and nothing at the replica, which flatters them.
"""

from __future__ import annotations

from benchmarks.simulation.callers import Call, Caller
from benchmarks.simulation.rivals import Entry, Prequal, Probed
from benchmarks.simulation.servers import Server
from shoal_balancer import Node


class AsksFirst(Caller):
    """Asks some replicas, waits for their answers, and sends the call to the shortest queue.

    Source: the synchronous mode of Prequal (NSDI 2024), by queue alone.
    """

    COUNT = 2
    # After the answers, which take exactly as long.
    LATER = 1e-9

    def _begin(self, call: Call) -> None:
        nodes = self.balancer.snapshot.ready
        answers: list[tuple[float, float, Node[Server]]] = []

        def ask(node: Node[Server]) -> None:
            server = node.endpoint
            answers.append((server.in_flight / server.slots, self.rng.random(), node))

        for node in self.rng.sample(nodes, min(self.COUNT, len(nodes))):
            self._engine.after(self._wire, ask, node)

        def send() -> None:
            policy = self.balancer.policy
            if isinstance(policy, Probed):
                policy.answers = answers
            self._send(call)

        self._engine.after(2.0 * self._wire + self.LATER, send)


class AsksFive(AsksFirst):
    """The same with five."""

    COUNT = 5


class AsksAlong(Caller):
    """Asks three replicas with each call, and doesn't wait for their answers."""

    def _begin(self, call: Call) -> None:
        self._send(call)
        nodes = self.balancer.snapshot.ready
        for node in self.rng.sample(nodes, min(Prequal.PROBES, len(nodes))):
            self._engine.after(self._wire, self._asked, node)

    def _asked(self, node: Node[Server]) -> None:
        """A probe is at a replica, whose estimate of the latency is taken to be right."""
        server = node.endpoint
        latency = (server.in_flight + 1) / (server.slots * server.speed)
        self._engine.after(self._wire, self._told, node, server.in_flight, latency)

    def _told(self, node: Node[Server], in_flight: int, latency: float) -> None:
        policy = self.balancer.policy
        if isinstance(policy, Prequal):
            policy.answered(Entry(node, in_flight, latency, self._engine.now), self.rng)
