"""Whether a caller's and a replica's descriptors understand each other on the wire.

buf's WIRE category compares a contract with its own past. Here two sides meet that may each be the
older one, and what matters is who writes and who reads: a request is written by the caller and read
by the replica, a response the other way round. `docs/versions.md` says for each of buf's rules
what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeGuard

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor as MessageDescriptor
from google.protobuf.descriptor import (
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

from shoal.contracts.problems import Problem, Rule

# Kinds within one group read each other's bytes, if with another value where one is narrower; so
# does buf. An enum and an int, or a message and bytes, might, but nobody can tell from here.
_GROUPS: dict[int, int] = {
    FieldDescriptor.TYPE_INT32: 1,
    FieldDescriptor.TYPE_INT64: 1,
    FieldDescriptor.TYPE_UINT32: 1,
    FieldDescriptor.TYPE_UINT64: 1,
    FieldDescriptor.TYPE_BOOL: 1,
    FieldDescriptor.TYPE_SINT32: 2,
    FieldDescriptor.TYPE_SINT64: 2,
    FieldDescriptor.TYPE_FIXED32: 3,
    FieldDescriptor.TYPE_SFIXED32: 3,
    FieldDescriptor.TYPE_FIXED64: 4,
    FieldDescriptor.TYPE_SFIXED64: 4,
}
_NAMES: dict[int, str] = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_SAFE = (
    descriptor_pb2.MethodOptions.IDEMPOTENT,
    descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
)
# protobuf's own messages come with its runtime and never change what they mean.
_OWN = "google.protobuf."

Services = Callable[[str], "ServiceDescriptor | None"]


def compare(
    methods: Iterable[MethodDescriptor], serves: Services, *, older: bool = False
) -> tuple[Problem, ...]:
    """Everything that keeps a caller from a replica; nothing when they go together.

    Args:
        methods: What the caller calls, as it knows them.
        serves: The replica's own descriptor of a service by its full name; None where it has none.
        older: Whether the replica may be older than the caller: fields and enum values that only
            the caller knows are then no problem.
    """
    found: dict[Problem, None] = {}
    walk = _Walk(older, found.setdefault)
    for ours in methods:
        name = ours.containing_service.full_name
        service = serves(name)
        if service is None:
            walk.report(Problem(name, Rule.SERVICE_GONE, f"service {name} is not served"))
            continue
        theirs = service.methods_by_name.get(ours.name)
        if theirs is None:
            text = f"method {ours.full_name} is gone"
            walk.report(Problem(ours.full_name, Rule.METHOD_GONE, text))
            continue
        walk.method(ours, theirs)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A message as both sides know it, and which of them writes it."""

    ours: MessageDescriptor
    theirs: MessageDescriptor
    sent: bool

    def sides(self, ours: bool, theirs: bool) -> tuple[bool, bool]:
        """What is true of the writer and of the reader."""
        return (ours, theirs) if self.sent else (theirs, ours)


