"""Between seconds, as Python and the store count time, and protobuf's messages for it."""

from __future__ import annotations

from google.protobuf import duration_pb2, timestamp_pb2

_BILLION = 1_000_000_000


def timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    """Seconds since 1970 as a message; None stays None, which leaves a field unset."""
    if seconds is None:
        return None
    nanos = round(seconds * 1e6) * 1000
    return timestamp_pb2.Timestamp(seconds=nanos // _BILLION, nanos=nanos % _BILLION)


def unix(value: timestamp_pb2.Timestamp) -> float:
    """A timestamp as seconds since 1970."""
    return float(value.seconds) + value.nanos / _BILLION


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds, not negative, as a message."""
    nanos = round(seconds * 1e6) * 1000
    return duration_pb2.Duration(seconds=nanos // _BILLION, nanos=nanos % _BILLION)
