"""Hedging for asyncio: `shoal.hedging` says what and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from shoal.aio.methods import Method, Send, settled
from shoal.attempts import Again, CallState
from shoal.hedging import Hedging
from shoal.pool import ReplicaNode
from shoal_balancer import Outcome


@dataclass(eq=False)
class Copy:
    """One copy of a call, under way."""

    inner: Any
    node: ReplicaNode
    began: float
    bound: float | None


async def attempt(
    hedging: Hedging, method: Method, state: CallState, metadata: Any, send: Send
) -> tuple[Any, Copy]:
    """One attempt of a call, with a second copy of it if the first one is slow.

    Returns:
        The response and the copy that brought it.

    Raises:
        Again: it failed and another may be made.
        AioCallError: it failed for good.
    """
    race = _Race(method, state, metadata, send)
    try:
        first = race.start(await method.channel.acquire(state))
        patience = hedging.patience(method.pool.clock())
        if patience is not None and not await race.ended_within(patience):
            node = hedging.second(method.pool, state, first.node)
            if node is not None:
                race.start(node)
        response, winner = await race.winner()
    finally:
        race.give_up()
    now = method.pool.clock()
    hedging.measured(now - first.began, now)
    return response, winner


class _Race:
    """Copies of one call, of which the first good answer counts."""

    def __init__(self, method: Method, state: CallState, metadata: Any, send: Send) -> None:
        self._method = method
        self._state = state
        self._metadata = metadata
        self._send = send
        self._running: dict[asyncio.Future[Any], Copy] = {}
        self._won = False

    def start(self, node: ReplicaNode) -> Copy:
        """Sends a copy to a node that the call was begun on."""
        began = self._method.pool.clock()
        bound = self._state.timeout(began)
        try:
            inner = self._send(
                self._method.inner(node), bound, self._state.metadata(self._metadata)
            )
        except BaseException:
            node.end(0.0, Outcome.NEUTRAL, began)
            raise
        copy = Copy(inner, node, began, bound)
        future = asyncio.ensure_future(inner)
        # The error of a copy that lost is nobody's concern.
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._running[future] = copy
        return copy

    async def ended_within(self, seconds: float) -> bool:
        """Whether the first copy ends so soon."""
        done, _ = await asyncio.wait(self._running, timeout=seconds)
        return bool(done)

    async def winner(self) -> tuple[Any, Copy]:
        """The first good answer, waited for.

        Raises:
            Again: all have failed and another attempt may be made.
            AioCallError: all have failed, for good.
        """
        method, state = self._method, self._state
        while True:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                copy = self._running.pop(future)
                now = method.pool.clock()
                try:
                    response = future.result()
                except grpc.aio.AioRpcError as error:
                    state.record(copy.node, error, began=copy.began, ended=now, bound=copy.bound)
                    if not self._running:
                        why = state.verdict(copy.node, now)
                        if why is None:
                            raise Again from error
                        raise method.error(state, error, why) from error
                except BaseException:
                    copy.node.end(0.0, Outcome.NEUTRAL, now)
                    raise
                else:
                    self._won = True
                    copy.node.end(now - copy.began, Outcome.OK, now)
                    if method.pool.reports:
                        method.pool.heard(copy.node, settled(copy.inner.trailing_metadata()))
                    return response, copy

    def give_up(self) -> None:
        """Cancels what is still under way: it lost, or its caller has left."""
        for future, copy in self._running.items():
            future.cancel()
            copy.inner.cancel()
            now = self._method.pool.clock()
            outcome = Outcome.OUTRUN if self._won else Outcome.NEUTRAL
            copy.node.end(now - copy.began, outcome, now)
        self._running.clear()
