"""Which replicas a channel may call, by the version that they announce and their contract.

Decided when the set changes, and never by a call. What is decided for a contract is kept under its
digest, so that a set of a thousand replicas costs a handful of comparisons.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shoal.contracts import KEY, NAMES, Contract, ServedContract
from shoal.errors import ContractError
from shoal_balancer import Replica, VersionRange

logger = logging.getLogger(__name__)

# How much an error says of who was passed over, and why.
PROBLEMS, GROUPS, NAMED = 4, 4, 3


@dataclass(frozen=True, slots=True)
class Unfit:
    """A replica that a channel passes over.

    Attributes:
        replica: Which.
        why: What is wrong, to follow its version in a sentence.
        contract: Whether it is its contract, and not its version.
        pending: Whether its contract is not read yet, and it may prove fit in a moment.
    """

    replica: Replica
    why: str
    contract: bool = False
    pending: bool = False


class Fitness:
    """What one channel asks of replicas beside its filter.

    Args:
        version: The range of versions that it takes; all when None.
        contract: What it calls; nothing is compared when None.

    Raises:
        ValueError: the range or the contract can't be read.
    """

    def __init__(self, version: str | VersionRange | None, contract: Any) -> None:
        self._range = VersionRange.parse(version) if isinstance(version, str) else version
        made = Contract.of(contract)
        self.asked = made.asked() if made is not None else None
        # By digest: what was published, why it can't be read, or None while it is being read.
        self._read: dict[str, ServedContract | str | None] = {}

    def begin(self) -> None:
        """Starts anew, in a forked child perhaps: nobody there reads what the parent asked for."""
        self._read = {digest: found for digest, found in self._read.items() if found is not None}

    def unread(self, replicas: Iterable[Replica]) -> list[str]:
        """Digests of contracts that have to be read; each is told once."""
        if self.asked is None:
            return []
        found = [
            digest
            for replica in replicas
            if (digest := replica.metadata.get(KEY)) and self._off_range(replica) is None
        ]
        new = [digest for digest in dict.fromkeys(found) if digest not in self._read]
        self._read.update(dict.fromkeys(new))
        return new

    @property
    def reading(self) -> bool:
        """Whether contracts were asked for that have not come yet."""
        return None in self._read.values()

    def read(self, digest: str, found: ServedContract | str) -> None:
        """Takes in what was published under a digest, or why that can't be read.

        What can't be read is held against nobody: ZooKeeper may be away, and replicas that serve
        are worth more than a check.
        """
        if isinstance(found, str):
            logger.warning("%s; replicas that announce it are called without a check", found)
        self._read[digest] = found

    def judge(self, replica: Replica) -> Unfit | None:
        """What keeps this channel from a replica; None when nothing does."""
        off = self._off_range(replica)
        if off is not None:
            return Unfit(replica, off)
        digest = replica.metadata.get(KEY)
        if not self.asked or not digest:
            return None  # a server of another make says nothing of its contract
        served = self._read.get(digest)
        if served is None:
            return Unfit(replica, "has a contract that is being read", pending=True)
        if isinstance(served, str):
            return None
        try:
            problems = self.asked.problems(served, replica.metadata.get(NAMES, ""))
        except ContractError as error:
            self.read(digest, str(error))
            return None
        if not problems:
            return None
        more = len(problems) - PROBLEMS
        listed = "; ".join(str(problem) for problem in problems[:PROBLEMS])
        rest = f"; and {more} more" if more > 0 else ""
        return Unfit(replica, f"has another contract: {listed}{rest}", contract=True)

    def _off_range(self, replica: Replica) -> str | None:
        return None if self._range is None else self._range.why_not(replica.version)


def describe(unfit: Iterable[Unfit]) -> str:
    """Who was passed over and why, for an error; replicas of one version and fault together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in unfit:
        version = f"version {each.replica.version}" if each.replica.version else "no version"
        groups.setdefault((version, each.why), []).append(each.replica.id)
    told = []
    for (version, why), names in list(groups.items())[:GROUPS]:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        word = "replica" if len(names) == 1 else "replicas"
        told.append(f"{version} ({word} {', '.join(names[:NAMED])}{more}) {why}")
    if len(groups) > GROUPS:
        told.append(f"{len(groups) - GROUPS} other versions or faults")
    return "; ".join(told)
