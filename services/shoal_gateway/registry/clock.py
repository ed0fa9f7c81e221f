"""The store's clock, as a SQL expression: leases expire by it and by no other.

Every registry process writes times with it, so replicas whose own clocks differ agree on what has
expired. `store_now` is evaluated by the database at the moment a statement runs.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class store_now(FunctionElement[float]):  # noqa: N801 - reads as a SQL function where it is used
    """Seconds since 1970 on the database's clock, with fractions."""

    type = Double()
    inherit_cache = True


@compiles(store_now)
def _unsupported(element: store_now, compiler: Any, **_options: Any) -> str:
    raise NotImplementedError(
        f"the registry's clock is not defined for {compiler.dialect.name}; add it to clock.py"
    )


@compiles(store_now, "sqlite")
def _sqlite(element: store_now, compiler: Any, **_options: Any) -> str:  # noqa: ARG001
    # SQLite's clock has milliseconds; unixepoch('subsec') would say it shorter, from 3.42 on.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(store_now, "postgresql")
def _postgresql(element: store_now, compiler: Any, **_options: Any) -> str:  # noqa: ARG001
    # now() stands still within a transaction, which may have waited for its locks. As a subselect
    # it is asked once for a statement and not for each row, so that an index can be used with it.
    return "(SELECT extract(epoch FROM clock_timestamp())::double precision)"
