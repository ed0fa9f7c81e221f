"""What keeps other people's pages and programs away: names, tokens, and what a page may load."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection

_INLINE = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)

# Where a page of ours says that it is ours; a form of another site can't set it.
TOKEN_HEADER = "x-shoal-token"  # noqa: S105 - a header's name


def policy(page: str) -> str:
    """The Content-Security-Policy of the page: everything from its own origin, and nothing else.

    The import map has to stand in the page, so it is allowed by its hash.
    """
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'"
        for each in _INLINE.findall(page)
    ]
    scripts = " ".join(["'self'", *hashes])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def known_host(header: str, names: Collection[str]) -> bool:
    """Whether a request's Host is one of ours.

    A page of somebody else can have its own name point to this machine, and would read everything
    as if it were ours; its Host then is its own.

    Args:
        header: Of the request.
        names: Names that we have besides addresses of loopback.
    """
    host = header.rsplit(":", 1)[0] if re.search(r":\d+$", header) else header
    return is_loopback(host) or host.strip("[]").lower() in names


class Token:
    """Shown with each request that changes something."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(32)

    def fits(self, given: str | None) -> bool:
        """Whether it was shown."""
        return given is not None and hmac.compare_digest(given.encode(), self.text.encode())
