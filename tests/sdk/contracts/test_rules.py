"""Which replicas' contracts go together with a caller's, and what is said of the others."""

import itertools

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from shoal.contracts import Rule, compare
from tests.support.protos import (
    PACKAGE,
    SERVICE,
    Made,
    answering,
    asking,
    enum,
    field,
    message,
    method,
)

SCALARS = [
    "double",
    "float",
    "int64",
    "uint64",
    "int32",
    "fixed64",
    "fixed32",
    "bool",
    "string",
    "bytes",
    "uint32",
    "sfixed32",
    "sfixed64",
    "sint32",
    "sint64",
]
# What fits into every kind of its family, so that a narrower reader has the same value.
SMALL = {"string": "a", "bytes": b"a", "bool": True, "double": 1.0, "float": 1.0}


def problems(ours, theirs, **options):
    return compare(ours.service.methods, theirs.find, **options)


def told(ours, theirs, **options):
    return [str(problem) for problem in problems(ours, theirs, **options)]


def rules(ours, theirs, **options):
    return [problem.rule for problem in problems(ours, theirs, **options)]


@st.composite
def shapes(draw):
    """Fields of one message, as they might be written."""
    numbers = draw(st.lists(st.integers(1, 12), unique=True, max_size=5))
    return [
        field(
            f"f{number}",
            number,
            draw(st.sampled_from([*SCALARS, ".Part", "enum .Colour"])),
            repeated=draw(st.booleans()),
        )
        for number in numbers
    ]


def made(fields, inner=(), colours=None, **options):
    return Made(
        message("Ask", *fields, **options),
        message("Answer", *fields, **options),
        message("Part", field("text", 1), *inner),
        enum("Colour", **(colours or {"NONE": 0, "RED": 1})),
    )


@given(shapes())
def test_a_contract_goes_together_with_itself(fields):
    assert told(made(fields), made(fields)) == []


@given(shapes(), st.data())
def test_what_a_replica_has_more_of_is_no_problem(fields, data):
    new = field("new", 20, data.draw(st.sampled_from(SCALARS)))
    theirs = Made(
        message("Ask", *fields, new),
        message("Answer", *fields, new),
        message("Part", field("text", 1), field("more", 2)),
        enum("Colour", NONE=0, RED=1, BLUE=2),
        method("Do"),
        method("More"),
    )
    assert told(made(fields), theirs) == []


@given(shapes(), st.data())
def test_every_change_of_a_field_is_found_and_names_the_field(fields, data):
    if not fields:
        return
    at = data.draw(st.integers(0, len(fields) - 1))
    changed = [type(each).FromString(each.SerializeToString()) for each in fields]
    name = changed[at].name
    what = data.draw(st.sampled_from(["removed", "number", "label"]))
    if what == "removed":
        del changed[at]
        expected = Rule.FIELD_REMOVED
    elif what == "number":
        changed[at].number = 15
        expected = Rule.FIELD_NUMBER
    else:
        repeated = changed[at].label == changed[at].LABEL_REPEATED
        changed[at].label = changed[at].LABEL_OPTIONAL if repeated else changed[at].LABEL_REPEATED
        expected = Rule.FIELD_CARDINALITY
    found = problems(made(fields), made(changed))
    assert {(each.element, each.rule) for each in found} == {
        (f"{PACKAGE}.Ask.{name}", expected),
        (f"{PACKAGE}.Answer.{name}", expected),
    }
    older = problems(made(fields), made(changed), older=True)
    assert set(older) <= set(found)
    assert bool(older) == (what != "removed")


@pytest.mark.parametrize(("one", "other"), list(itertools.product(SCALARS, SCALARS)))
def test_types_that_pass_are_read_and_types_of_another_form_do_not_pass(one, other):
    ours, theirs = asking(field("it", 1, one)), asking(field("it", 1, other))
    allowed = not problems(ours, theirs)
    sent = ours.type("Ask")(it=SMALL.get(one, 1)).SerializeToString()
    try:
        read = theirs.type("Ask").FromString(sent)
    except DecodeError:
        read = None
    arrives = read is not None and read.HasField("it")
    if allowed:
        assert arrives
        assert read.it == (b"a" if (one, other) == ("string", "bytes") else SMALL.get(one, 1))
    elif arrives:
        # Read, as something else than was meant; or text that was no text.
        zigzag = one.startswith("sint") != other.startswith("sint")
        real = {one, other} & {"float", "double"}
        assert zigzag or real or {one, other} == {"string", "bytes"}


