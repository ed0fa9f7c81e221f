"""Rules for the whole run: no silent skips, and nothing left running."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import pytest

from tests.support import leftovers

HERE = Path(__file__).parent


def allowed_skips() -> set[str]:
    """Test ids (without parameters) that may be skipped, from tests/allowed_skips.txt."""
    lines = (HERE / "tests" / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
    return {line.split("#", 1)[0].strip() for line in lines} - {""}


def pytest_configure(config: pytest.Config) -> None:
    # A run in a shell's background is started with Ctrl-C ignored, and so would be the programs
    # that tests interrupt. SIGTERM is as Ctrl-C, that fixtures end what they have started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if in_worker(config):
        return
    # Inherited by every process that a test starts, however far it detaches itself.
    os.environ[leftovers.MARK] = run = uuid.uuid4().hex
    leftovers.watch(run)


def in_worker(config: pytest.Config) -> bool:
    """Whether this is one of several processes with tests: its marks are those of the first."""
    return hasattr(config, "workerinput")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What may take minutes comes first, and so one after the other on one worker, while the others
    # have the rest; at the end of a run each of them would hold it up, and all at once each other.
    usual = float(config.getini("timeout"))

    def may_take_minutes(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("timeout")
        return mark is not None and mark.args[0] > usual

    items.sort(key=may_take_minutes, reverse=True)


# When xdist has ended its workers.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if in_worker(session.config):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report.nodeid for report in reporter.stats.get("skipped", [])]
    allowed = allowed_skips()
    unlisted = sorted(node for node in skipped if node.split("[", 1)[0] not in allowed)
    left = leftovers.left(os.environ[leftovers.MARK])
    session.config.stash[SUMMARY] = (len(skipped), unlisted, left)
    if (unlisted or left) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


SUMMARY = pytest.StashKey[tuple[int, list[str], list[tuple[int, str]]]]()


def pytest_unconfigure(config: pytest.Config) -> None:
    summary = config.stash.get(SUMMARY, None)
    if summary is None:
        return
    count, unlisted, left = summary
    for node in unlisted:
        print(f"skipped, and tests/allowed_skips.txt does not list it: {node}")
    for pid, command in left:
        print(f"left running by a test: {pid} {command}")
    print(f"skipped tests: {count}")
