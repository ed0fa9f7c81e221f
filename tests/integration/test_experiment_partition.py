"""The partition experiment in small: the network breaks in every way, and jobs complete."""

import pytest

from shoal_gateway.experiments.partition import KINDS
from tests.support.experiments import is_picture, small


@pytest.mark.timeout(420)
def test_sixty_jobs_complete_while_the_network_breaks_in_every_way(tmp_path):
    out = tmp_path / "partition"
    last, report = small("partition", out, "--jobs", "60", "--seconds", "30", timeout=400)

    assert last == "60 submitted, 60 succeeded, 0 failed, 0 lost, 0 twice"
    told = [each["what"] for each in report["faults"]]
    assert sorted(what.partition(": ")[2] for what in told) == sorted(
        [*(kind.name for kind in KINDS), "cut off"]
    )
    assert all(each["bytes_or_connections_met"] > 0 for each in report["faults"])
    # Somebody felt something: a run in which nothing was felt has measured nothing.
    felt = [one for each in report["faults"] for one in each["disturbance"].values()]
    assert any(one["slow"] + one["failed"] > 0 and one["seconds"] > 0.0 for one in felt)
    assert all(one["calls"] > 0 for one in felt)
    assert is_picture(out / "throughput.png")
    assert is_picture(out / "calls.png")