class _Walk:
    """One comparison: goes through messages as far as they are reached, each once and way."""

    def __init__(self, older: bool, report: Callable[[Problem], object]) -> None:
        self._older = older
        self.report = report
        self._seen: set[tuple[str, str, bool]] = set()
        self._waiting: list[_Pair] = []

    def method(self, ours: MethodDescriptor, theirs: MethodDescriptor) -> None:
        """A method that both have."""
        name = ours.full_name
        if (ours.client_streaming, ours.server_streaming) != (
            theirs.client_streaming,
            theirs.server_streaming,
        ):
            text = f"method {name} changed from {_streaming(ours)} to {_streaming(theirs)}"
            self.report(Problem(name, Rule.METHOD_STREAMING, text))
        if _idempotent(ours) and not _idempotent(theirs):
            text = f"method {name} may not be sent twice any more, and this caller would retry it"
            self.report(Problem(name, Rule.METHOD_IDEMPOTENCY, text))
        for what, rule, mine, other, sent in (
            ("takes", Rule.METHOD_REQUEST, ours.input_type, theirs.input_type, True),
            ("answers", Rule.METHOD_RESPONSE, ours.output_type, theirs.output_type, False),
        ):
            if mine.full_name != other.full_name:
                text = f"method {name} {what} {other.full_name}, not {mine.full_name}"
                self.report(Problem(name, rule, text))
            else:
                self._reach(mine, other, sent)
        while self._waiting:
            self._message(self._waiting.pop(0))

    def _reach(self, ours: MessageDescriptor, theirs: MessageDescriptor, sent: bool) -> None:
        key = (ours.full_name, theirs.full_name, sent)
        if key not in self._seen and not ours.full_name.startswith(_OWN):
            self._seen.add(key)
            self._waiting.append(_Pair(ours, theirs, sent))

    def _message(self, pair: _Pair) -> None:
        for field in pair.ours.fields:
            other = pair.theirs.fields_by_number.get(field.number)
            named = pair.theirs.fields_by_name.get(field.name)
            if named is not None and named.number != field.number:
                text = (
                    f"field {field.full_name} changed its number from {field.number} to "
                    f"{named.number}"
                )
                self.report(Problem(field.full_name, Rule.FIELD_NUMBER, text))
            elif other is None:
                self._missing(pair, field)
            else:
                self._field(pair, field, other)
        if pair.sent:
            for theirs in pair.theirs.fields:
                known = pair.ours.fields_by_number
                if theirs.is_required and theirs.number not in known:
                    text = f"field {theirs.full_name} is required, and this caller has none"
                    self.report(Problem(theirs.full_name, Rule.FIELD_REQUIRED, text))

    def _missing(self, pair: _Pair, field: FieldDescriptor) -> None:
        name = field.full_name
        if field.is_required and not pair.sent:
            text = f"field {name} is required by this caller, and is not there"
            self.report(Problem(name, Rule.FIELD_REQUIRED, text))
        elif not self._older and not _reserved(pair.theirs, field.number):
            text = f"field {name} was removed, or is not there yet, and its number is not reserved"
            self.report(Problem(name, Rule.FIELD_REMOVED, text))

    def _field(self, pair: _Pair, ours: FieldDescriptor, theirs: FieldDescriptor) -> None:
        name = ours.full_name
        if ours.is_repeated != theirs.is_repeated:
            text = f"field {name} changed from {_cardinality(ours)} to {_cardinality(theirs)}"
            self.report(Problem(name, Rule.FIELD_CARDINALITY, text))
        written, read = pair.sides(ours.is_required, theirs.is_required)
        if read and not written:
            side = "the replica" if pair.sent else "this caller"
            text = f"field {name} is required by {side}, and the other side may leave it out"
            self.report(Problem(name, Rule.FIELD_REQUIRED, text))
        if _oneof(ours) != _oneof(theirs):
            text = f"field {name} moved from {_where(ours)} to {_where(theirs)}"
            self.report(Problem(name, Rule.FIELD_ONEOF, text))
        if self._type(pair, ours, theirs) and _defaults_differ(ours, theirs):
            text = (
                f"field {name} changed its default from {ours.default_value!r} to "
                f"{theirs.default_value!r}"
            )
            self.report(Problem(name, Rule.FIELD_DEFAULT, text))

    def _type(self, pair: _Pair, ours: FieldDescriptor, theirs: FieldDescriptor) -> bool:
        """Whether the types go together; follows them where they have parts of their own."""
        message, other = ours.message_type, theirs.message_type
        if _is_map(message) and _is_map(other):
            # Their messages are named after the field, which may have another name by now.
            self._reach(message, other, pair.sent)
            return True
        same = ours.type == theirs.type or (
            _GROUPS.get(ours.type, -1) == _GROUPS.get(theirs.type, -2)
        )
        written, read = (ours, theirs) if pair.sent else (theirs, ours)
        if written.type == FieldDescriptor.TYPE_STRING and read.type == FieldDescriptor.TYPE_BYTES:
            same = True  # all text is bytes; not all bytes are text
        if same and message is not None and other is not None:
            same = message.full_name == other.full_name
        if not same:
            text = f"field {ours.full_name} changed from {_type_name(ours)} to {_type_name(theirs)}"
            self.report(Problem(ours.full_name, Rule.FIELD_TYPE, text))
            return False
        if message is not None and other is not None:
            self._reach(message, other, pair.sent)
        elif ours.enum_type is not None and theirs.enum_type is not None:
            self._enum(ours.enum_type, theirs.enum_type, pair.sent)
        return True

    def _enum(self, ours: EnumDescriptor, theirs: EnumDescriptor, sent: bool) -> None:
        key = (ours.full_name, theirs.full_name, sent)
        if key in self._seen or ours.full_name.startswith(_OWN):
            return
        self._seen.add(key)
        for value in ours.values:
            # A value's own full name leaves its enum out; people look for it there.
            name = f"{ours.full_name}.{value.name}"
            named = theirs.values_by_name.get(value.name)
            if named is not None and named.number != value.number:
                text = f"enum value {name} changed its number from {value.number} to {named.number}"
                self.report(Problem(name, Rule.VALUE_NUMBER, text))
            elif (
                # What is never written can't be misread.
                sent
                and not self._older
                and value.number not in theirs.values_by_number
                and not _value_reserved(theirs, value.number)
            ):
                text = (
                    f"enum value {name} was removed, or is not there yet, and its number is not "
                    "reserved"
                )
                self.report(Problem(name, Rule.VALUE_REMOVED, text))


