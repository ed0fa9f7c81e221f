"""What is wrong between a caller's contract and a replica's, one sentence each."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Rule(enum.StrEnum):
    """Why two contracts don't go together. Most follow a rule of buf's WIRE category."""

    SERVICE_GONE = "service gone"
    METHOD_GONE = "method gone"
    METHOD_STREAMING = "method streaming"
    METHOD_REQUEST = "method request type"
    METHOD_RESPONSE = "method response type"
    METHOD_IDEMPOTENCY = "method idempotency"
    FIELD_REMOVED = "field removed"
    FIELD_NUMBER = "field number"
    FIELD_TYPE = "field type"
    FIELD_CARDINALITY = "field cardinality"
    FIELD_REQUIRED = "field required"
    FIELD_ONEOF = "field oneof"
    FIELD_DEFAULT = "field default"
    VALUE_REMOVED = "enum value removed"
    VALUE_NUMBER = "enum value number"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that keeps a caller from a replica.

    Attributes:
        element: Full name of the field, method, service or enum value.
        rule: Which rule it breaks.
        text: All of it for a person: "field shoal.v1.Job.id changed from string to int32".
    """

    element: str
    rule: Rule
    text: str

    def __str__(self) -> str:
        return self.text
