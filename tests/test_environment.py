"""The environment that the lock makes."""

from collections import defaultdict
from importlib import metadata


def test_no_file_belongs_to_two_packages():
    """Where two packages bring the same file, whichever pip happens to install last has it."""
    owners = defaultdict(set)
    for package in metadata.distributions():
        for file in package.files or ():
            if file.suffix == ".py":
                owners[str(file)].add(package.metadata["Name"])
    shared = {file: sorted(names) for file, names in owners.items() if len(names) > 1}
    assert shared == {}, "`make clean`, then again; or see requirements/xds.in for a way out"
