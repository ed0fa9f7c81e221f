"""The environment that the lock makes."""

import sysconfig
from collections import defaultdict
from importlib import metadata


def test_no_file_belongs_to_two_packages():
    """Where two packages bring the same file, whichever pip happens to install last has it."""
    owners = defaultdict(set)
    for package in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        name = package.metadata["Name"]
        for line in (package.read_text("RECORD") or "").splitlines():
            file = line.split(",", 1)[0]
            if file.endswith(".py"):
                owners[file].add(name)
    shared = {file: sorted(names) for file, names in owners.items() if len(names) > 1}
    assert shared == {}, "`make clean`, then again; or see requirements/xds.in for a way out"
