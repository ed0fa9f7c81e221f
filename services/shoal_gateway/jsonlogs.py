"""A log of one JSON object a line: for those who search it, not those who read it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shoal_gateway import jobtraces


class JsonFormatter(logging.Formatter):
    """Writes time (UTC), level, logger, message, and what is known of job, attempt and trace.

    Args:
        facts: What every line says: service and replica.
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        super().__init__()
        self._facts = {name: value for name, value in facts.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._facts,
            **jobtraces.known(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False)
