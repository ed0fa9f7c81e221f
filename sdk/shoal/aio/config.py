"""The same configuration for asyncio code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self

from shoal.aio.directory import Directory
from shoal.errors import CoordinationTimeoutError
from shoal.recipes.config import seen, unanswered
from shoal.recipes.configcodec import Codec, M
from shoal.recipes.configfollow import Change, Follower, Listener
from shoal.recipes.confighistory import Revision
from shoal.recipes.configscripts import Expected, Stored
from shoal.recipes.configstate import Reading
from shoal.recipes.desk import Desk
from shoal.recipes.steps import Script, T


class Config(Generic[M]):
    """`shoal.Config` for asyncio code: its waits are awaited, its listeners run on the event loop.

        async with shoal.aio.Config(directory, "limits", Limits) as config:
            async for reading in config.changes(): ...

    Arguments and errors are those of `shoal.Config`, but for ``on_problem``, which is called on the
    event loop. The constructor reads a small file, the snapshot, and does not wait otherwise.

    Raises:
        RuntimeError: no event loop is running.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        model: type[M],
        *,
        defaults: M | None = None,
        on_problem: Callable[[str], object] | None = None,
    ) -> None:
        self.name = name
        self._directory = directory.sync
        self._loop = asyncio.get_running_loop()
        self._follower = Follower(
            self._directory,
            name,
            Codec(name, model, defaults),
            on_problem=None if on_problem is None else lambda told: self._soon(on_problem, told),
        )
        self._follower.begin()

    def __repr__(self) -> str:
        return f"<shoal.aio.Config {self.name} {self._follower.reading}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def value(self) -> M:
        """What holds now."""
        return self._follower.reading.value

    @property
    def reading(self) -> Reading[M]:
        """What holds now, its version, where it is from, and what is wrong."""
        return self._follower.reading

    @property
    def problem(self) -> str | None:
        """Why the newest document is not the one that holds; None when it is."""
        return self.reading.problem

    def describe(self) -> str:
        """For a person: what holds, where it is from, and how ZooKeeper is."""
        return self._follower.describe()

    def subscribe(self, listener: Listener[M]) -> Callable[[], None]:
        """Calls ``listener`` on the event loop with each new `Reading`, soon with the current one.

        Of several quick changes it hears the last for certain. Returns what ends it.
        """
        ended = False

        def hear(reading: Reading[M]) -> None:
            if not ended:
                listener(reading)

        unsubscribe = self._follower.subscribe(lambda reading: self._soon(hear, reading))

        def end() -> None:
            nonlocal ended
            ended = True
            unsubscribe()

        return end

    async def changes(self) -> AsyncIterator[Reading[M]]:
        """The current reading, and then each new one; a slow reader gets the latest only."""
        latest: list[Reading[M]] = []
        news = asyncio.Event()

        def hear(reading: Reading[M]) -> None:
            latest[:] = [reading]
            news.set()

        end = self.subscribe(hear)
        try:
            while True:
                await news.wait()
                news.clear()
                yield latest[0]
        finally:
            end()

    async def wait(
        self,
        timeout: float = 10.0,  # noqa: ASYNC109 - one signature for both shells
        *,
        version: int | None = None,
    ) -> Reading[M]:
        """As `shoal.Config.wait`."""
        there: asyncio.Future[Reading[M]] = self._loop.create_future()

        def look(reading: Reading[M]) -> None:
            if seen(reading, version) and not there.done():
                there.set_result(reading)

        end = self.subscribe(look)
        try:
            async with asyncio.timeout(timeout):
                return await there
        except TimeoutError as error:
            raise CoordinationTimeoutError(
                f"config {self.name!r} was not read: {self.describe()}"
            ) from error
        finally:
            end()

    async def fetch(self, timeout: float = 10.0) -> Stored:  # noqa: ASYNC109 - as above
        """As `shoal.Config.fetch`."""
        return await self._run(self._follower.stored, timeout, writing=False)

    async def set(
        self,
        content: M | Mapping[str, Any],
        *,
        why: str = "",
        who: str = "",
        expected: Expected = "any",
        timeout: float = 10.0,  # noqa: ASYNC109 - as above
    ) -> int:
        """As `shoal.Config.set`."""
        draft = self._follower.draft(content, who, why)
        return await self._run(lambda desk: self._follower.write(desk, draft, expected), timeout)

    async def update(
        self,
        change: Change,
        *,
        why: str = "",
        who: str = "",
        timeout: float = 10.0,  # noqa: ASYNC109 - as above
    ) -> int:
        """As `shoal.Config.update`; ``change`` runs on a thread of the directory's."""
        return await self._run(lambda desk: self._follower.update(desk, change, who, why), timeout)

    async def history(self, timeout: float = 10.0) -> list[Revision]:  # noqa: ASYNC109 - as above
        """As `shoal.Config.history`."""
        return await self._run(self._follower.history, timeout, writing=False)

    async def rollback(
        self,
        version: int | None = None,
        *,
        why: str = "",
        who: str = "",
        expected: Expected = "any",
        timeout: float = 10.0,  # noqa: ASYNC109 - as above
    ) -> int:
        """As `shoal.Config.rollback`."""
        return await self._run(
            lambda desk: self._follower.rollback(desk, version, who, why, expected), timeout
        )

    def close(self) -> None:
        """Follows no more; `value` stays what it was. Idempotent."""
        self._follower.stop()

    def _soon(self, call: Callable[..., object], *arguments: Any) -> None:
        # From a thread of the directory's, which may outlive the loop by a moment.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    async def _run(
        self,
        script: Callable[[Desk], Script[T]],
        timeout: float,  # noqa: ASYNC109 - as above
        *,
        writing: bool = True,
    ) -> T:
        desk = self._directory.desk()
        steps = desk.run(script(desk))
        try:
            async with asyncio.timeout(timeout):
                # Shielded: the script ends by its own hand, on its own thread.
                return await asyncio.shield(asyncio.wrap_future(steps.outcome))
        except TimeoutError as error:
            raise unanswered(
                self.name, timeout, self._directory.describe(), writing=writing
            ) from error
        finally:
            if not steps.outcome.done():
                desk.worker.call_soon(steps.stop)
