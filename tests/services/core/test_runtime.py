"""The command line that the services share."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from shoal_gateway import runtime


def parse(*arguments):
    parser = runtime.parser("registry", "A store.", "\n  python -m …\n")
    return runtime.common_options(parser.parse_args(["--zookeeper", "zk:2181/g", *arguments]))


def test_defaults_fit_a_replica_on_this_machine():
    options = parse()
    assert options.bind == "127.0.0.1:0"
    assert options.cache is None
    assert len(options.id) == 36
    assert parse().id != options.id
    assert options.version == runtime.installed_version()


def test_what_a_replica_says_of_itself():
    options = parse("--id", "registry-1", "--host", "host-1", "--zone", "a", "--version", "2")
    assert options.identity() == {
        "id": "registry-1",
        "version": "2",
        "zone": "a",
        "host": "host-1",
    }


def test_a_log_line_has_time_level_logger_and_message(capsys):
    before = logging.root.handlers[:], logging.root.level
    try:
        runtime.configure_logging("INFO")
        logging.getLogger("shoal.test").info("hello %s", "there")
    finally:
        logging.root.handlers[:], level = before
        logging.root.setLevel(level)
    line = capsys.readouterr().err.strip()
    time, level, name, message = line.split(" ", 3)
    assert (level, name, message) == ("INFO", "shoal.test", "hello there")
    assert "T" in time


@pytest.mark.parametrize("service", ["registry", "api", "scheduler"])
def test_help_shows_examples(service):
    done = subprocess.run(
        [sys.executable, "-m", f"shoal_gateway.{service}", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m shoal_gateway.{service} --zookeeper" in done.stdout
    assert "--cache DIR" in done.stdout
