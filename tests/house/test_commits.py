"""The rule that every commit names its issue."""

from scripts.commits import nameless


def test_commits_before_the_first_that_names_an_issue_are_let_be():
    assert nameless([("a", "start"), ("b", "more"), ("c", "first (#2)")]) == []


def test_a_commit_without_an_issue_after_that_is_named():
    log = [("a", "first (#2)"), ("b", "oops"), ("c", "Mend\n\nFor #3.")]
    assert nameless(log) == [("b", "oops")]


def test_a_hash_without_a_number_is_no_issue():
    assert nameless([("a", "x #1"), ("b", "colour #abc")]) == [("b", "colour #abc")]
