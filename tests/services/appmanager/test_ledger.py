"""The host's ledger of calls."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shoal_gateway.appmanager.ledger import Ledger, LedgerError


def test_lines_are_there_for_others_at_once(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write({"event": "start", "pid": pid} for pid in (1, 2))
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(each)["pid"] for each in lines] == [1, 2]
    ledger.close()


def test_a_full_disk_is_said_with_what_to_do():
    ledger = Ledger(Path("/dev/full"))
    with pytest.raises(LedgerError, match=r"/dev/full can't be written \(No space.*make room"):
        ledger.write([{"event": "start"}])
    ledger.close()


def test_what_a_disk_took_in_part_is_written_on(tmp_path, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:7]))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write([{"event": "start", "pid": 1}])
    ledger.close()
    assert json.loads((tmp_path / "ledger.jsonl").read_text())["pid"] == 1
