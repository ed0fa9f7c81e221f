"""Forecasts a month's daily temperature from past years, with a confidence band.

    python forecast.py --observations seattle-weather.csv --month 7 --seed 1 \
        --result result.json --plot forecast.png

The observations are a CSV with a line a day and the columns ``date`` (2012-07-01 or 2012/07/01) and
``temp_max`` (or ``temp``) in °C, as seattle-weather.csv of the package vega_datasets. The forecast
is a block bootstrap: years are drawn with replacement, their days shifted in blocks, and the band
is where the middle 90 % of the drawn means lie. The same observations, month and seed give the same
bytes.

Source: Künsch, "The jackknife and the bootstrap for general stationary observations", 1989.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 4000
BLOCK = 5  # days: about how long Seattle's weather remembers itself


class InputError(Exception):
    """The observations or the parameters can't be used."""


@dataclass(frozen=True)
class Forecast:
    """A forecast for each day of a month.

    Attributes:
        month: 1 to 12.
        seed: Of the draws.
        years: Past years it rests on.
        mean: °C for each day.
        low: Lower end of the 90 % band, °C.
        high: Upper end.
    """

    month: int
    seed: int
    years: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def document(self) -> bytes:
        """The result file."""
        content = {
            "month": self.month,
            "seed": self.seed,
            "years": self.years,
            "unit": "degree Celsius",
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "month_mean": round(float(np.mean(self.mean)), 3),
            "numpy": np.__version__,
        }
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def read_month(text: str, month: int) -> dict[int, list[float]]:
    """Daily temperatures of a month by year.

    Raises:
        InputError: a column is missing, a value can't be read, or there are fewer than two years.
    """
    try:
        return _by_year(csv.DictReader(io.StringIO(text)), month)
    except csv.Error as error:
        raise InputError(f"it is no CSV that can be read: {error}") from error


def _by_year(rows: csv.DictReader[str], month: int) -> dict[int, list[float]]:
    names = rows.fieldnames or []
    column = next((name for name in ("temp_max", "temp") if name in names), None)
    if column is None or "date" not in names:
        raise InputError(f"columns 'date' and 'temp_max' (or 'temp') are needed, not {names}")
    years: dict[int, list[float]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            # A short line has None for what it lacks.
            day = date.fromisoformat((row["date"] or "").replace("/", "-"))
            if day.month == month:
                years.setdefault(day.year, []).append(_temperature(row[column] or ""))
        except ValueError as error:
            raise InputError(f"line {number} can't be read: {error}") from error
    if len(years) < 2:
        raise InputError(f"month {month} was observed in {len(years)} years; two are needed")
    return years


def _temperature(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no temperature")
    return value


def forecast(observations: str, month: int, seed: int) -> Forecast:
    """The forecast of a month.

    Args:
        observations: The CSV's text.
        month: 1 to 12.
        seed: Of the draws.

    Raises:
        InputError: something of it can't be used.
    """
    if not 1 <= month <= 12:
        raise InputError(f"month must be 1 to 12, not {month}")
    if seed < 0:
        raise InputError(f"seed must not be negative, as {seed} is")
    years = read_month(observations, month)
    days = min(len(values) for values in years.values())
    table = np.array([values[:days] for values in years.values()])
    # Old and new numpy draw the same from this generator.
    rng = np.random.Generator(np.random.PCG64(seed))
    blocks = -(-days // BLOCK)
    means = np.empty((DRAWS, days))
    for draw in range(DRAWS):
        rows = rng.integers(0, len(table), size=(len(table), blocks))
        shifts = rng.integers(-2, 3, size=(len(table), blocks))
        index = np.arange(blocks * BLOCK) % days
        moved = (index.reshape(blocks, BLOCK)[None] + shifts[:, :, None]) % days
        sample = table[rows[:, :, None], moved].reshape(len(table), -1)[:, :days]
        means[draw] = sample.mean(axis=0)
    low, high = np.percentile(means, [5, 95], axis=0)
    return Forecast(
        month=month,
        seed=seed,
        years=tuple(sorted(years)),
        mean=tuple(np.round(means.mean(axis=0), 3).tolist()),
        low=tuple(np.round(low, 3).tolist()),
        high=tuple(np.round(high, 3).tolist()),
    )


def plot(result: Forecast) -> bytes:
    """The forecast as a small PNG; no date or host in it, so that the same is the same bytes."""
    # Here, so that a checker that only recomputes results does not need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0, 2.5), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    days = np.arange(1, len(result.mean) + 1)
    axes.fill_between(days, result.low, result.high, color="#9ecae1", label="90 % band")
    axes.plot(days, result.mean, color="#08519c", label="mean")
    axes.set_xlabel(f"day of month {result.month}")
    axes.set_ylabel("°C")
    axes.legend(fontsize=7)
    content = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(content, metadata={"Software": None})
    return content.getvalue()


def recompute(observations: str, cases: list[tuple[int, int]]) -> list[tuple[bytes, bytes]]:
    """Result and plot of many (month, seed) in one process, for a checker."""
    results = [forecast(observations, month, seed) for month, seed in cases]
    return [(result.document(), plot(result)) for result in results]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; exit code 2 for input that can't be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=Path, required=True, help="CSV file")
    parser.add_argument("--month", type=int, required=True, help="1 to 12")
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default: 1)")
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--plot", type=Path, required=True, help="PNG file to write")
    options = parser.parse_args(arguments)
    try:
        result = forecast(
            options.observations.read_text(encoding="utf-8"), options.month, options.seed
        )
    except (InputError, OSError, UnicodeDecodeError) as error:
        print(f"{options.observations}: {error}", file=sys.stderr)
        return 2
    options.result.write_bytes(result.document())
    options.plot.write_bytes(plot(result))
    print(f"month {result.month}: {np.mean(result.mean):.1f} °C from years {list(result.years)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
