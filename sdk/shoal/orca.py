"""Load reports on the wire: ``xds.data.orca.v3.OrcaLoadReport``.

Reading goes through a message class from a descriptor pool of its own, so that a program may import
``xds-protos`` as well; the default pool takes each file and name only once. Writing is done by
hand: the message is a handful of doubles, and it is written once for each answer of a server.
"""

from __future__ import annotations

import functools
import logging
import math
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from shoal_balancer import LoadReport

logger = logging.getLogger(__name__)

# Trailing metadata with a report. grpc's core keeps the standard key to itself, so that a Python
# caller never sees it; hence a second one.
KEY = "shoal-load-bin"
# gRFC A51: what callers in other languages read.
STANDARD_KEY = "endpoint-load-metrics-bin"

# What has a field of its own in the message but none in `LoadReport` stands among the named ones,
# under the names that Envoy and gRPC give to fields and, with a key behind the point, to maps
# (``metric_names_for_computing_utilization``).
CPU = "cpu_utilization"
MEMORY = "mem_utilization"
REQUEST_COST = "request_cost."
UTILIZATION = "utilization."

_MESSAGE = "xds.data.orca.v3.OrcaLoadReport"
_MAPS = (("request_cost", 4), ("utilization", 5), ("named_metrics", 8))
_FIXED64 = 1
_LENGTH = 2

_double = struct.Struct("<d").pack
_ignored = 0


def encode(report: LoadReport) -> bytes:
    """The report for the wire."""
    parts: list[bytes] = []
    if report.qps:
        parts += b"\x31", _double(report.qps)
    if report.eps:
        parts += b"\x39", _double(report.eps)
    for name, value in report.named.items():
        parts += _before(name), _double(value)
    if report.utilisation:
        parts += b"\x49", _double(report.utilisation)
    return b"".join(parts)


def decode(data: bytes) -> LoadReport | None:
    """A report off the wire; None when it can't be read, for a bad report must not fail a call.

    Values that can't be true, such as a negative rate or no number at all, count as not said.
    """
    try:
        message = _Report.FromString(data)
    except (DecodeError, TypeError, ValueError) as error:
        _ignore(data, error)
        return None
    return LoadReport(
        utilisation=_true(message.application_utilization),
        qps=_true(message.rps_fractional) or float(message.rps),
        eps=_true(message.eps),
        named=_named(message),
    )


def trailers(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata with an encoded report."""
    return (KEY, data), (STANDARD_KEY, data)


def report_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> LoadReport | None:
    """The report in trailing metadata; None when there is none that can be read."""
    for key, value in metadata or ():
        if key == KEY:
            return decode(value)  # type: ignore[arg-type] # grpc hands out bytes for this key
    return None


def ignored() -> int:
    """Reports so far that this process could not read."""
    return _ignored


def _ignore(data: bytes, error: Exception) -> None:
    global _ignored
    _ignored += 1
    logger.debug("ignored a load report that can't be read (%s): %r", error, data)


def _true(value: float) -> float:
    return value if 0.0 <= value < math.inf else 0.0


def _named(message: Any) -> Mapping[str, float]:
    named = dict(message.named_metrics)
    if message.cpu_utilization:
        named[CPU] = message.cpu_utilization
    if message.mem_utilization:
        named[MEMORY] = message.mem_utilization
    for prefix, entries in (
        (REQUEST_COST, message.request_cost),
        (UTILIZATION, message.utilization),
    ):
        if entries:
            named.update((prefix + key, value) for key, value in entries.items())
    if not all(map(math.isfinite, named.values())):
        named = {name: value for name, value in named.items() if math.isfinite(value)}
    return MappingProxyType(named)


@functools.lru_cache(maxsize=1024)
def _before(name: str) -> bytes:
    """All that stands before a named value: its field's tag, or a map's entry up to the double."""
    if name in (CPU, MEMORY):
        return bytes([_tag(1 if name == CPU else 2, _FIXED64)])
    number = 8
    for prefix, other in ((REQUEST_COST, 4), (UTILIZATION, 5)):
        if name.startswith(prefix):
            number, name = other, name.removeprefix(prefix)
    key = name.encode()
    inner = bytes([_tag(1, _LENGTH)]) + _varint(len(key)) + key + bytes([_tag(2, _FIXED64)])
    return bytes([_tag(number, _LENGTH)]) + _varint(len(inner) + 8) + inner


def _tag(number: int, wire: int) -> int:
    return number << 3 | wire


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message_class() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="xds/data/orca/v3/orca_load_report.proto",
        package="xds.data.orca.v3",
        syntax="proto3",
    )
    message = file.message_type.add(name="OrcaLoadReport")

    def add(to: Any, name: str, number: int, kind: int, **more: Any) -> None:
        more.setdefault("label", kinds.LABEL_OPTIONAL)
        to.field.add(name=name, number=number, type=kind, **more)

    add(message, CPU, 1, kinds.TYPE_DOUBLE)
    add(message, MEMORY, 2, kinds.TYPE_DOUBLE)
    # Deprecated since there is rps_fractional, but still sent by some.
    add(message, "rps", 3, kinds.TYPE_UINT64)
    add(message, "rps_fractional", 6, kinds.TYPE_DOUBLE)
    add(message, "eps", 7, kinds.TYPE_DOUBLE)
    add(message, "application_utilization", 9, kinds.TYPE_DOUBLE)
    for name, number in _MAPS:
        # The name that protoc gives to a map's entry.
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        add(entry, "key", 1, kinds.TYPE_STRING)
        add(entry, "value", 2, kinds.TYPE_DOUBLE)
        kind = f".{_MESSAGE}.{entry.name}"
        label = kinds.LABEL_REPEATED
        add(message, name, number, kinds.TYPE_MESSAGE, label=label, type_name=kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(_MESSAGE))


_Report = _message_class()
