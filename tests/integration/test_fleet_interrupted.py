"""Ctrl-C, or a SIGTERM, ends what a command has started."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_gateway.fleet import processes
from tests.support.waiting import eventually

SHOAL = Path(sys.executable).with_name("shoal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["up", "demo"])
def test_an_interrupted_command_leaves_nothing_running(tmp_path, command, number):
    directory = tmp_path / "fleet"
    arguments = {
        "up": ["--fleet", directory, "up"],
        "demo": ["demo", "--jobs", "30", "--out", tmp_path],
    }[command]
    running = subprocess.Popen(
        [SHOAL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        state = directory / "fleet.json"
        eventually(lambda: state.exists() and json.loads(state.read_text())["replicas"])
        marks = {processes.FLEET_MARK: json.loads(state.read_text())["id"]}
        eventually(lambda: len(list(processes.marked(marks))) > 2)
        running.send_signal(number)
        said, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert list(processes.marked(marks)) == []
    assert not state.exists()
