"""Warm workers for functions: calls wait here, are made, and go on to their report.

One thread owns the workers. Other threads hand it calls, and tell it to look by a descriptor that
it polls together with the workers' sockets. What takes time (inputs, outputs, logs, the dead) is
done on a few threads beside it. The processes are the crew's, the calls are the table's.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shoal_gateway import jobtraces
from shoal_gateway.appmanager import endings, supervisor, telling, worker
from shoal_gateway.appmanager.apart import Accounts
from shoal_gateway.appmanager.calls import Call
from shoal_gateway.appmanager.crew import Crew, bury_others
from shoal_gateway.appmanager.endings import Files
from shoal_gateway.appmanager.ledger import Ledger
from shoal_gateway.appmanager.offers import Answer, Offer
from shoal_gateway.appmanager.ports import Beginning, Registry, RegistryAwayError, Result
from shoal_gateway.appmanager.reporter import Reporter
from shoal_gateway.appmanager.table import Table
from shoal_gateway.appmanager.workers import Said, Worker
from shoal_gateway.objectstore import ObjectStore

logger = logging.getLogger(__name__)

# Seconds between looks at limits and logs of what runs.
LOOK = 0.25
# Seconds that a call waits for a worker before another manager gets it.
PATIENCE = 5.0
# Seconds that calls have to end when the manager leaves, and reports to get through.
GRACE = 5.0

LEAVES = "its manager leaves"


class Pool:
    """Calls functions for one manager.

    Args:
        registry: Where attempts are begun and reported.
        objects: Where inputs come from, and outputs and logs go.
        root: The host's own directory.
        place: Where workers have theirs; this manager's own.
        slots: Workers.
        python: The flavor's interpreter.
        environment: Of workers.
        commands: How many slots commands take now.
        accounts: Of workers; None: they are the manager's.
        cache: What workers' own begin as, where they have accounts.
    """

    def __init__(
        self,
        registry: Registry,
        objects: ObjectStore,
        *,
        root: Path,
        place: Path,
        slots: int,
        python: str,
        environment: Mapping[str, str],
        commands: Callable[[], int],
        accounts: Accounts | None = None,
        cache: Path | None = None,
    ) -> None:
        self._registry = registry
        self._stopped = threading.Event()
        self._files = Files(objects, self._stopped)
        self._place = place
        self._ledger = Ledger(root / "ledger.jsonl")
        self._table = Table(slots, commands, self._ledger.path)
        self._reporter = Reporter(registry, self._ledger, self._table.reported)
        # What other threads want done on the pool's.
        self._errands: deque[Callable[[], None]] = deque()
        self._crew = Crew(python, place, environment, slots, accounts, cache)
        self._looked = 0.0
        self._leaving = False
        self._emptied = threading.Event()
        self._ended = False
        self._helpers = ThreadPoolExecutor(max(2, slots), thread_name_prefix="call files")
        self._threads: list[threading.Thread] = []

    def open(self, vital: Callable[[Callable[[], None]], None]) -> None:
        """Starts the workers.

        Args:
            vital: Runs what the manager can't be without.
        """
        bury_others(self._place.parent)
        self._threads = [
            threading.Thread(target=vital, args=[work], name=name, daemon=True)
            for name, work in (("pool", self._run), ("call reports", self._reporter.run))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Gives back what waits, lets what runs come to its end for a moment, and ends."""
        self._errand(self._leave)
        self._emptied.wait(GRACE)
        self._errand(self._end)
        pool, reports = self._threads
        pool.join()
        self._stopped.set()
        self._helpers.shutdown()
        self._reporter.close()
        reports.join(GRACE)
        self._crew.close()
        self._ledger.close()

    @property
    def busy(self) -> int:
        """Calls that run or wait."""
        return self._table.busy

    def calls(self) -> list[Call]:
        """Calls that were begun and are not reported."""
        return self._table.held()

    def wake(self) -> None:
        """Looks now: a slot may have become free, or a call is to be ended."""
        self._crew.wake()

    def room(self, offer: Offer) -> bool:
        """Whether an offer may be taken now."""
        return self._table.room(offer)

    def make_room(self) -> None:
        """A command found no slot: the next one that is free is kept for it, for a while."""
        self._table.make_room()

    def made_room(self) -> None:
        """A command has found its slot."""
        self._table.made_room()

    def start(self, offers: Sequence[tuple[Offer, Path]]) -> list[Answer]:
        """Takes what there is room for, with their applications' directories."""
        taken, full = self._table.take(offers)
        answers = {each.job_id: each for each in full}
        answers |= self._begin(taken)
        return [answers[offer.job_id] for offer, _ in offers]

    def _begin(self, calls: Sequence[Call]) -> dict[str, Answer]:
        if not calls:
            return {}
        beginnings = [
            Beginning(call.offer.job_id, call.offer.fence, call.offer.attempt, call.runner_id)
            for call in calls
        ]
        answers, begun = {}, []
        try:
            with jobtraces.within(calls[0].span if len(calls) == 1 else jobtraces.NONE):
                fences = self._registry.begin_many(beginnings)
        except RegistryAwayError as error:
            # If it did begin some, nobody renews their leases, and they are queued again.
            logger.warning("%d calls can't be begun: %s", len(calls), error)
            for call in calls:
                self._forget(call, "unable", f"the registry is away: {error}")
            said = "the registry is away"
            return {each.job_id: Answer(each.job_id, "unable", said) for each in beginnings}
        except BaseException as error:
            for call in calls:
                self._forget(call, "unable", repr(error))
            raise
        for call, fence in zip(calls, fences, strict=True):
            if isinstance(fence, str):
                self._forget(call, "taken", fence)
                answers[call.offer.job_id] = Answer(call.offer.job_id, "taken", fence)
                continue
            call.fence = fence
            begun.append(call)
            answers[call.offer.job_id] = Answer(call.offer.job_id, "started")
        self._table.enqueue(begun)
        self.wake()
        return answers

    def _forget(self, call: Call, outcome: str, why: str) -> None:
        self._table.forget(call)
        telling.let_go(call.span, call.who, outcome, why)

    # What follows runs on the pool's thread, unless it says otherwise.

    def _run(self) -> None:
        while not self._ended:
            for speaker, ended in self._crew.wait(LOOK):
                # One look may bring both a worker's last words and its end.
                if self._crew.has(speaker):
                    self._hear(speaker, ended=ended)
            while self._errands:
                self._errands.popleft()()
            now = time.monotonic()
            if now - self._looked >= LOOK:
                self._looked = now
                self._look(now)
            if not self._leaving:
                self._crew.fill(now)
            self._dispatch(now)
            if self._leaving and not self._table.busy:
                self._emptied.set()
        for each in self._crew.all():
            each.kill(LEAVES)
            self._crew.bury(each)

    def _hear(self, speaker: Worker, *, ended: bool) -> None:
        """What a worker says; the last words of one that has ended come first."""
        answers, silent = speaker.hear()
        for answer in answers:
            if answer.code is None:
                speaker.ready = True
            elif speaker.call is not None and not speaker.call.ended:
                self._answered(speaker, speaker.call, answer.code, answer)
        # The socket of one that has ended may be held open by a process that it left.
        if ended or silent:
            self._died(speaker)

    def _answered(self, speaker: Worker, call: Call, code: int, said: Said) -> None:
        """A call came back. Its worker is free at once, unless something is to be fetched."""
        now = time.monotonic()
        self._ledger.write([{**call.who, **endings.line(speaker.pid, code, supervisor.EXITED)}])
        if call.called is not None:
            self._table.returned(call, now - call.called)
        self._table.close(call)
        if said.left or call.offer.outputs or call.offer.inputs or call.cancelled:
            self._help(self._fetch, speaker, call, code, said.reason, said.retire)
            return
        speaker.call = None
        self._reporter.put(call, endings.of_code(call, code, said.reason))
        if said.retire:
            speaker.kill("something of a call goes on in it")

    def _fetch(self, speaker: Worker, call: Call, code: int, reason: str, retire: bool) -> None:
        """Stores what a call has left, then frees its worker. On a helper's thread."""
        try:
            result = self._files.stored(call, speaker.directory, code, reason, speaker.uid)
            self._settle(call, result)
            if not retire:
                worker.clear(speaker.directory)
        except OSError as error:
            logger.warning("%r has no clean place any more: %s", speaker, error)
            retire = True
        self._errand(lambda: self._freed(speaker, retire))

    def _freed(self, speaker: Worker, retire: bool) -> None:
        speaker.call = None
        if speaker.fileno() < 0:
            shutil.rmtree(speaker.directory, ignore_errors=True)
        elif retire:
            speaker.kill("something of a call goes on in it")

    def _died(self, dead: Worker) -> None:
        code = self._crew.bury(dead)
        call = dead.call
        if call is None:
            shutil.rmtree(dead.directory, ignore_errors=True)
        elif not call.ended:
            cause, result = endings.of_death(call, dead.doomed, code)
            self._ledger.write([{**call.who, **endings.line(dead.pid, code, cause)}])
            logger.info("%r ended with its worker: %s", call, cause)
            self._table.close(call)
            self._help(self._bury, dead, call, result)

    def _bury(self, dead: Worker, call: Call, result: Result | None) -> None:
        """Sees to what is left of a call whose worker died. On a helper's thread."""
        self._files.last_logs(call, dead.directory)
        shutil.rmtree(dead.directory, ignore_errors=True)
        self._settle(call, result)

    def _look(self, now: float) -> None:
        """Limits, wishes and logs of what runs; patience of what waits."""
        for each in self._crew.all():
            call = each.call
            if call is None or call.ended:
                continue
            why = endings.must_end(call, now)
            if why:
                each.kill(why)
            elif call.called is not None and now - call.called > LOOK:
                self._help(self._files.logs_so_far, call, each.directory)
        for call in self._table.waiting():
            if call.cancelled or call.lost:
                self._drop(call, endings.unmade(call))
            elif now - call.since > PATIENCE:
                self._drop(call, endings.given_back(call, f"no worker for {PATIENCE:g} s"))

    def _dispatch(self, now: float) -> None:
        """Gives calls to workers that have nothing to do, each noted before it is made."""
        idle = [each for each in self._crew.all() if each.ready and not each.doomed]
        running = sum(each.call is not None for each in idle)
        given: list[tuple[Worker, Call]] = []
        for each in idle:
            if each.call is not None:
                continue
            if running + len(given) >= self._table.slots:
                break
            call = self._next()
            if call is None:
                break
            each.call, call.called, call.pid = call, now, each.pid
            self._table.called(call, now)
            given.append((each, call))
        self._ledger.write({**call.who, "event": "start", "pid": each.pid} for each, call in given)
        for each, call in given:
            if call.offer.inputs:
                self._help(self._prepare, each, call)
            else:
                each.send(call.message())

    def _next(self) -> Call | None:
        """The call that waits longest and is still wanted."""
        while (call := self._table.next()) is not None:
            if not (call.cancelled or call.lost):
                return call
            self._over(call, endings.unmade(call))
        return None

    def _prepare(self, each: Worker, call: Call) -> None:
        """Fetches inputs, then hands the call over. On a helper's thread."""
        failure = self._files.fetched(call, each.directory, each.uid)
        if not failure:
            self._errand(lambda: each.send(call.message()))
            return

        def give_back() -> None:
            if not call.ended:
                line = endings.line(each.pid, 0, supervisor.KILLED)
                self._ledger.write([{**call.who, **line}])
                self._over(call, endings.given_back(call, failure))
                each.kill(failure)

        self._errand(give_back)

    def _drop(self, call: Call, result: Result | None) -> None:
        if self._table.withdraw(call):
            self._over(call, result)

    def _leave(self) -> None:
        self._leaving = True
        self._table.shut()
        for call in self._table.waiting():
            self._drop(call, endings.given_back(call, LEAVES))

    def _end(self) -> None:
        for each in self._crew.all():
            if each.call is not None and not each.call.ended:
                each.kill(LEAVES)
                self._died(each)
        self._ended = True

    # From any thread.

    def _over(self, call: Call, result: Result | None) -> None:
        """It has ended, and nothing of it is to be fetched."""
        self._table.close(call)
        self._settle(call, result)

    def _settle(self, call: Call, result: Result | None) -> None:
        if result is None:
            telling.let_go(call.span, call.who, "lost", endings.LOST)
            self._table.reported(call)
        else:
            self._reporter.put(call, result)

    def _errand(self, work: Callable[[], None]) -> None:
        self._errands.append(work)
        self.wake()

    def _help(self, work: Callable[..., None], *arguments: Any) -> None:
        self._helpers.submit(self._helped, work, *arguments)

    def _helped(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception:
            # In a pool nobody would hear of it; the call's lease is renewed until someone looks.
            logger.exception("%s of %r failed", work.__name__, arguments)
