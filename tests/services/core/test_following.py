"""What a change of a document does to channels, servers and loops."""

import threading
import time

import pytest
from pydantic import ValidationError

from shoal.admission import Admission
from shoal.retry import Retry, changeable
from shoal_balancer import FixedLimit, RetryBudget
from shoal_gateway import following, tunables


class FakeChannel:
    def __init__(self, retry):
        self.retry = retry

    def retune(self, retry):
        self.retry = changeable(self.retry, retry)


def budget():
    return RetryBudget(clock=time.monotonic, lock=threading.Lock())


def test_without_a_document_everything_is_as_the_code_has_it():
    mine = budget()
    channel = FakeChannel(Retry(budget=mine))
    following.retune(channel, tunables.Retry())
    assert channel.retry == Retry()
    assert (mine.ratio, mine.per_second) == (budget().ratio, budget().per_second)
    admission = Admission(following.UNLIMITED)
    following.limit(admission, None)
    assert admission.limiter is following.UNLIMITED
    assert tunables.Api() == tunables.Api.model_validate({})


def test_a_channel_and_its_budget_retry_as_the_document_says():
    mine = budget()
    channel = FakeChannel(Retry(budget=mine, attempt_timeout=4.0))
    wanted = tunables.Retry(attempts=5, backoff=0.2, budget_ratio=0.0, budget_per_second=0.1)
    following.retune(channel, wanted)
    assert channel.retry.attempts == 5
    assert channel.retry.backoff == 0.2
    assert channel.retry.attempt_timeout == 4.0
    assert channel.retry.budget is mine
    assert (mine.ratio, mine.per_second) == (0.0, 0.1)
    assert mine.withdraw()
    assert not mine.withdraw()
    with pytest.raises(ValueError, match="without retries"):
        following.retune(FakeChannel(None), wanted)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, Retry(), "on or off"),
        (Retry(), None, "on or off"),
        (Retry(), Retry(attempt_timeout=1.0), "not come or go"),
        (Retry(), Retry(safe=["/a/b"]), "safe methods"),
        (Retry(), Retry(budget=budget()), "its budget"),
    ],
)
def test_what_methods_were_bound_by_does_not_change(before, after, said):
    with pytest.raises(ValueError, match=said):
        changeable(before, after)
    assert changeable(None, None) is None


def test_a_server_takes_another_limit_while_calls_are_in():
    admission = Admission(following.UNLIMITED)
    tickets = [admission.try_enter() for _ in range(3)]
    following.limit(admission, 3)
    assert admission.limiter == FixedLimit(3)
    assert admission.try_enter() is None
    admission.leave(tickets.pop())
    assert admission.try_enter() is not None
    following.limit(admission, None)
    assert admission.try_enter() is not None
    with pytest.raises(ValueError, match="without a limit"):
        following.limit(None, 3)


@pytest.mark.parametrize("model", tunables.DOCUMENTS.values(), ids=tunables.DOCUMENTS)
def test_every_field_has_a_default_and_says_what_it_is(model):
    assert model() == model.model_validate({})
    for name, field in model.model_fields.items():
        assert field.description, name


def test_bounds_are_held_together():
    with pytest.raises(ValidationError, match="above max_backoff"):
        tunables.Retry(backoff=2.0)
    with pytest.raises(ValidationError, match="must be longer than lease"):
        tunables.AppManager(lease=30.0, leash=20.0)
