"""`python -m benchmarks.scale`, as small as it goes: every event is seen by all, and is counted."""

import json

from benchmarks.scale.__main__ import main, table


def test_events_are_seen_by_all_callers_and_counted(tmp_path, capsys):
    arguments = ["--replicas", "12", "--sessions", "4", "--callers", "4", "--processes", "2"]
    arguments += [
        "--rounds",
        "1",
        "--over",
        "0.5",
        "--idle",
        "0.2",
        "--session",
        "2",
        "--dead",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "scale.json").read_text())
    rows = {row["event"]: row for row in report["events"]}
    # Each caller lists and reads each node.
    assert rows["all callers start"]["requests"] >= 4 * 13
    assert rows["all callers start"]["bytes_out"] > 4 * 12 * 300
    for name in ("one replica changes its status", "one replica joins"):
        assert rows[name]["requests"] >= 4
        assert rows[name]["seen_after_seconds"]["last"] > 0.0
    (restart,) = (row for name, row in rows.items() if "restart" in name)
    assert restart["requests"] >= 4
    (back,) = (row for name, row in rows.items() if "comes back" in name)
    assert back["requests"] >= 4 * 13
    guards = report["guards"]
    # Half of them vanished: what is left is believed, and so is not that all are gone. Then those
    # are held, too, that vanished shortly before; how shortly depends on the machine.
    assert guards["most_vanish"]["announced"] == 6
    assert guards["all_vanish"]["announced"] == 0
    assert 6 <= guards["all_vanish"]["known"] <= 12
    known = guards["all_vanish"]["known"]
    assert guards["start_without_zookeeper"]["known"] == known
    assert table(report["events"]) in capsys.readouterr().out
