"""What ZooKeeper's servers answer to four-letter words. Pure."""

from __future__ import annotations

NOT_ALLOWED = "is not executed because it is not in the whitelist"


def fields(srvr: str) -> dict[str, str]:
    """Of an answer to "srvr": a field a line, name and value with a colon between."""
    return _pairs(srvr, ":")


def figures(mntr: str) -> dict[str, str]:
    """Of an answer to "mntr": a figure a line, name and value with a tab between."""
    return _pairs(mntr, "\t")


def version(srvr: dict[str, str]) -> str:
    """Of the server's code, as 3.8.0; empty where its fields do not say."""
    return srvr.get("Zookeeper version", "").partition("-")[0].partition(",")[0]


def _pairs(answer: str, between: str) -> dict[str, str]:
    pairs = (line.split(between, 1) for line in answer.splitlines() if between in line)
    return {name: value.strip() for name, value in pairs}
