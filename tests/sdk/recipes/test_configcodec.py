"""What may be written, and what is made of what is read."""

import json
import math
import subprocess
import sys

import pytest
from pydantic import BaseModel, Field, computed_field, field_serializer, model_validator

from shoal.errors import ConfigInvalidError
from shoal.recipes.configcodec import LIMIT, Anything, Codec, merged


class Retry(BaseModel):
    attempts: int = Field(default=3, ge=1)
    backoff: float = 0.5


class Limits(BaseModel):
    calls: int = Field(default=64, ge=1)
    note: str = ""
    retry: Retry = Retry()

    @computed_field
    def doubled(self) -> int:
        return 2 * self.calls


class Newer(Limits):
    colour: str = "red"


CODEC = Codec("limits", Limits)


def test_what_is_not_set_stays_unset_and_takes_the_default_of_its_reader():
    data = CODEC.write(Limits(calls=7))
    assert json.loads(data) == {"calls": 7}
    assert CODEC.read(data) == Limits(calls=7)
    assert CODEC.read(b"{}") == Limits()
    assert json.loads(CODEC.write({"retry": {"attempts": 4}})) == {"retry": {"attempts": 4}}


def test_a_process_has_defaults_of_its_own_below_the_document():
    codec = Codec("limits", Limits, Limits(calls=5, retry=Retry(backoff=2.0)))
    assert codec.defaults == Limits(calls=5, retry=Retry(backoff=2.0))
    assert codec.read(b'{"retry": {"attempts": 9}}').retry == Retry(attempts=9, backoff=2.0)
    assert codec.read(b'{"calls": 6}').calls == 6
    # They are this process's own, and not written for the others.
    assert json.loads(codec.write({"note": "x"})) == {"note": "x"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"calls": 0}, r"limits.*calls: input should be greater.*\(it is 0\)"),
        ({"calls": "many"}, "calls: "),
        ({"call": 1}, "call: no such field"),
        ({"retry": {"attempt": 1}}, "retry.attempt: no such field"),
        ({"retry": {"attempts": 0}}, "retry.attempts: "),
        ({"note": object()}, "can't be written as JSON"),
        ({"retry": {"backoff": math.inf}}, "can't be written as JSON"),
        ({"note": "x" * LIMIT}, rf"may have {LIMIT}"),
        (Newer(colour="blue"), "colour: no such field"),
        (Limits.model_construct(calls=-1), "calls: "),
    ],
)
def test_what_is_not_valid_is_not_written(content, said):
    with pytest.raises(ConfigInvalidError, match=said):
        CODEC.write(content)


def test_a_field_of_newer_code_is_passed_over_by_older_code_at_any_depth():
    data = Codec("limits", Newer).write(Newer(colour="blue", calls=2))
    assert CODEC.read(data) == Limits(calls=2)
    assert CODEC.read(b'{"retry": {"attempts": 2, "jitter": 1}}').retry.attempts == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[1]", "must be a JSON object, not list"),
        (b'{"calls": -1}', "calls: "),
        (b'{"note": "' + b"x" * LIMIT + b'"}', "keep large things elsewhere"),
    ],
)
def test_what_can_not_be_used_is_not_read(data, said):
    with pytest.raises(ConfigInvalidError, match=said):
        CODEC.read(data)


def test_a_model_that_does_not_come_back_as_it_was_is_refused():
    class Lossy(BaseModel):
        at: float = 0.0

        @field_serializer("at")
        def rounded(self, at: float) -> int:
            return round(at)

    with pytest.raises(ConfigInvalidError, match="serialisers of Lossy"):
        Codec("lossy", Lossy).write(Lossy(at=1.5))


def test_a_model_that_is_never_valid_without_a_document_is_refused_at_once():
    class Wants(BaseModel):
        address: str

    with pytest.raises(ConfigInvalidError, match=r"address: field required"):
        Codec("wants", Wants)
    Codec("wants", Wants, Wants(address="x"))


def test_what_a_writer_could_not_read_with_its_own_defaults_it_does_not_write():
    class Ordered(BaseModel):
        low: int = 0
        high: int = 10

        @model_validator(mode="after")
        def ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    with pytest.raises(ConfigInvalidError, match="low is above high"):
        Codec("ordered", Ordered, Ordered(high=3)).write({"low": 5})


def test_without_a_model_any_object_will_do():
    codec = Codec("any", Anything)
    assert codec.defaults.root == {}
    assert codec.read(codec.write({"a": [1, None, {"b": "ü"}]})).root == {
        "a": [1, None, {"b": "ü"}]
    }


def test_objects_are_merged_and_everything_else_replaced():
    below = {"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}, "c": 1}
    assert merged(below, {"a": {"y": [3]}, "b": None, "d": {}}) == {
        "a": {"x": 1, "y": [3]},
        "b": None,
        "c": 1,
        "d": {},
    }
    assert below["a"] == {"x": 1, "y": [1, 2]}


def test_the_bare_sdk_does_not_need_pydantic_and_says_who_does():
    code = """
import sys
sys.modules["pydantic"] = None
import shoal, shoal.aio, shoal.recipes
for package in (shoal, shoal.aio):
    try:
        package.Config
    except ModuleNotFoundError as error:
        assert "shoal[config]" in str(error), error
    else:
        raise AssertionError("it was imported")
assert "shoal.recipes.configcodec" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
