"""Tests that need root, and a program that every account can run."""

import os
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(PYTHON).exists(),
    reason="accounts are given by root only, to programs that all can run",
)
