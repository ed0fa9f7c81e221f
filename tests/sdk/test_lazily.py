"""Names of the packages that are loaded when they are asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
import shoal.aio
import shoal.testing
import shoal_gateway.fleet

PACKAGES = [shoal, shoal.aio, shoal.testing, shoal_gateway.fleet]


def seen_by_type_checkers(package):
    """Names and their modules, as they stand under ``TYPE_CHECKING``."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    block = next(each for each in tree.body if isinstance(each, ast.If))
    return {
        name.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda each: each.__name__)
def test_type_checkers_see_the_names_that_are_there(package):
    declared = seen_by_type_checkers(package)
    assert set(declared) == set(package.__all__)
    for name, module in declared.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda each: each.__name__)
def test_a_name_that_nobody_has_is_no_attribute(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no .*'Directry'"):
        _ = package.Directry


def test_a_name_that_was_asked_for_is_kept():
    first = shoal.Directory
    assert vars(shoal)["Directory"] is first


def test_import_shoal_loads_what_is_asked_for_and_no_more():
    code = """
import sys, shoal
heavy = {"grpc", "kazoo", "tenacity", "google.protobuf", "asyncio"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
shoal.Directory
assert "kazoo.client" in sys.modules
assert not {"shoal.server", "pydantic", "cryptography"} & set(sys.modules)
from shoal import *
assert Server is shoal.server.Server
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