def test_text_may_be_read_as_bytes_and_not_the_other_way_round():
    text, data = field("it", 1, "string"), field("it", 1, "bytes")
    assert told(asking(text), asking(data)) == []
    assert told(asking(data), asking(text)) == [
        f"field {PACKAGE}.Ask.it changed from bytes to string"
    ]
    assert told(answering(data), answering(text)) == []
    assert rules(answering(text), answering(data)) == [Rule.FIELD_TYPE]


def test_the_sentence_for_a_changed_type():
    assert told(asking(field("id", 1)), asking(field("id", 1, "int32"))) == [
        f"field {PACKAGE}.Ask.id changed from string to int32"
    ]


def test_a_number_that_is_reserved_was_removed_with_care():
    assert told(asking(field("id", 1)), asking(reserved=[1])) == []
    assert told(asking(field("id", 1)), asking(reserved=[2])) == [
        f"field {PACKAGE}.Ask.id was removed, or is not there yet, and its number is not reserved"
    ]


def test_numbers_that_were_swapped_are_seen_by_their_names():
    ours = asking(field("a", 1), field("b", 2))
    assert rules(ours, asking(field("a", 2), field("b", 1))) == [Rule.FIELD_NUMBER] * 2
    # Another name for the same number is no problem on the wire.
    assert told(ours, asking(field("x", 1), field("y", 2))) == []


def test_methods_and_services_that_are_gone():
    ours = Made(method("Do"), method("Undo"))
    assert told(ours, Made(method("Do"))) == [f"method {SERVICE}.Undo is gone"]
    assert [str(each) for each in compare(ours.service.methods, lambda _: None)] == [
        f"service {SERVICE} is not served"
    ]
    # A method that is not called may be gone.
    called = [ours.service.methods_by_name["Do"]]
    assert compare(called, Made(method("Do")).find) == ()
    assert rules(ours, Made(method("Do")), older=True) == [Rule.METHOD_GONE]


def test_methods_that_changed():
    ours = Made(method("Do"), message("Other"))
    assert told(ours, Made(method("Do", streams=(False, True)))) == [
        f"method {SERVICE}.Do changed from one request and one response to a stream of responses"
    ]
    assert rules(ours, Made(method("Do", streams=(True, False)))) == [Rule.METHOD_STREAMING]
    assert told(ours, Made(method("Do", takes="Other"), message("Other"))) == [
        f"method {SERVICE}.Do takes {PACKAGE}.Other, not {PACKAGE}.Ask"
    ]
    assert told(ours, Made(method("Do", answers="Other"), message("Other"))) == [
        f"method {SERVICE}.Do answers {PACKAGE}.Other, not {PACKAGE}.Answer"
    ]


def test_who_would_retry_must_be_allowed_to():
    safe, unsafe = Made(method("Do", idempotent=True)), Made(method("Do"))
    assert rules(safe, unsafe) == [Rule.METHOD_IDEMPOTENCY]
    assert rules(unsafe, safe) == []


def test_what_is_required_matters_to_the_reader_alone():
    free, must = field("id", 1), field("id", 1, required=True)
    assert rules(asking(free), asking(must)) == [Rule.FIELD_REQUIRED]
    assert rules(asking(must), asking(free)) == []
    assert rules(answering(free), answering(must)) == []
    assert rules(answering(must), answering(free)) == [Rule.FIELD_REQUIRED]
    assert rules(asking(), asking(must)) == [Rule.FIELD_REQUIRED]
    assert rules(answering(), answering(must)) == []
    assert rules(answering(must), answering(), older=True) == [Rule.FIELD_REQUIRED]


