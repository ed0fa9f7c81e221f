"""Offers go where room is."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest

from shoal_balancer import Balancer, Replica
from shoal_gateway.scheduler.policy import ByRoom


@pytest.fixture
def replicas():
    return [Replica(f"appmanager-{n}", "127.0.0.1", 1000 + n, flavor="local") for n in range(4)]


def balancer(policy, replicas, now=100.0):
    made = Balancer(
        policy,
        connect=lambda replica: replica.id,
        clock=lambda: now,
        rng=random.Random(7),
        lock=nullcontext(),
    )
    made.update(replicas)
    return made


def test_the_emptiest_is_picked(replicas):
    policy = ByRoom()
    for replica, utilisation in zip(replicas, [1.0, 0.5, 0.25, 1.0], strict=True):
        policy.said(replica, utilisation, 100.0)
    picked = balancer(policy, replicas)
    assert {picked.pick(100.0).replica.id for _ in range(50)} == {"appmanager-2"}


def test_ties_are_broken_at_random(replicas):
    picked = balancer(ByRoom(), replicas)
    assert len({picked.pick(100.0).replica.id for _ in range(200)}) == 4


def test_an_offer_that_is_out_counts_as_a_full_manager(replicas):
    policy = ByRoom()
    picked = balancer(policy, replicas)
    for _ in range(4):
        picked.pick(100.0).begin()
    assert sorted(node.in_flight for node in picked.snapshot.nodes) == [1, 1, 1, 1]


def test_what_was_said_is_forgotten(replicas):
    policy = ByRoom(forget=1.0)
    policy.said(replicas[0], 1.0, 90.0)
    policy.said(replicas[1], 0.4, 100.0)
    picked = balancer(policy, replicas[:2])
    assert picked.pick(100.0).replica.id == "appmanager-0"