def _streaming(method: MethodDescriptor) -> str:
    sides = {
        (False, False): "one request and one response",
        (True, False): "a stream of requests",
        (False, True): "a stream of responses",
        (True, True): "streams both ways",
    }
    return sides[method.client_streaming, method.server_streaming]


def _idempotent(method: MethodDescriptor) -> bool:
    return method.GetOptions().idempotency_level in _SAFE


def _cardinality(field: FieldDescriptor) -> str:
    if _is_map(field.message_type):
        return "a map"
    return "repeated" if field.is_repeated else "a single value"


def _is_map(message: MessageDescriptor | None) -> TypeGuard[MessageDescriptor]:
    """Whether it is the message of a map's entries."""
    return message is not None and bool(message.GetOptions().map_entry)


def _type_name(field: FieldDescriptor) -> str:
    message = field.message_type
    if _is_map(message):
        parts = message.fields_by_name
        return f"map<{_type_name(parts['key'])}, {_type_name(parts['value'])}>"
    composed = message or field.enum_type
    name = _NAMES[field.type]
    return f"{name} {composed.full_name}" if composed is not None else name


def _oneof(field: FieldDescriptor) -> str | None:
    """Name of the oneof that it is in; a proto3 ``optional`` has one of its own, which is none."""
    oneof = field.containing_oneof
    if oneof is None:
        return None
    synthetic = len(oneof.fields) == 1 and oneof.name == f"_{field.name}"
    return None if synthetic else str(oneof.name)


def _where(field: FieldDescriptor) -> str:
    oneof = _oneof(field)
    return "no oneof" if oneof is None else f"oneof {oneof}"


def _defaults_differ(ours: FieldDescriptor, theirs: FieldDescriptor) -> bool:
    if not (ours.has_default_value or theirs.has_default_value):
        return False
    return bool(ours.default_value != theirs.default_value)


def _reserved(message: MessageDescriptor, number: int) -> bool:
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    return any(each.start <= number < each.end for each in proto.reserved_range)


def _value_reserved(enum: EnumDescriptor, number: int) -> bool:
    proto = descriptor_pb2.EnumDescriptorProto()
    enum.CopyToProto(proto)
    # Unlike a message's, an enum's ranges include their end.
    return any(each.start <= number <= each.end for each in proto.reserved_range)
