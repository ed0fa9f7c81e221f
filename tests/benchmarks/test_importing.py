"""`python -m benchmarks.importing`, as small as it goes: every case is measured beside the peer."""

import json

import pytest

from benchmarks.importing.__main__ import CASES, PEER, main, rows_of


def test_every_case_is_measured_beside_the_peer(tmp_path):
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "import.json").read_text())["rows"]
    assert {row["case"] for row in rows} == set(CASES)
    assert all(row["peer"] == PEER and row["values"][0] > 0.0 for row in rows)
    assert (tmp_path / "import.md").read_text().startswith("|")


def test_a_figure_is_the_ratio_of_a_round():
    found = {PEER: [0.1, 0.2], "import shoal": [0.05, 0.3]}
    rows = {row.case: row for row in rows_of(found)}
    assert rows["import shoal"].values == pytest.approx((0.5, 1.5))
    assert rows["import shoal"].met is True


def test_few_rounds_are_no_claim():
    with pytest.raises(SystemExit):
        main(["--rounds", "3"])
