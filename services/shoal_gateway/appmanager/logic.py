"""The app manager: takes offers, keeps leases, and sees attempts through to their report.

No gRPC here. Three kinds of threads work on the table of runners: calls of `start`, the renewer,
and the collector, which hands ended runners to a few threads that upload and report. Functions are
the `pool`'s; they share the slots with commands. One long class, for the threads share its table
and its lock, and who holds what has to be seen in one place.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from shoal_gateway import jobtraces
from shoal_gateway.appmanager import attempt as attempts
from shoal_gateway.appmanager import telling
from shoal_gateway.appmanager.apart import Accounts, Lent, own_cache
from shoal_gateway.appmanager.attempt import Attempt, Spec
from shoal_gateway.appmanager.calls import Call
from shoal_gateway.appmanager.crew import place_of
from shoal_gateway.appmanager.endings import fault
from shoal_gateway.appmanager.finishing import Finisher
from shoal_gateway.appmanager.offers import Answer, Offer
from shoal_gateway.appmanager.pool import Pool
from shoal_gateway.appmanager.ports import (
    MANY,
    Held,
    Registry,
    RegistryAwayError,
    TakenError,
)
from shoal_gateway.appmanager.runner import Runner
from shoal_gateway.appmanager.shipping import fetch_inputs
from shoal_gateway.jobtraces import JobSpan
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

# Between uploads of what running jobs have written, seconds.
LOGS_EVERY = 0.5
# Renewals in one lease: one may be lost, and one be late.
RENEWALS = 4
# A renewer that has not come round for so much longer than a lease, seconds, hangs: a registry that
# is away costs each of its calls a third of a lease.
HANGS = 60.0
# Exit code after a defect of ours: EX_SOFTWARE of sysexits.h.
EXIT_BROKEN = 70


class AppManager:
    """Runs jobs of one flavor on one host.

    Args:
        registry: Where attempts are begun, renewed and reported.
        objects: Where inputs come from, and outputs and logs go.
        root: The host's own directory.
        flavor: The kind of jobs; managers of other flavors may share the root.
        slots: Jobs at once.
        lease: Seconds that a lease lasts without a renewal.
        leash: Seconds after which a job that no manager looks after is ended by its supervisor;
            None: `attempt.leash_of` the lease.
        python: Interpreter for ``{python}`` in commands.
        accounts: Of jobs; None: they run as the manager.
    """

    def __init__(
        self,
        registry: Registry,
        objects: ObjectStore,
        *,
        root: Path,
        flavor: str,
        slots: int,
        lease: float,
        python: str,
        leash: float | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._accounts = accounts
        self.flavor = flavor
        self.slots = slots
        self._registry = registry
        self._objects = objects
        self._root = root.absolute()
        self._attempts = self._root / "attempts" / flavor
        self._lease = lease
        self._leash = attempts.leash_of(lease) if leash is None else leash
        # Set when the renewer is not to wait any longer.
        self._hurry = threading.Event()
        self._kept_at = self._renewed_at = time.monotonic()
        self._python = python
        self._lock = threading.Lock()
        self._runners: dict[str, Runner] = {}
        self._starting = 0
        self._stopped = threading.Event()
        self._poll = select.epoll()
        place = place_of(self._root, flavor)
        self._cache = cache = self._root / "cache" / f"jobs-{flavor}"
        self._pool = Pool(
            registry,
            objects,
            root=self._root,
            place=place,
            slots=slots,
            python=python,
            environment=attempts.surroundings(place, cache),
            commands=lambda: len(self._runners) + self._starting,
            accounts=accounts,
            cache=cache,
        )
        self._finisher = Finisher(
            registry, objects, threads=max(2, slots), stopped=self._stopped, done=self._forget
        )
        self._threads = [
            threading.Thread(target=_vital, args=[work], name=name, daemon=True)
            for name, work in (("renewer", self._keep_leases), ("collector", self._collect))
        ]

    def open(self) -> None:
        """Adopts what an earlier manager left, and begins to work."""
        self._attempts.mkdir(parents=True, exist_ok=True)
        if self._accounts is not None:
            self._attempts.chmod(0o711)
        for path in attempts.found(self._attempts):
            try:
                self._adopt(path)
            except (ValueError, TypeError, KeyError) as error:
                # Its lease runs out; the host's other jobs must not wait for a person.
                logger.warning("%s is left alone: %r", path, error)
        self._pool.open(_vital)
        for thread in self._threads:
            thread.start()

    def take_lease(self, lease: float, leash: float | None) -> None:
        """Renews in time for another lease from now on; safe from any thread.

        All is renewed at once: what was begun since the change may have a lease that ends before
        the old pace would have come to it. Jobs that run keep the leash they were started with.
        """
        self._leash = attempts.leash_of(lease) if leash is None else leash
        if lease != self._lease:
            self._lease = lease
            self._hurry.set()

    def close(self) -> None:
        """Stops working; supervisors and their jobs go on, for the next manager to adopt.

        Functions have a moment to come back; then others get them.
        """
        # First, while leases are renewed.
        self._pool.close()
        self._stopped.set()
        self._hurry.set()
        for thread in self._threads:
            thread.join()
        self._finisher.close()
        # What is held of those that go on, their supervisors hold as well.
        for runner in self.running():
            runner.close()

    @property
    def free(self) -> int:
        """Slots that nothing runs in."""
        with self._lock:
            return self._free()

    def refuses(self, offers: Sequence[Offer]) -> bool:
        """Whether there is no room for any of these; if so, some is made for the commands."""
        free = self.free
        if any(self._pool.room(each) if each.function else free > 0 for each in offers):
            return False
        if not all(each.function for each in offers):
            self._pool.make_room()
        return True

    @property
    def utilisation(self) -> float:
        """Jobs running ÷ slots, at most 1: an adopted job may be one too many."""
        with self._lock:
            return min(1.0, (self.slots - self._free()) / self.slots)

    @property
    def kept_for(self) -> float:
        """Seconds since the registry last renewed all leases that were due, if any were."""
        return time.monotonic() - self._renewed_at

    def alive(self) -> bool:
        """Whether leases are kept. It does not return where a lock is held for ever."""
        with self._lock:
            return time.monotonic() - self._kept_at < self._lease + HANGS

    def running(self) -> list[Runner]:
        """Commands that run here now."""
        with self._lock:
            return list(self._runners.values())

    def calls(self) -> list[Call]:
        """Functions that run here now, or wait for a worker."""
        return self._pool.calls()

    def start(self, offers: Sequence[Offer]) -> list[Answer]:
        """Takes what there is room for.

        Each taken command runs when this returns; functions run, or wait for a worker that is
        about to be free.
        """
        answers = {each.job_id: self._take(each) for each in offers if not each.function}
        functions = []
        for offer in offers:
            if offer.function and (unable := self._unable(offer)):
                answers[offer.job_id] = Answer(offer.job_id, "unable", unable)
            elif offer.function:
                functions.append((offer, self._application(offer)))
        answers |= {each.job_id: each for each in self._pool.start(functions)}
        return [answers[offer.job_id] for offer in offers]

    def _free(self) -> int:
        return self.slots - len(self._runners) - self._starting - self._pool.busy

    def _take(self, offer: Offer) -> Answer:
        with self._lock:
            if self._stopped.is_set() or self._free() < 1:
                self._pool.make_room()
                return Answer(offer.job_id, "full", f"all {self.slots} slots are taken")
            self._starting += 1
        self._pool.made_room()
        try:
            return self._begin(offer)
        finally:
            with self._lock:
                self._starting -= 1

    def _begin(self, offer: Offer) -> Answer:
        span = jobtraces.begin(offer.trace_context)
        with jobtraces.within(span, offer.job_id, offer.attempt):
            return self._begin_in(span, offer)

    def _begin_in(self, span: JobSpan, offer: Offer) -> Answer:
        unable = self._unable(offer)
        if unable:
            return Answer(offer.job_id, "unable", unable)
        lent = None
        try:
            lent = self._accounts.lend() if self._accounts is not None else None
            attempt = Attempt.create(self._attempts, self._spec(offer, lent, span))
            if span.is_own:
                attempt.trace(span)
        except OSError as error:
            if lent is not None:
                lent.close()
            logger.warning("there is no place for attempts: %s", error)
            return Answer(offer.job_id, "unable", f"no place for the attempt: {fault(error)}")
        runner_id = attempt.spec.runner_id
        try:
            fence = self._registry.begin(offer.job_id, offer.fence, offer.attempt, runner_id)
        except TakenError as error:
            _drop(attempt, lent, span, "taken", str(error))
            return Answer(offer.job_id, "taken", str(error))
        except RegistryAwayError as error:
            # If it did begin after all, nobody renews the lease, and the job is queued again.
            logger.warning("%r can't be begun: %s", attempt, error)
            _drop(attempt, lent, span, "unable", f"the registry is away: {error}")
            return Answer(offer.job_id, "unable", "the registry is away")
        runner = Runner(attempt, fence, self._objects, lent)
        with self._lock:
            self._runners[runner_id] = runner
        try:
            attempt.claim(fence)
            fetch_inputs(offer.inputs, attempt.work, self._objects, attempt.spec.uid)
            if attempt.spec.uid:
                own_cache(self._cache, attempt.path / "cache", attempt.spec.uid)
            runner.start()
            self._poll.register(runner.handle, select.EPOLLIN)
        except (OSError, ObjectStoreError) as error:
            logger.warning("%r can't be started here: %s", attempt, error)
            return self._give_back(runner, error)
        except Exception as error:
            # Whatever it is: a runner that nobody watches would hold lease and slot for ever.
            logger.exception("%r can't be started here", attempt)
            return self._give_back(runner, error)
        logger.info("started %r", attempt)
        return Answer(offer.job_id, "started")

    def _give_back(self, runner: Runner, error: Exception) -> Answer:
        """Begun and given back: the registry queues it again, so its offer is settled."""
        runner.ended = True
        self._finisher.finish(runner, fault(error))
        return Answer(runner.attempt.spec.job_id, "taken", f"given back: {fault(error)}")

    def _unable(self, offer: Offer) -> str:
        """Why this host can't run an offer; empty when it can."""
        if offer.flavor != self.flavor:
            return f"the job is of flavor {offer.flavor}, this manager of {self.flavor}"
        application = self._application(offer)
        wanted = offer.function or any("{app}" in part for part in offer.command)
        if wanted and not application.is_dir():
            logger.warning("%s is missing, which job %s needs", application, offer.job_id)
            return f"application {offer.application} is not installed on its host"
        return ""

    def _application(self, offer: Offer) -> Path:
        return self._root / "apps" / offer.application.partition("@")[0]

    def _spec(self, offer: Offer, lent: Lent | None, span: JobSpan) -> Spec:
        runner_id = str(uuid.uuid4())
        places = {"{python}": self._python, "{app}": str(self._application(offer))}
        command = []
        for part in offer.command:
            filled = part
            for placeholder, value in places.items():
                filled = filled.replace(placeholder, value)
            command.append(filled)
        place = self._attempts / f"{offer.job_id}.{offer.attempt}.{runner_id}"
        work, cache = place / "work", self._cache if lent is None else place / "cache"
        return Spec(
            job_id=offer.job_id,
            attempt=offer.attempt,
            runner_id=runner_id,
            command=tuple(command),
            environment=attempts.environment(
                offer.job_id, offer.attempt, runner_id, work, cache, span.own
            ),
            outputs=offer.outputs,
            wall_seconds=offer.wall_seconds,
            memory_mib=offer.memory_mib,
            ledger=str(self._root / "ledger.jsonl"),
            leash_seconds=self._leash,
            uid=0 if lent is None else lent.uid,
            processes=0 if self._accounts is None else self._accounts.processes,
        )

    def _adopt(self, path: Path) -> None:
        attempt = Attempt.load(path)
        fence = attempt.fence
        if fence is None:
            # Never begun as far as anyone knows; the lease of the offer runs out by itself.
            _drop(attempt, None, attempt.span, "unknown", "its manager died as it was begun")
            return
        runner = Runner(attempt, fence, self._objects)
        attempt.look_after()
        lives, end = runner.adopt(), attempt.exit
        self._runners[attempt.spec.runner_id] = runner
        if lives:
            self._poll.register(runner.handle, select.EPOLLIN)
            logger.info("adopted %r", attempt)
        elif end is not None:
            self._finisher.finish(runner)
        else:
            # The supervisor died while no manager lived: the host's fault, not the job's.
            self._finisher.finish(runner, "its supervisor and its manager died")

    def _keep_leases(self) -> None:
        while True:
            self._kept_at = time.monotonic()
            self._hurry.wait(self._lease / RENEWALS)
            # Before anything is looked at: who sets it from here on is heard in the next round.
            self._hurry.clear()
            if self._stopped.is_set():
                return
            runners = self.running()
            for runner in runners:
                # Whatever is heard of their leases: a store that stands still lets none run out.
                runner.attempt.look_after()
            # Most calls are over before their lease needs any care.
            old = time.monotonic() - self._lease / (2 * RENEWALS)
            held: list[Runner | Call] = [
                *runners,
                *(call for call in self._pool.calls() if call.since < old),
            ]
            # Each part is tried, also after one that failed.
            renewed = [self._renew(held[at : at + MANY]) for at in range(0, len(held), MANY)]
            if all(renewed):
                self._renewed_at = time.monotonic()

    def _renew(self, holders: Sequence[Runner | Call]) -> bool:
        """Whether the registry was there."""
        try:
            verdicts = self._registry.renew([holder.lease for holder in holders])
        except RegistryAwayError as error:
            logger.warning("leases could not be renewed: %s", error)
            return False
        for holder, (held, fence) in zip(holders, verdicts, strict=True):
            if held is Held.CANCEL:
                holder.cancel(fence)
            elif held is Held.LOST and not holder.ended:
                logger.warning("lost %r to somebody else; ending it here", holder)
                holder.disown()
        return True

    def _collect(self) -> None:
        while not self._stopped.is_set():
            ready = {handle for handle, _ in self._poll.poll(LOGS_EVERY)}
            for runner in self.running():
                if runner.handle in ready:
                    self._poll.unregister(runner.handle)
                    runner.note_end()
                    self._finisher.finish(runner)
                elif not runner.ended:
                    runner.ship_logs()

    def _forget(self, runner: Runner) -> None:
        runner.attempt.remove()
        with self._lock:
            self._runners.pop(runner.attempt.spec.runner_id, None)
        runner.close()
        self._pool.wake()


def _drop(attempt: Attempt, lent: Lent | None, span: JobSpan, outcome: str, why: str) -> None:
    """It was not begun; but asked for, under its span."""
    telling.let_go(span, attempt.spec.who, outcome, why)
    attempt.remove()
    if lent is not None:
        lent.close()


def _vital(work: Callable[[], None]) -> None:
    """Runs what a manager can't be without.

    One that renews leases and collects no ends would hold its jobs for ever. Its own end is cheap:
    supervisors go on, and the next manager adopts them, or the leases run out.
    """
    try:
        work()
    except BaseException:
        logger.critical("an app manager can't go on without this thread", exc_info=True)
        logging.shutdown()
        os._exit(EXIT_BROKEN)
