"""The key of a call, for policies that keep the calls of one key on one replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# A header's name, or a function of (request, metadata); a stream of requests is None.
Key = str | Callable[[Any, Any], "str | bytes | None"]


def key(of: Key, request: Any, metadata: Any) -> bytes | None:
    """What a call's affinity goes by; None when the call has no key.

    Args:
        of: The channel's way to find it.
        request: The message; None where requests are a stream.
        metadata: The caller's; None without.
    """
    if callable(of):
        found = of(request, metadata)
    else:
        found = next((value for name, value in metadata or () if name == of), None)
    return found.encode() if isinstance(found, str) else found
