"""The paper's experiments in small: a server's rates, and a series of failures beside jobs."""

import pytest

from tests.support.experiments import is_picture, small


@pytest.mark.timeout(300)
def test_the_tables_have_rates_and_jobs_go_on_while_servers_die(tmp_path):
    out = tmp_path / "ensemble"
    last, report = small("ensemble", out, "--jobs", "20", "--seconds", "14", timeout=280)

    assert last == "20 submitted, 20 succeeded, 0 failed, 0 lost, 0 twice"
    rows = {(row["servers"], row["reads"]): row for row in report["tables"]["operations"]}
    assert set(rows) == {(1, 0.0), (1, 1.0)}
    assert all(row["median"] > 100 and len(row["rounds"]) == 1 for row in rows.values())
    (creates,) = report["tables"]["creates"]
    assert (creates["workers"], creates["of_one_server"]["median"]) == (4, 1.0)
    assert creates["median"] > 10
    (barriers,) = report["tables"]["barriers"]
    assert (barriers["clients"], barriers["barriers"]) == (3, 2)
    assert barriers["median"] > 0.0
    assert [each["what"] for each in report["series"]] == [
        "a follower killed",
        "ZooKeeper's leader killed",
        "all 3 ZooKeeper servers killed",
    ]
    # Not none: they are counted by buckets, and the one that the kill is in has some.
    outage = report["series"][-1]
    assert outage["operations_meanwhile"] < outage["operations_before"] / 10
    assert is_picture(out / "tables.png")
    assert is_picture(out / "series.png")
