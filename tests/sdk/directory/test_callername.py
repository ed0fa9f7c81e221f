"""What a caller is called in a drain's report."""

import os
import uuid

import pytest

from shoal import callername


def test_it_says_program_host_and_process_and_ends_with_what_is_unique():
    unique = uuid.uuid4()
    name = callername.named(unique)
    assert name.endswith(f".{os.getpid()}.{unique}")
    assert "@" in name


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["/usr/bin/locust", "-f", "x.py"], "locust"),
        (["/srv/nightly.py"], "nightly"),
        (["/srv/shoal_gateway/scheduler/__main__.py"], "scheduler"),
        (["-c"], "-c"),
        ([""], "python"),
        ([], "python"),
    ],
)
def test_a_program_is_called_what_people_call_it(arguments, program):
    assert callername.program(arguments) == program


def test_a_name_is_one_plain_word_whatever_the_path_holds(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/srv/näch\udcfftlich\n nr 1.py"])
    name = callername.named(uuid.uuid4())
    assert name.isascii()
    assert name.startswith("n_ch_tlich_nr_1@")
