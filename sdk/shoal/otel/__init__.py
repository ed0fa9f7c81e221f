"""OpenTelemetry metrics and traces of callers, servers and directories. Needs ``shoal[otel]``.

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    shoal.otel.instrument(MeterProvider([reader]), TracerProvider())

Said once, before directories, channels and servers are made: what is made after it is observed.
What is made without it pays nothing, on no call.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from shoal import observing

try:
    from opentelemetry.trace import TracerProvider

    from shoal.otel.export import join, metrics
    from shoal.otel.observer import Observer
    from shoal.otel.tables import Gauge, Instrument, Tables
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("opentelemetry"):
        raise
    raise ModuleNotFoundError(
        f"shoal.otel needs {error.name}: pip install 'shoal[otel]'", name=error.name
    ) from error

__all__ = ["Gauge", "Instrument", "Instrumentation", "Tables", "instrument", "metrics"]


class Instrumentation:
    """What observes from `instrument` to `close`; also ``with instrument(…):``.

    Attributes:
        tables: What is measured; a program may add instruments and gauges of its own.
    """

    def __init__(self, observer: Observer, undo: Callable[[], None]) -> None:
        self._observer = observer
        self._undo = undo
        observing.begin(observer)
        self._closed = False
        self.tables = observer.tables

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """What is made from now on is not observed, and what was has no more readers. Idempotent.

        Providers are left open: they are who made them's.
        """
        if not self._closed:
            self._closed = True
            observing.end(self._observer)
            self._undo()


def instrument(
    meter_provider: Any = None, tracer_provider: TracerProvider | None = None
) -> Instrumentation:
    """Has all directories, channels and servers that are made from now on be observed.

    Args:
        meter_provider: The SDK's, whose readers get the metrics. Without one they are for those
            who look at the result's `tables`, as `metrics` does.
        tracer_provider: Makes spans, and the ``traceparent`` of calls; None makes none.

    Raises:
        TypeError: ``meter_provider`` is none of the SDK's.
        ValueError: there is neither.
    """
    if meter_provider is None and tracer_provider is None:
        raise ValueError("give a meter_provider, a tracer_provider or both")
    tables = Tables()
    undo = join(meter_provider, tables) if meter_provider is not None else lambda: None
    tracer = tracer_provider.get_tracer("shoal") if tracer_provider is not None else None
    return Instrumentation(Observer(tables, tracer), undo)