def test_a_field_that_moved_between_oneofs():
    free = asking(field("a", 1), field("b", 2))
    both = asking(field("a", 1, oneof=0), field("b", 2, oneof=0), oneofs=["choice"])
    one = asking(field("a", 1, oneof=0), field("b", 2), oneofs=["choice"])
    assert told(free, both) == [
        f"field {PACKAGE}.Ask.{name} moved from no oneof to oneof choice" for name in "ab"
    ]
    assert told(both, one) == [f"field {PACKAGE}.Ask.b moved from oneof choice to no oneof"]


def test_an_optional_field_of_proto3_is_in_no_oneof():
    present = field("a", 1, oneof=0)
    present.proto3_optional = True
    ours = Made(message("Ask", present, oneofs=["_a"]), syntax="proto3")
    theirs = Made(message("Ask", field("a", 1)), syntax="proto3")
    assert told(ours, theirs) == told(theirs, ours) == []


def test_defaults_of_fields_that_are_left_out():
    ours = asking(field("n", 1, "int32", default="3"))
    assert told(ours, asking(field("n", 1, "int32", default="4"))) == [
        f"field {PACKAGE}.Ask.n changed its default from 3 to 4"
    ]
    assert rules(ours, asking(field("n", 1, "int32"))) == [Rule.FIELD_DEFAULT]
    assert told(ours, asking(field("n", 1, "int64", default="3"))) == []


def colours(where=asking, reserved=(), **values):
    holder = message("Ask" if where is asking else "Answer", field("c", 1, "enum .Colour"))
    return Made(holder, enum("Colour", reserved, **values))


def test_enum_values():
    ours = colours(NONE=0, RED=1)
    assert told(ours, colours(NONE=0)) == [
        f"enum value {PACKAGE}.Colour.RED was removed, or is not there yet, and its number is not "
        "reserved"
    ]
    assert told(ours, colours(NONE=0, reserved=[1])) == told(ours, colours(NONE=0), older=True)
    assert told(ours, colours(NONE=0, CRIMSON=1)) == []
    assert told(ours, colours(NONE=0, RED=2), older=True) == [
        f"enum value {PACKAGE}.Colour.RED changed its number from 1 to 2"
    ]
    # A replica that never answers it confuses nobody.
    assert told(colours(answering, NONE=0, RED=1), colours(answering, NONE=0)) == []


def test_parts_within_parts_are_compared_once_however_they_refer_to_each_other():
    def nested(kind):
        return Made(
            message("Ask", field("part", 1, ".Part")),
            message("Answer", field("part", 1, ".Part")),
            message("Part", field("again", 1, ".Part", repeated=True), field("id", 2, kind)),
        )

    assert told(nested("string"), nested("string")) == []
    assert told(nested("string"), nested("int32")) == [
        f"field {PACKAGE}.Part.id changed from string to int32"
    ]


def test_another_message_in_a_field():
    parts = (message("Part"), message("Other"))
    ours = Made(message("Ask", field("it", 1, ".Part")), *parts)
    theirs = Made(message("Ask", field("it", 1, ".Other")), *parts)
    assert told(ours, theirs) == [
        f"field {PACKAGE}.Ask.it changed from message {PACKAGE}.Part to message {PACKAGE}.Other"
    ]


def mapped(name, kind):
    entry = f"{name.title()}Entry"
    ask = message("Ask", field(name, 1, ".Ask", repeated=True))
    ask.field[0].type_name = f".{PACKAGE}.Ask.{entry}"
    ask.nested_type.append(message(entry, field("key", 1), field("value", 2, kind)))
    ask.nested_type[0].options.map_entry = True
    return Made(ask)


def test_maps_are_compared_by_what_they_hold():
    assert told(mapped("tags", "string"), mapped("tags", "string")) == []
    # The entry is named after the field, and that name is nowhere on the wire.
    assert told(mapped("tags", "string"), mapped("labels", "string")) == []
    assert told(mapped("tags", "string"), mapped("tags", "int32")) == [
        f"field {PACKAGE}.Ask.TagsEntry.value changed from string to int32"
    ]
    repeated = asking(field("tags", 1, repeated=True))
    assert told(mapped("tags", "string"), repeated) == [
        f"field {PACKAGE}.Ask.tags changed from map<string, string> to string"
    ]
