"""What the documentation says is tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tests_that_docs_name_are_there():
    tests = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))
    }
    named = {
        name
        for file in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"`(test_\w+)`", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 40
    assert named - tests == set()
