"""Contracts between callers and replicas: what they are, and whether two of them fit."""

from shoal.contracts.problems import Problem, Rule
from shoal.contracts.rules import compare
from shoal.contracts.served import KEY, NAMES, ServedContract
from shoal.contracts.wanted import Asked, Contract

__all__ = ["KEY", "NAMES", "Asked", "Contract", "Problem", "Rule", "ServedContract", "compare"]
