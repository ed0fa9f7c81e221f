"""What an EC2 instance can ask of itself: who and where it is, and whether it is to go.

Version 2 of the metadata service only: a token first, then questions that carry it. Version 1,
which answers whoever makes a process fetch a URL, is never used.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from shoal_gateway.aws.errors import AwsError

ENDPOINT = "http://169.254.169.254"
# Seconds that a token is good for; a new one is fetched when the service no longer takes it.
TOKEN_SECONDS = 6 * 3600
# Seconds for one question, which the host itself answers, and how often it is asked.
TIMEOUT, TRIES, PAUSE = 1.0, 4, 0.2

_UNAUTHORIZED, _NOT_FOUND, _FORBIDDEN, _TOO_MANY, _FAILING = 401, 404, 403, 429, 500


class MetadataError(AwsError):
    """The instance metadata can't be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a process runs.

    Attributes:
        host: The instance's id.
        zone: Its availability zone, "eu-central-1a".
        region: The zone's region.
        address: Its private IPv4 address.
    """

    host: str
    zone: str
    region: str
    address: str


@dataclass(frozen=True, slots=True)
class Notice:
    """That an instance is to go.

    Attributes:
        why: "terminated" by its autoscaling group, "spot" capacity taken back, or "rebalance": that
            AWS thinks it soon may be.
        when: The time that AWS says, as it says it; empty when it says none.
    """

    why: str
    when: str = ""


class InstanceMetadata:
    """The metadata service of the instance that this runs on. Calls block.

    Args:
        endpoint: Where it is; None: ``AWS_EC2_METADATA_SERVICE_ENDPOINT``, or where AWS puts it.
        timeout: Seconds for one question.
        sleep: Waits between tries.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        named = endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ENDPOINT
        self.endpoint = named.rstrip("/")
        self._timeout = timeout
        self._sleep = sleep
        self._token = ""
        # Never through a proxy, which would answer for its own host, and to nowhere else.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())

    def placement(self) -> Placement:
        """Where this runs.

        Raises:
            MetadataError: it can't be found out.
        """
        return Placement(
            self._need("meta-data/instance-id"),
            self._need("meta-data/placement/availability-zone"),
            self._need("meta-data/placement/region"),
            self._need("meta-data/local-ipv4"),
        )

    def notice(self) -> Notice | None:
        """Whether the instance is to go, and why; the surest reason first.

        Raises:
            MetadataError: it can't be found out.
        """
        # The second, from a warm pool.
        ends = ("Terminated", "Warmed:Terminated")
        if self.get("meta-data/autoscaling/target-lifecycle-state") in ends:
            return Notice("terminated")
        if spot := self._document("meta-data/spot/instance-action"):
            return Notice("spot", str(spot.get("time", "")))
        if early := self._document("meta-data/events/recommendations/rebalance"):
            return Notice("rebalance", str(early.get("noticeTime", "")))
        return None

    def get(self, path: str) -> str | None:
        """What is at a path below ``/latest``; None when there is nothing.

        Raises:
            MetadataError: nobody answers, or refuses.
        """
        for attempt in range(TRIES):
            if attempt:
                self._sleep(PAUSE * 2 ** (attempt - 1))
            last = attempt == TRIES - 1
            try:
                if not self._token:
                    wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
                    self._token = self._ask("PUT", "api/token", wanted)
                return self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                if error.code == _NOT_FOUND and self._token:
                    return None
                if error.code == _UNAUTHORIZED:
                    self._token = ""  # its time is over
                elif error.code != _TOO_MANY and error.code < _FAILING:
                    raise self._refused(path, error) from error
                if last:
                    raise self._refused(path, error) from error
            except (OSError, HTTPException) as error:
                if last:
                    raise MetadataError(
                        f"the instance metadata service at {self.endpoint} does not answer"
                        f" ({error}); is this an EC2 instance? In a container its hop limit must"
                        " be 2 or the network the host's"
                    ) from error
        raise AssertionError("unreachable")

    def _need(self, path: str) -> str:
        found = self.get(path)
        if not found:
            raise MetadataError(f"the instance metadata at {self.endpoint} has no {path}")
        return found

    def _document(self, path: str) -> dict[str, Any] | None:
        text = self.get(path)
        if text is None:
            return None
        try:
            found = json.loads(text)
        except ValueError as error:
            raise MetadataError(f"{path} at {self.endpoint} is no JSON: {text[:80]!r}") from error
        return found if isinstance(found, dict) else {}

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(  # noqa: S310 - the scheme is the environment's to choose
            f"{self.endpoint}/latest/{path}", method=method, headers=headers
        )
        with self._opener.open(request, timeout=self._timeout) as answer:
            text: str = answer.read().decode()
        return text.strip()

    def _refused(self, path: str, error: urllib.error.HTTPError) -> MetadataError:
        hint = " (is the service turned off for this instance?)" if error.code == _FORBIDDEN else ""
        return MetadataError(
            f"the instance metadata service at {self.endpoint} refuses {path}: {error}{hint}"
        )


class _Stay(urllib.request.HTTPRedirectHandler):
    """The token is for this service; it follows nobody elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None
