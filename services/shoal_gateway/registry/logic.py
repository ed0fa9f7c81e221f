"""The registry's operations, each one transaction. No gRPC here.

A job is held under a **fence**: a number that grows with every lease, begin, cancel and lost lease.
Every write names the fence that its writer was given, and the store refuses it once the fence has
moved on. That, and not the lease's time, is what makes completion exactly once: a runner that was
paused for an hour may send what it likes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from shoal_gateway.errors import (
    InvalidError,
    NotFoundError,
    PreconditionError,
    QuotaError,
    UnavailableError,
)
from shoal_gateway.registry import (
    accounts,
    claims,
    fences,
    journal,
    queries,
    rules,
    submission,
    transitions,
)
from shoal_gateway.registry.claims import Holding, Report, Start
from shoal_gateway.registry.quotas import Quotas
from shoal_gateway.registry.rules import LEASED, QUEUED, Change
from shoal_gateway.registry.schema import jobs
from shoal_gateway.registry.store import Store
from shoal_gateway.registry.submission import Creation, Known
from shoal_protos.gateway.model.v1 import job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

# Leases that one sweep takes back; the rest waits for the next, so that no transaction is long.
SWEEP = 500


class Registry:
    """Jobs in a store. Safe for several threads, and for several processes on one store.

    Args:
        store: Where the jobs are.
        new_id: Makes the id of a new job, a UUID.
        quotas: Says the bounds of users who have none of their own.
    """

    def __init__(
        self,
        store: Store,
        *,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        quotas: Callable[[], Quotas] = Quotas,
    ) -> None:
        self._store = store
        self._new_id = new_id
        self._quotas = quotas

    def create(
        self,
        owner: str,
        key: str,
        spec: job_pb2.JobSpec,
        fingerprint: str = "",
        signed_by: str = "",
        account: str = "",
        trace_context: str = "",
    ) -> tuple[job_pb2.Job, bool]:
        """Writes a job down and queues it; the job, and whether it is new.

        Raises:
            AlreadyExistsError: the owner used the key for another request.
            QuotaError: a quota of the account is used up.
            InvalidError: there is no such account.
        """
        creation = Creation(owner, key, spec, fingerprint, signed_by, account, trace_context)
        try:
            with self._store.write() as connection:
                # Locks its user, so that a first try that is under way has come to its end.
                allowed = self._allowances(connection, [creation])
                known = submission.same_request(connection, creation)
                if known is not None:
                    return known, False
                if account and (exceeded := allowed.take(account)):
                    raise QuotaError(exceeded.quota, exceeded.said)
                allowed.note()
                job_id = self._new_id()
                submission.insert(connection, [(job_id, creation)])
                return submission.existing(connection, job_id), True
        except IntegrityError:
            # Another replica wrote the same key between our look and our insert. SQLite's write
            # lock forbids that; PostgreSQL allows it.
            with self._store.read() as connection:
                known = submission.same_request(connection, creation)
            if known is None:
                raise
            return known, False

    def _allowances(
        self, connection: sa.Connection, creations: Iterable[Creation]
    ) -> accounts.Allowances:
        names = [each.account for each in creations if each.account]
        return accounts.Allowances(connection, self._quotas(), names)

    def create_many(self, creations: Sequence[Creation], *, whole: bool = False) -> list[Known]:
        """Writes jobs down and queues them, all in one transaction; an answer for each.

        A key that stands for another request, and a quota that is used up, are said in their own
        answers; the others are written.

        Args:
            creations: The jobs.
            whole: Whether the answers bring the jobs.

        Raises:
            UnavailableError: others were writing the same keys all the while; nothing was written.
            InvalidError: there is no such account; nothing was written.
        """
        try:
            return self._create_many(creations, whole=whole)
        except IntegrityError:
            # Another replica wrote one of the keys in between, as in `create`; it is known now.
            pass
        try:
            return self._create_many(creations, whole=whole)
        except IntegrityError as error:
            raise UnavailableError(
                f"{len(creations)} jobs were not written: what is unique was taken by others, twice"
                " while this looked; submit them again under the same keys"
            ) from error

    def _create_many(self, creations: Sequence[Creation], *, whole: bool) -> list[Known]:
        answers, fresh = [], []
        with self._store.write() as connection:
            allowed = self._allowances(connection, creations)
            known = submission.known(connection, creations)
            for each in creations:
                found = known.get((each.owner, each.key))
                if found is not None:
                    answers.append(submission.answered(each, found))
                    continue
                if each.account and (exceeded := allowed.take(each.account)):
                    answers.append(Known("", "", 0, error=exceeded.said, quota=exceeded.quota))
                    continue
                job_id = self._new_id()
                fresh.append((job_id, each))
                new = Known(job_id, each.stands_for, QUEUED, account=each.account)
                # The same key again in this batch is a repeated request.
                known[each.owner, each.key] = new
                answers.append(replace(new, created=True))
            allowed.note()
            submission.insert(connection, fresh)
            if whole:
                new_ids = [job_id for job_id, _ in fresh]
                written = {each.id: each for each in queries.bare(connection, new_ids)}
                answers = [
                    replace(
                        each, job=written.get(each.id) or submission.existing(connection, each.id)
                    )
                    if each.id
                    else each
                    for each in answers
                ]
        return answers

    def get(self, job_id: str) -> tuple[job_pb2.Job, list[job_pb2.Event]]:
        """A job and its history.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._store.read() as connection:
            return submission.existing(connection, job_id), queries.history(connection, job_id)

    def page(
        self, owner: str, states: Sequence[int], size: int, token: str, account: str = ""
    ) -> tuple[list[job_pb2.Job], str]:
        """Jobs, newest first, and the token of the next page, empty on the last.

        Raises:
            InvalidError: the token is not one of ours.
        """
        if token and not (token.isascii() and token.isdigit() and len(token) < 19):
            raise InvalidError("page_token", f"{token!r} is not from a previous answer")
        with self._store.read() as connection:
            found, following = queries.page(
                connection, owner, states, size, int(token) if token else None, account
            )
        return found, "" if following is None else str(following)

    def cancel(self, job_id: str, reason: str) -> job_pb2.Job:
        """Ends a job that waits; marks one that runs, so that its runner is told.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._store.write() as connection:
            before = transitions.standing(connection, job_id)
            if before is None:
                raise submission.missing(job_id)
            change = rules.after_cancel(before, reason)
            if change is not None:
                transitions.write(connection, before, change)
            return submission.existing(connection, job_id)

    def replay(self, job_id: str) -> job_pb2.Job:
        """Puts a DEAD job back into the queue with fresh counters.

        Raises:
            NotFoundError: there is no such job.
            PreconditionError: it is not DEAD.
            QuotaError: a quota of its user is used up.
        """
        with self._store.write() as connection:
            before = transitions.standing(connection, job_id)
            if before is None:
                raise submission.missing(job_id)
            submission.replay(connection, before, self._quotas())
            return submission.existing(connection, job_id)

    def lease(
        self, scheduler: str, limit: int, seconds: float, flavors: Sequence[str]
    ) -> list[registry_pb2.Offer]:
        """Hands queued jobs to a scheduler, those that wait longest first."""
        self.sweep()
        waiting = jobs.c.state == QUEUED
        if flavors:
            waiting &= jobs.c.flavor.in_(flavors)
        # Schedulers ask all the time; asking an empty queue must not take the write lock.
        with self._store.read() as connection:
            if connection.scalar(sa.select(jobs.c.id).where(waiting).limit(1)) is None:
                return []
        with self._store.write() as connection:
            return claims.lease(connection, waiting, scheduler, limit, seconds)

    def release(
        self, offers: Sequence[tuple[str, int]], reason: str, *, keep_place: bool = False
    ) -> int:
        """Takes offers back that nobody took; how many were still held.

        Args:
            offers: Jobs and the fences that they are held under.
            reason: For the history.
            keep_place: Whether they wait where they did, or behind all that wait.
        """
        said = f"released: {reason}" if reason else "released by its scheduler"
        with self._store.write() as connection:
            transitions.lock(connection, (job_id for job_id, _ in offers))
            # Oldest first, so that they wait in the order in which they did.
            wanted = set(offers)
            held = [
                before
                for before in transitions.standings(connection, {job_id for job_id, _ in wanted})
                if (before.id, before.fence) in wanted and before.state == LEASED
            ]
            transitions.write_many(
                connection,
                [(before, Change(QUEUED, said, keep_place=keep_place), None) for before in held],
            )
        return len(held)

    def begin(self, start: Start, seconds: float) -> int:
        """LEASED → RUNNING for one runner; the fence that it holds the job under.

        Raises:
            NotFoundError: there is no such job.
            PreconditionError: the job is not this runner's; it must drop it.
        """
        try:
            with self._store.write() as connection:
                return claims.begin(connection, start, seconds)
        except IntegrityError as error:
            raise PreconditionError(
                f"runner {start.runner_id} has begun another attempt; a start needs a runner id of"
                " its own"
            ) from error

    def begin_many(self, starts: Sequence[Start], seconds: float) -> list[int | str]:
        """LEASED → RUNNING for many; for each its fence, or why its runner must drop it."""
        try:
            with self._store.write() as connection:
                transitions.lock(connection, (each.job_id for each in starts))
                return claims.begin_many(connection, starts, seconds)
        except IntegrityError:
            # One of the runner ids was used before; which one is found out one by one.
            return [self._begin_or_say(each, seconds) for each in starts]

    def _begin_or_say(self, start: Start, seconds: float) -> int | str:
        try:
            return self.begin(start, seconds)
        except (NotFoundError, PreconditionError) as error:
            return str(error)

    def renew(
        self, holdings: Sequence[Holding], seconds: float
    ) -> list[registry_pb2.RenewResponse.Item]:
        """Moves the ends of leases on and says which are lost or to be cancelled."""
        verdicts: dict[Holding, registry_pb2.RenewResponse.Item] = {}
        with self._store.write() as connection:
            for holding in sorted(set(holdings), key=lambda each: each.job_id):
                verdicts[holding] = claims.renewed(connection, holding, seconds)
        return [verdicts[holding] for holding in holdings]

    def report(self, reports: Sequence[Report]) -> list[registry_pb2.ReportResponse.Item]:
        """Writes down how attempts ended, each under its fence; answers in the order given."""
        with self._store.write() as connection:
            transitions.lock(connection, (each.job_id for each in reports))
            return claims.reported_many(connection, reports)

    def sweep(self, fence: int | None = None) -> int:
        """Takes expired leases back and fails what was not started by its deadline; how many.

        Args:
            fence: Of the leader that does it. None: nobody leads; that is safe too, for each
                expiry is a compare-and-set of its own, and only costs more when several do it.

        Raises:
            StaleFenceError: somebody else leads by now; nothing was changed.
        """
        with self._store.read() as connection:
            if not transitions.anything_due(connection):
                return 0
        swept = 0
        with self._store.write() as connection:
            if fence is not None:
                fences.enforce(connection, fences.REAPER, fence)
            for before in transitions.expired(connection, SWEEP):
                swept += transitions.write(connection, before, rules.after_expiry(before))
            late = Change(job_pb2.STATE_FAILED, "not started by its deadline", fence=1)
            for before in transitions.overdue(connection, SWEEP):
                swept += transitions.write(connection, before, late)
        return swept

    def changes(self, after: int, limit: int) -> tuple[list[job_pb2.Event], int]:
        """Events after a cursor, and the cursor behind them."""
        with self._store.read() as connection:
            return queries.changes(connection, after, limit)

    def latest(self) -> int:
        """The cursor of the present."""
        with self._store.read() as connection:
            return journal.latest(connection)

    def counts(self, owner: str) -> dict[int, int]:
        """Number of jobs by state; of all owners when none is named."""
        with self._store.read() as connection:
            return queries.counts(connection, owner)
