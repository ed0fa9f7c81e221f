"""What a caller calls, and whether a replica goes together with it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from shoal.contracts.problems import Problem
from shoal.contracts.rules import compare
from shoal.contracts.served import ServedContract


class Contract:
    """What a channel needs of its replicas; one that does not fit gets no call.

        directory.channel("registry", contract=shoal.Contract("shoal.gateway.registry.v1.Registry"))

    Args:
        what: Services and methods that are called: their descriptors, a ``…_pb2`` module (all of
            its services), or their full names (``package.Service``, ``package.Service/Method``).
            With none at all it is learned from the calls: each method's first call on a channel
            adds it.
        older: Whether replicas may be older than this caller. Fields and enum values that only this
            caller knows are then no problem: an older replica passes over them. Without it they are
            taken for removed, for nothing in two contracts tells which is the later one.

    Attributes:
        learns: Whether it is learned from the calls.

    Raises:
        ValueError: a name is not known here; says what to import.
        TypeError: something is neither of these.
    """

    def __init__(self, *what: Any, older: bool = False) -> None:
        self.older = older
        self.learns = not what
        self._given = {method.full_name: method for each in what for method in _methods(each)}

    def __repr__(self) -> str:
        names = ", ".join(self._given) if self._given else "learned"
        return f"Contract({names}{', older=True' if self.older else ''})"

    @classmethod
    def of(cls, given: Any) -> Contract | None:
        """The contract from a channel's argument: one, what makes one, or several of these."""
        if given is None or isinstance(given, Contract):
            return given
        if isinstance(given, Iterable) and not isinstance(given, str):
            return cls(*given)
        return cls(given)

    def asked(self) -> Asked:
        """What one channel asks for: what was given, and what it will learn."""
        return Asked(self, self._given)


class Asked:
    """The methods that one channel calls, and what follows for each digest.

    Verdicts are kept: a set of a thousand replicas has a handful of digests.
    """

    def __init__(self, contract: Contract, methods: dict[str, MethodDescriptor]) -> None:
        self._contract = contract
        self._methods = dict(methods)
        # By what a caller calls it. One without a descriptor here is known, too: it can't be asked.
        self._called: set[str] = set()
        self._verdicts: dict[tuple[str, str], tuple[Problem, ...]] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._methods)

    def unlearned(self, method: str) -> bool:
        """Whether the first call of ``/package.Service/Method`` has something to teach."""
        return self._contract.learns and method not in self._called

    def learn(self, method: str) -> bool:
        """Notes that a method is called; whether that changes what is asked of replicas."""
        with self._lock:
            if not self.unlearned(method):
                return False
            self._called.add(method)
            try:
                found = _methods(method.strip("/"))
            except ValueError:
                return False  # not of protobuf, or of a pool of its own: nobody can compare it
            self._methods = {**self._methods, **{each.full_name: each for each in found}}
            self._verdicts = {}
            return True

    def problems(self, served: ServedContract, names: str) -> tuple[Problem, ...]:
        """All that keeps this caller from a replica.

        Args:
            served: What it published.
            names: The services that it names in its metadata. One that is named and not described
                speaks something else than protobuf, or hides it, and is not judged.

        Raises:
            ContractError: what it published can't be understood here.
        """
        verdicts = self._verdicts
        key = (served.digest, names)
        known = verdicts.get(key)
        if known is None:
            named = set(names.split(","))
            methods = [
                method
                for method in self._methods.values()
                if (service := method.containing_service.full_name) not in named
                or served.service(service) is not None
            ]
            known = compare(methods, served.service, older=self._contract.older)
            verdicts[key] = known
        return known


def _methods(what: Any) -> list[MethodDescriptor]:
    if isinstance(what, str):
        return _named(what)
    if isinstance(what, MethodDescriptor):
        return [what]
    if isinstance(what, ServiceDescriptor):
        return list(what.methods)
    services = getattr(getattr(what, "DESCRIPTOR", what), "services_by_name", None)
    if services:
        return [method for service in services.values() for method in service.methods]
    raise TypeError(
        f"a contract is made of services, methods, their names or a module with services, not of "
        f"{what!r}"
    )


def _named(name: str) -> list[MethodDescriptor]:
    service, _, method = name.strip("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError as error:
        raise ValueError(
            f"service '{service}' is not known here: import its generated module first"
        ) from error
    if not method:
        return list(found.methods)
    if method not in found.methods_by_name:
        raise ValueError(f"service '{service}' has no method '{method}'")
    return [found.methods_by_name[method]]
