"""The plan of each write, carried out on a node in memory."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConfigError, ConfigInvalidError
from shoal.recipes.configfollow import chosen
from shoal.recipes.confighistory import (
    KEEP,
    MAX_WHY,
    Draft,
    entries,
    entry_name,
    planned,
    revision,
    unsigned,
)


class Node:
    """A document and its history, as ZooKeeper would keep them."""

    def __init__(self):
        self.version, self.data, self.children = None, b"", {}

    def write(self, draft, keep):
        plan = planned(self.version, entries(self.children), keep)
        # What a transaction would refuse.
        assert plan.entry not in self.children
        assert set(plan.drop) <= set(self.children)
        self.version = 0 if self.version is None else self.version + 1
        assert plan.version == self.version
        self.data = draft.data
        self.children[plan.entry] = draft.entry()
        for name in plan.drop:
            del self.children[name]

    def overwrite(self, data):
        """Another tool, which knows nothing of histories."""
        if self.version is not None:
            self.version, self.data = self.version + 1, data

    def history(self):
        kept = [
            revision(each, 1.0, self.children[entry_name(each)]) for each in entries(self.children)
        ]
        if self.version is not None and all(each.version != self.version for each in kept):
            kept.append(unsigned(self.version, 1.0, self.data))
        return kept


def draft(document, why="", restores=None):
    return Draft(json.dumps(document).encode(), "ada", why, "id", restores)


WRITES = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
        ),
        st.tuples(st.just("rollback"), st.integers(min_value=0, max_value=60)),
        st.tuples(st.just("overwrite"), st.dictionaries(st.text(max_size=3), st.integers())),
    ),
    max_size=60,
)


@given(WRITES, st.integers(min_value=1, max_value=8))
def test_a_history_is_bounded_in_order_and_true_and_a_rollback_brings_a_content_back(steps, keep):
    node, written = Node(), {}
    for kind, what in steps:
        if kind == "write":
            node.write(draft(what), keep)
        elif kind == "overwrite":
            node.overwrite(json.dumps(what).encode())
        else:
            try:
                found = chosen("x", node.history(), what)
            except ConfigError:
                continue
            node.write(draft(found.document, restores=found.version), keep)
            assert json.loads(node.data) == written[what]
            assert node.history()[-1].restores == what
        if node.version is not None:
            written[node.version] = json.loads(node.data)
        kept = node.history()
        numbers = [each.version for each in kept]
        assert numbers == sorted(set(numbers))
        # One more where the latest version was written past us and has no entry.
        assert len(node.children) <= keep
        assert all(each.document == written[each.version] for each in kept)
        if kept:
            assert kept[-1].version == node.version
            # What is kept are the latest of those with entries.
            assert kept[-1].document == json.loads(node.data)


def test_the_oldest_goes_when_the_bound_is_reached_and_more_when_it_was_lowered():
    assert planned(None, ()).version == 0
    assert planned(None, ()).entry == "v0000000000"
    assert planned(40, range(9, 41), KEEP).drop == (entry_name(9),)
    assert planned(40, range(10, 41), KEEP).drop == ()
    assert planned(40, range(9, 41), 2).drop == tuple(entry_name(each) for each in range(9, 40))


def test_what_else_lies_in_a_history_is_left_alone():
    assert entries(["v0000000002", "lost+found", "v1", "v0000000001", "v0000000003.bak"]) == [1, 2]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"who": 1}', b'{"document": 3}', b"\xff"])
def test_an_entry_that_can_not_be_read_says_so_and_is_no_version_to_go_back_to(data):
    found = revision(7, 1.0, data)
    assert found.version == 7
    assert found.document is None
    assert "can't be read" in found.why


def test_what_another_tool_wrote_is_told_as_far_as_it_can_be():
    assert unsigned(3, 2.0, b'{"a": 1}').document == {"a": 1}
    assert unsigned(3, 2.0, b"[1]").document is None
    assert unsigned(3, 2.0, b"{").document is None
    assert "past shoal.Config" in unsigned(3, 2.0, b"{}").why


def test_who_and_why_are_bounded():
    with pytest.raises(ConfigInvalidError, match=f"why has {MAX_WHY + 1} characters"):
        draft({}, "x" * (MAX_WHY + 1))


def test_without_a_version_the_one_before_is_chosen():
    kept = [revision(each, 1.0, draft({"n": each}).entry()) for each in (4, 5, 9)]
    assert chosen("x", kept, None).version == 5
    assert chosen("x", kept, 4).document == {"n": 4}
    with pytest.raises(ConfigError, match=r"no version 9 to go back to: there are 4, 5"):
        chosen("x", kept, 9)
    with pytest.raises(ConfigError, match="no earlier version to go back to: there are none"):
        chosen("x", kept[:1], None)
    with pytest.raises(ConfigError, match="no earlier version"):
        chosen("x", [], None)
