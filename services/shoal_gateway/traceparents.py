"""W3C's ``traceparent`` as a string, for those who only keep it or hand it on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

KEY = "traceparent"
# What a process finds it by.
VARIABLE = "TRACEPARENT"

_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def valid(text: str) -> str:
    """The same; empty when it can't be read, as the specification wants a trace to begin anew."""
    return text if _FORM.fullmatch(text) else ""


def sent_with(metadata: Iterable[Any] | None) -> str:
    """What a caller sent with its call; empty when it sent none that can be read."""
    for key, value in metadata or ():
        if key == KEY and isinstance(value, str):
            return valid(value)
    return ""


def ids(traceparent: str) -> tuple[str, str]:
    """Of a valid one the trace's id and the span's."""
    _, trace, span, _ = traceparent.split("-")
    return trace, span
