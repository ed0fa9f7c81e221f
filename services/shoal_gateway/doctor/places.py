"""Where a fleet writes, and its certificates."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from shoal.errors import TlsError
from shoal.tls import KEY, Tls, files_of
from shoal_gateway.doctor.findings import Finding, ok, problem, warning
from shoal_gateway.objectstore import ObjectStore, ObjectStoreError

DAY = 86400.0
# Days before its end from which a certificate wants to be renewed.
SOON = 10.0
# Written again by each look, for nothing of a store is ever deleted.
PROBE = "doctor/probe"


def objects(url: str) -> Iterator[Finding]:
    """Whether objects can be stored and read again: one of 36 bytes, always under the same key."""
    what = f"objects {url}"
    wanted = str(uuid.uuid4()).encode()
    try:
        store = ObjectStore.open(url)
        store.put(PROBE, [wanted])
        found = b"".join(store.get(PROBE))
    except ValueError as error:
        yield problem(what, str(error), "give --objects a URL of one of these kinds")
        return
    except (ObjectStoreError, OSError) as error:
        mend = (
            "look at the bucket's or directory's permissions, and at the credentials (docs/aws.md)"
        )
        yield problem(what, str(error), mend)
        return
    if found != wanted:
        mend = "is something else writing under this prefix, or is it no store of one owner?"
        yield problem(what, "what was stored does not come back", mend)
        return
    yield ok(what, "stored and read again")


def certificates(places: Iterable[Path], now: float | None = None) -> Iterator[Finding]:
    """Whether certificates are whole, ours alone, and hold for a while.

    Args:
        places: Directories with ``tls.crt``, ``tls.key`` and ``ca.crt``.
        now: Seconds since 1970; None: the clock's.
    """
    moment = time.time() if now is None else now
    for place in places:
        what = f"certificate {place}"
        try:
            material = files_of(Tls.of(place)).current()
        except TlsError as error:
            yield problem(what, str(error), "make it anew: shoal certs issue, or shoal certs renew")
            continue
        left = (material.not_after - moment) / DAY
        name = material.names[0] if material.names else "nobody"
        mode = (place / KEY).stat().st_mode & 0o777
        if left <= 0.0:
            mend = "renew it: shoal certs renew DIR NAME; replicas follow without a restart"
            yield problem(what, f"of {name}, expired {-left:.1f} days ago", mend)
        elif moment < material.not_before:
            ahead = (material.not_before - moment) / DAY
            mend = "look at this machine's clock"
            yield problem(what, f"of {name}, holds only in {ahead:.1f} days", mend)
        elif mode & 0o077:
            mend = f"chmod 600 {place / KEY}, and renew it: others may know it by now"
            yield problem(what, f"others may read its key (mode {mode:04o})", mend)
        elif left < SOON:
            mend = "renew it: shoal certs renew DIR --within 10"
            yield warning(what, f"of {name}, for {left:.1f} days more", mend)
        else:
            yield ok(what, f"of {name}, for {left:.0f} days more")
