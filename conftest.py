"""Rules for the whole run: no silent skips, and nothing left running."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MARK = "SHOAL_TEST_RUN"


def allowed_skips() -> set[str]:
    """Test ids (without parameters) that may be skipped, from tests/allowed_skips.txt."""
    lines = (HERE / "tests" / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
    return {line.split("#", 1)[0].strip() for line in lines} - {""}


def processes_of(run: str) -> Iterator[tuple[int, str]]:
    """Processes that carry this run's mark in their environment, this one left out."""
    needle = f"{MARK}={run}".encode()
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit() or int(proc.name) == os.getpid():
            continue
        try:
            if needle in (proc / "environ").read_bytes().split(b"\0"):
                command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                # A zombie has no command line; it waits for its parent and runs nothing.
                if command:
                    yield int(proc.name), command
        except OSError:
            # It ended while we looked, or belongs to somebody else.
            continue


def pytest_configure(config: pytest.Config) -> None:
    # Inherited by every process that a test starts, however far it detaches itself.
    os.environ[MARK] = uuid.uuid4().hex
    # A run in a shell's background is started with Ctrl-C ignored, and so would be the programs
    # that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report.nodeid for report in reporter.stats.get("skipped", [])]
    allowed = allowed_skips()
    unlisted = sorted(node for node in skipped if node.split("[", 1)[0] not in allowed)
    leftovers = sorted(processes_of(os.environ[MARK]))
    session.config.stash[SUMMARY] = (len(skipped), unlisted, leftovers)
    if (unlisted or leftovers) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


SUMMARY = pytest.StashKey[tuple[int, list[str], list[tuple[int, str]]]]()


def pytest_unconfigure(config: pytest.Config) -> None:
    summary = config.stash.get(SUMMARY, None)
    if summary is None:
        return
    count, unlisted, leftovers = summary
    for node in unlisted:
        print(f"skipped, and tests/allowed_skips.txt does not list it: {node}")
    for pid, command in leftovers:
        print(f"left running by a test: {pid} {command}")
    print(f"skipped tests: {count}")
