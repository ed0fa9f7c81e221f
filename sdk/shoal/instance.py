"""Registrations as Apache Curator's x-discovery writes them, and back.

Path ``<base>/<service>/<id>``; the payload holds our metadata. Readers ignore fields they don't
know, ``enabled`` is true when it is missing (CURATOR-275), and a payload may carry Java's
``@class``. What Java makes of it: docs/zookeeper.md, "A registration".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from shoal.errors import InstanceFormatError
from shoal_balancer import Replica, Status

# Bytes of a registration. ZooKeeper drops the connection that brings a request of 1 MB
# (jute.maxbuffer), and so would all that the process has announced go; ours need half a kilobyte.
LARGEST = 64 * 1024
# Payload entries that have an attribute of their own in Replica.
_NAMED = ("version", "flavor", "zone", "weight", "status", "host")


def encode(service: str, replica: Replica) -> bytes:
    """A replica as the node's data.

    Args:
        service: The service's name.
        replica: What to announce. A port that speaks TLS stands in ``sslPort``, and ``port`` is
            null where it is the only one.
    """
    payload: dict[str, Any] = {
        **replica.metadata,
        "version": replica.version,
        "flavor": replica.flavor,
        "zone": replica.zone,
        "weight": replica.weight,
        "status": str(replica.status),
        "host": replica.host,
    }
    document = {
        "name": service,
        "id": replica.id,
        "address": replica.address,
        "port": None if replica.port == replica.ssl_port else replica.port,
        "sslPort": replica.ssl_port,
        "payload": payload,
        "registrationTimeUTC": round(replica.registered_at * 1000.0),
        "serviceType": "DYNAMIC",
        "uriSpec": None,
        "enabled": replica.enabled,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def decode(data: bytes) -> Replica:
    """A node's data as a replica.

    Raises:
        InstanceFormatError: it is not a registration that can be called; the message says why.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InstanceFormatError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InstanceFormatError(f"a JSON object is needed, not {type(document).__name__}")
    payload = document.get("payload")
    if not isinstance(payload, dict):
        payload = {}
    # Spring Cloud keeps its metadata one level deeper.
    nested = payload.get("metadata")
    facts: Mapping[str, Any] = {**nested, **payload} if isinstance(nested, dict) else payload
    port, ssl_port = _ports(document)
    return Replica(
        id=_text(document, "id"),
        address=_text(document, "address"),
        port=port,
        ssl_port=ssl_port,
        version=str(facts.get("version") or ""),
        flavor=str(facts.get("flavor") or ""),
        zone=str(facts.get("zone") or ""),
        host=str(facts.get("host") or ""),
        weight=_weight(facts.get("weight")),
        status=_status(facts.get("status", facts.get("instance_status"))),
        enabled=document.get("enabled") is not False,
        registered_at=_milliseconds(document.get("registrationTimeUTC")) / 1000.0,
        metadata=MappingProxyType(
            {key: str(value) for key, value in facts.items() if _is_extra(key, value)}
        ),
    )


def _is_extra(key: str, value: object) -> bool:
    return (
        key not in _NAMED and not key.startswith("@") and isinstance(value, (str, int, float, bool))
    )


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise InstanceFormatError(f"'{key}' must be a string that is not empty, not {value!r}")
    return value


def _ports(document: Mapping[str, Any]) -> tuple[int, int | None]:
    port = _port(document, "port")
    try:
        secure = _port(document, "sslPort")
    except InstanceFormatError:
        if port is None:
            raise
        secure = None  # other frameworks write 0 or -1 for none
    if port is None and secure is None:
        raise InstanceFormatError("neither 'port' nor 'sslPort' is there")
    return port or secure or 0, secure


def _port(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise InstanceFormatError(f"'{key}' must be a port from 1 to 65535, not {value!r}")
    return value


def _milliseconds(value: object) -> float:
    try:
        return float(value) if isinstance(value, (int, float)) else 0.0
    except OverflowError:
        return 0.0


def _weight(value: object) -> float:
    try:
        weight = float(value) if isinstance(value, (int, float, str)) else 1.0
    except (ValueError, OverflowError) as error:
        raise InstanceFormatError(f"'weight' must be a number, not {value!r}") from error
    if not 0.0 < weight < float("inf"):
        raise InstanceFormatError(f"'weight' must be positive, not {value!r}")
    return weight


def _status(value: object) -> Status:
    if value is None or value == "":
        return Status.UP
    try:
        return Status(str(value).upper())
    except ValueError:
        # A word that a foreign framework knows (DOWN, OUT_OF_SERVICE): not UP, so no new calls.
        return Status.DRAINING
