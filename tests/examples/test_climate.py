"""The climate forecast: deterministic, and clear about input that it can't use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import vega_datasets

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "climate" / "forecast.py"
DATA = Path(vega_datasets.__file__).parent / "_data"


def run(tmp_path, *, observations=DATA / "seattle-weather.csv", month=7, seed=1, python=None):
    return subprocess.run(
        [
            python or sys.executable,
            PROGRAM,
            *("--observations", observations, "--month", str(month), "--seed", str(seed)),
            *("--result", tmp_path / "result.json", "--plot", tmp_path / "forecast.png"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_same_input_gives_the_same_bytes(tmp_path):
    made = []
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        assert run(place).returncode == 0
        made.append((place / "result.json").read_bytes() + (place / "forecast.png").read_bytes())
    assert made[0] == made[1]


def test_another_seed_gives_another_band_and_nearly_the_same_mean(tmp_path):
    found = []
    for seed in (1, 2):
        assert run(tmp_path, seed=seed).returncode == 0
        found.append(json.loads((tmp_path / "result.json").read_text()))
    assert found[0]["low"] != found[1]["low"]
    assert found[0]["month_mean"] == pytest.approx(found[1]["month_mean"], abs=0.5)
    # Seattle's July: the observations have a mean maximum of 26 degrees.
    assert 24.0 < found[0]["month_mean"] < 28.0
    assert all(low <= mean <= high for low, mean, high in zip(
        found[0]["low"], found[0]["mean"], found[0]["high"], strict=True))  # fmt: skip


@pytest.mark.parametrize(("flavor", "major"), [("local", "2"), ("local-legacy", "1")])
def test_each_flavor_computes_the_same_with_its_own_numpy(tmp_path, flavor, major):
    python = ROOT / "build" / "flavors" / flavor / "bin" / "python"
    assert run(tmp_path, python=python).returncode == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["numpy"].partition(".")[0] == major


def test_other_observations_will_do(tmp_path):
    observations = tmp_path / "o.csv"
    observations.write_text(
        "date,temp\n" + "".join(f"{y}/03/{d:02},{d}\n" for y in (2001, 2002) for d in range(1, 29))
    )
    assert run(tmp_path, observations=observations, month=3).returncode == 0


@pytest.mark.parametrize(
    ("text", "month", "words"),
    [
        ("a,b\n1,2\n", 7, "columns 'date'"),
        ("date,temp\nyesterday,5\n", 7, "line 2"),
        ("date,temp\n2001-07-01,warm\n2002-07-01,1\n", 7, "line 2"),
        ("date,temp\n2001-07-01,1\n", 7, "1 years; two are needed"),
        ("date,temp\n", 13, "month must be 1 to 12"),
        ("temp,date\n1,2001-07-01\n2\n", 7, "line 3"),
        ("date,temp\n2001-07-01\n", 7, "line 2"),
        ("date,temp\n2001-07-01,nan\n2002-07-01,1\n", 7, "'nan' is no temperature"),
        ("date,temp\n2001/07/01 00:00,1\n", 7, "2001-07-01 00:00"),
        ("date,temp\n2001-02-30,1\n", 7, "line 2"),
        ("date,temp\n2001-07-01," + "1" * 140_000 + "\n", 7, "no CSV that can be read"),
        ("", 7, "columns 'date'"),
    ],
)
def test_input_that_can_not_be_used_is_said_in_one_line(tmp_path, text, month, words):
    observations = tmp_path / "o.csv"
    observations.write_text(text)
    done = run(tmp_path, observations=observations, month=month)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "result.json").exists()


def test_a_seed_that_no_generator_takes_is_said(tmp_path):
    done = run(tmp_path, seed=-1)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "seed must not be negative" in done.stderr
