"""A checker recomputes many forecasts in one process and gets the bytes that jobs made."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import vega_datasets

PROGRAM = Path(__file__).parents[2] / "examples" / "climate" / "forecast.py"
DATA = Path(vega_datasets.__file__).parent / "_data" / "seattle-weather.csv"


def test_recomputed_forecasts_are_those_of_jobs(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("climate_forecast", PROGRAM)
    forecast = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, forecast)
    spec.loader.exec_module(forecast)
    result, plot = tmp_path / "result.json", tmp_path / "forecast.png"
    command = [sys.executable, PROGRAM, "--observations", DATA, "--month", "2", "--seed", "9"]
    command += ["--result", result, "--plot", plot]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    made = forecast.recompute(DATA.read_text(encoding="utf-8"), [(2, 9), (2, 10), (3, 9)])
    assert made[0] == (result.read_bytes(), plot.read_bytes())
    assert len({hashlib.sha256(document).hexdigest() for document, _ in made}) == 3
