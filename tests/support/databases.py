"""Whether this machine has a PostgreSQL to test with."""

from __future__ import annotations

import pytest

from shoal_gateway.fleet.pginstalled import PostgresError, find_programs


def _absent() -> str:
    try:
        find_programs()
    except PostgresError as error:
        return str(error)
    return ""


# Why there is none; empty when there is one.
POSTGRES_ABSENT = _absent()

needs_postgres = pytest.mark.skipif(bool(POSTGRES_ABSENT), reason=POSTGRES_ABSENT)
