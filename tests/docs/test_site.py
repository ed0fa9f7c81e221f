"""The documentation as a site: it builds without a warning, hangs together and fetches nothing."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import shoal
import shoal.aio
import shoal.testing
import shoal_balancer

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(values[key] for key in ("id", "name") if values.get(key))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(values["href"])
        elif values.get("src"):
            self.loaded.append(values["src"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site, made as `make docs` makes it, and what was said meanwhile."""
    out = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).parent / "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", out],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stderr


@pytest.fixture(scope="module")
def pages(built):
    out, _ = built
    return {path.relative_to(out): Page(path.read_text()) for path in out.rglob("*.html")}


def test_it_builds_without_a_warning(built):
    _, said = built
    assert "WARNING" not in said
    assert "ERROR" not in said


def test_each_link_and_anchor_within_leads_somewhere(built, pages):
    out, _ = built
    lost = []
    for here, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            # The page for what is not found has links from the root of wherever the site is put.
            if parts.scheme or parts.netloc or here == Path("404.html"):
                continue
            there = (
                (out / here.parent / unquote(parts.path)).resolve() if parts.path else out / here
            )
            target = pages.get(there.relative_to(out.resolve() if parts.path else out))
            if not there.exists():
                lost.append(f"{here}: {link}")
            elif parts.fragment and target and unquote(parts.fragment) not in target.anchors:
                lost.append(f"{here}: {link}, no such anchor")
    assert lost == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(built, pages):
    out, _ = built
    loaded = {(here, what) for here, page in pages.items() for what in page.loaded}
    elsewhere = {
        (here, what)
        for here, what in loaded
        if urlsplit(what).netloc or urlsplit(what).scheme not in ("", "data")
    }
    assert elsewhere == set()
    assert len(loaded) > 100
    for sheet in out.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_the_reference_has_every_public_name(built):
    out, _ = built
    anchors = set()
    for path in (out / "reference").glob("*.html"):
        anchors |= Page(path.read_text()).anchors
    public = {
        f"{module.__name__}.{name}"
        for module in (shoal, shoal.aio, shoal.testing)
        for name in module.__all__
    }
    # Policies and the like are documented where they are at home.
    missing = {
        name
        for name in public - anchors
        if name.replace("shoal.", "shoal_balancer.", 1) not in anchors
    }
    assert missing == set()
    policies = {name for name in shoal_balancer.__all__ if name in shoal.__all__}
    assert {f"shoal_balancer.{name}" for name in policies} - anchors == set()


def test_lists_are_lists_on_the_site_too():
    """A list right behind a paragraph is one in a repository's pages, and is text to mkdocs."""
    glued = []
    sources = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "terraform" / "README.md"]
    for path in sources:
        before, fenced = "", False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("```"):
                fenced = not fenced
            begins = re.match(r"([-*] |1\. |\|)", line)
            inside = re.match(r"([-*] |\d+\. |\||#|\s|$|>|```|<!--)", before)
            if begins and not fenced and not inside and not continues(path, number):
                glued.append(f"{path.relative_to(ROOT)}:{number}: {line[:60]}")
            before = line
    assert glued == []


def continues(path, number):
    """Whether the line before goes on with a list's entry: it began further up, without a gap."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in reversed(lines[: number - 1]):
        if re.match(r"([-*] |\d+\. )", line):
            return True
        if not line.strip():
            return False
    return False
