"""Schedulers that die between a lease and the record of its start: no job is lost, none doubled.

Where the victim stands when it dies is arranged with real processes that stand still, not guessed.
"""

import random
import socket

import pytest

import shoal
from shoal_protos.gateway.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from tests.support.hosts import DEADLINE, hosts
from tests.support.waiting import eventually

__all__ = ["hosts"]

ROUNDS = 3
# Seconds that an offer may take: what is left by the dead waits so long. A manager is given a
# quarter of it to answer.
LEASE = 8.0
QUICK = "open('x', 'w').write('done')"


def scheduler(hosts, number):
    return hosts.start("scheduler", number, "--lease", str(LEASE), "--poll", "0.1")


def submit(hosts):
    return hosts.submit(QUICK, outputs=["x"])


def status(hosts, name):
    """What a scheduler says of itself."""
    with hosts.directory.channel("scheduler", filter=lambda replica: replica.id == name) as channel:
        stub = scheduler_pb2_grpc.SchedulerStub(channel)
        request = scheduler_pb2.StatusRequest()
        return stub.Status(request, timeout=DEADLINE, wait_for_ready=True)


def stopped_with(hosts, name, job_id):
    """Stops a scheduler where it has leased a job and got no answer from a manager."""

    def caught():
        if not status(hosts, name).on_offer:
            return False
        hosts.pause(name)
        if hosts.state(job_id) == "LEASED":
            return True
        # It had given the job back just before; it will lease it again.
        hosts.resume(name)
        return False

    eventually(caught, DEADLINE, f"{name} with a job on offer")


def each_once(hosts, jobs):
    """Every job was started once, and has one result."""
    for job_id in jobs:
        job = hosts.reaches(job_id, "SUCCEEDED")
        assert [each.outcome for each in job.attempts].count("succeeded") == 1
        assert job.toxic_losses == 0
        assert hosts.content(job, "x") == b"done"
        assert len(hosts.starts(job_id)) == 1
    eventually(
        lambda: sum(each["event"] == "published" for each in hosts.ledger()) == len(jobs),
        what="the hosts' own word for each result",
    )


def test_schedulers_that_die_after_the_lease_and_before_the_start(hosts):
    # A manager that can be connected to and says nothing: no Start gets as far as the wire.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(DEADLINE)
        replica = shoal.Replica("mute", *mute.getsockname(), flavor="local")
        announced = hosts.directory.announce("appmanager", replica)
        jobs = []
        for number in range(ROUNDS):
            jobs.append(submit(hosts))
            victim = scheduler(hosts, number)
            connection, _ = mute.accept()
            with connection:
                stopped_with(hosts, victim, jobs[-1])
                hosts.kill(victim)
        announced.withdraw()
    hosts.manager(lease=30.0)
    scheduler(hosts, ROUNDS)
    each_once(hosts, jobs)


@pytest.mark.parametrize("point", ["unread", "at begin", "unanswered"])
def test_schedulers_that_die_after_the_start_was_sent_and_before_its_answer(hosts, point):
    manager = hosts.manager(lease=30.0)
    place = hosts.host(1) / "attempts" / "local"
    jobs = []
    for number in range(ROUNDS):
        victim = scheduler(hosts, number)
        # Through it, so that it has a connection to the manager, that takes a Start at once.
        warm = submit(hosts)
        hosts.reaches(warm, "SUCCEEDED")
        eventually(lambda: not any(place.iterdir()), what="an idle manager")
        hosts.pause(manager)
        job_id = submit(hosts)
        jobs += [warm, job_id]
        stopped_with(hosts, victim, job_id)
        if point == "unread":
            # The manager finds the request of a dead scheduler when it wakes.
            hosts.kill(victim)
            hosts.resume(manager)
            continue
        hosts.pause("registry-1")
        hosts.resume(manager)
        eventually(lambda: any(place.iterdir()), DEADLINE, "the manager at its Begin")
        if point == "at begin":
            hosts.kill(victim)
            hosts.resume("registry-1")
            continue
        hosts.resume("registry-1")
        # The answer is there, and the scheduler dies without having read it.
        hosts.reaches(job_id, "SUCCEEDED")
        hosts.kill(victim)
    scheduler(hosts, ROUNDS)
    each_once(hosts, jobs)


def test_schedulers_share_the_work_and_die_at_any_moment(hosts):
    rng = random.Random(4)
    for number in (1, 2):
        hosts.manager(number, lease=30.0)
    names = [scheduler(hosts, number) for number in range(3)]
    jobs = []
    for _ in range(6):
        jobs += [submit(hosts) for _ in range(10)]
        # After so many ends: a moment of the work's, not of the clock's.
        wanted = rng.randint(len(jobs) - 9, len(jobs) - 1)
        eventually(
            lambda wanted=wanted: (
                sum(each["event"] == "published" for each in hosts.ledger()) >= wanted
            ),
            DEADLINE,
            "the next moment",
        )
        victim = rng.choice(names)
        hosts.kill(victim)
        scheduler(hosts, int(victim.rpartition("-")[2]))

    def all_have_leased():
        jobs.append(submit(hosts))
        hosts.reaches(jobs[-1], "SUCCEEDED")
        return all(status(hosts, name).leased for name in names)

    eventually(all_have_leased, DEADLINE, "work for each scheduler")
    each_once(hosts, jobs)
