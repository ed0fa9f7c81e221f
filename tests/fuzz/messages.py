"""Messages of any type that its descriptor allows, and bytes that are almost one."""

from __future__ import annotations

import uuid

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import strategies as st

# Deeper messages are left empty.
DEPTH = 4

# What services look for and trip over: ids that exist (put in by the test), paths, other languages.
HINTS = [
    "",
    "nap",
    "nap@1.0",
    "seconds",
    "0.1",
    "local",
    "ada",
    "nap.json",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "a\0b",
    "uploads/" + "0" * 64,
    "0" * 64,
    "0" * 16,
    "'; DROP TABLE jobs; --",
    "{python}",
    "$(reboot)",
    "LD_PRELOAD",
    "functions:digest",
    "9" * 400,
    "é\U0001f41f" * 40,
    str(uuid.UUID(int=7)),
]

_BOUNDS = {
    Field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
    Field.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def messages(descriptor, hints=(), depth=DEPTH):
    """Messages of a type; texts are often among the hints."""
    make = message_factory.GetMessageClass(descriptor)
    fields = {each.name: _values(each, hints, depth) for each in descriptor.fields}
    chosen = st.fixed_dictionaries({}, optional=fields)
    return chosen.map(lambda given: _filled(make(), given))


def _filled(message, given):
    for name, value in given.items():
        if isinstance(value, dict):
            for key, each in value.items():
                if hasattr(each, "SerializeToString"):
                    getattr(message, name)[key].CopyFrom(each)
                else:
                    getattr(message, name)[key] = each
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif hasattr(value, "SerializeToString"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _values(field, hints, depth):
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key, value = (_one(kind.fields_by_name[each], hints, depth) for each in ("key", "value"))
        return st.dictionaries(key, value, max_size=3)
    one = _one(field, hints, depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field, hints, depth):
    if field.cpp_type == Field.CPPTYPE_MESSAGE:
        made = message_factory.GetMessageClass(field.message_type)
        return messages(field.message_type, hints, depth - 1) if depth else st.builds(made)
    if field.type == Field.TYPE_BYTES:
        return st.binary(max_size=80)
    if field.cpp_type == Field.CPPTYPE_STRING:
        return st.sampled_from([*HINTS, *hints]) | st.text(
            st.characters(exclude_categories=["Cs"]), max_size=60
        )
    if field.cpp_type == Field.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return st.floats(width=32) | st.sampled_from([0.0, 1.0, 60.0, 1e300, float("nan")])
    low, high = _BOUNDS[field.cpp_type]
    return st.sampled_from([0, 1, 2, 3, 100, low, high]) | st.integers(low, high)


@st.composite
def mutated(draw, descriptor, hints=()):
    """The bytes of a message with some of them changed, lost or added."""
    data = bytearray(draw(messages(descriptor, hints)).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(["set", "cut", "put", "end"]))
        if what == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif what == "put":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[at:]
    return bytes(data)


def requests(descriptor, hints=()):
    """What comes over the wire as a request: proper, almost proper, or anything."""
    return st.one_of(
        messages(descriptor, hints).map(lambda each: each.SerializeToString()),
        mutated(descriptor, hints),
        st.binary(max_size=64),
    )
