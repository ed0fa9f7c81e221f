"""`python -m benchmarks.queue`, as small as it goes: all queues work, each beside the others."""

import json

from benchmarks.queue.__main__ import main
from benchmarks.queue.queues import DELETING, LOCKING, REGISTRY


def test_all_queues_are_measured_at_every_length(tmp_path):
    code = main(
        ["--sizes", "5", "400", "--rounds", "2", "--seconds", "0.01", "--out", str(tmp_path)]
    )
    assert code == 0
    found = json.loads((tmp_path / "queue.json").read_text())
    assert found["java_client"] == {"5": "listed", "400": "listed"}
    values = {(row["case"], row["peer"], row["metric"]): row["values"] for row in found["rows"]}
    for case in ("5 jobs wait", "400 jobs wait"):
        for peer in (REGISTRY, LOCKING, DELETING):
            assert min(values[case, peer, "jobs/s"]) > 0
            assert len(values[case, peer, "bytes a job"]) == 2
    # A list has the names of all who wait, in each answer, some 24 bytes each.
    for peer in (LOCKING, DELETING):
        short, long = (min(values[f"{size} jobs wait", peer, "bytes a job"]) for size in (5, 400))
        assert long - short > 390 * 20
    assert (tmp_path / "queue.md").read_text().startswith("|")
    assert (tmp_path / "queue.png").read_bytes().startswith(b"\x89PNG")
