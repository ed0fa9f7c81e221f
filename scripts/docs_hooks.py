"""What mkdocs does not do by itself: pages from outside docs/, and links that work in both places.

A link in our pages is relative to its file, so that it works wherever the repository is read. On
the site some files are elsewhere (README is the home page), and some are not there at all (a unit
of systemd): links to the first are moved, links to the second become plain text. A link to nothing
is left alone, and mkdocs's strict mode fails.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# Where a file of the repository is on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "terraform/README.md": "terraform.md",
}
# A folder of decisions is a link that a repository's pages show as a list.
FOLDERS = {"docs/adr": "adr/README.md"}

# Pages whose tables want the room of the table of contents.
WIDE = {"comparison.md"}

_FENCE = re.compile(r"^(```.*?^```\s*?$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Moves the links of a page; `adr/README.md` gets the list of the decisions."""
    del config
    here = page.file.src_uri
    if here in WIDE:
        page.meta["hide"] = ["toc"]
    if here == "adr/README.md":
        markdown += "\n" + _decisions(files)
    return _outside_code(markdown, lambda text: _LINK.sub(lambda link: _moved(link, here), text))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def _moved(link: re.Match[str], here: str) -> str:
    target = link["target"]
    if re.match(r"[a-z]+:|#|/", target):
        return link[0]
    path, hash_, anchor = target.partition("#")
    in_repository = _normal(_repository_path(here), path)
    on_site = _site_path(in_repository)
    if on_site is None:
        return link["text"] if (ROOT / in_repository).exists() else link[0]
    relative = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
    return f"{link['image']}[{link['text']}]({relative}{hash_}{anchor})"


def _repository_path(page: str) -> str:
    for source, there in ELSEWHERE.items():
        if there == page:
            return source
    return f"docs/{page}"


def _normal(source: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))


def _site_path(in_repository: str) -> str | None:
    """Where a file of the repository is on the site, None where it is not."""
    if in_repository in FOLDERS:
        return FOLDERS[in_repository]
    if in_repository in ELSEWHERE:
        return ELSEWHERE[in_repository]
    if in_repository.startswith("docs/"):
        return in_repository.removeprefix("docs/")
    return None


def _decisions(files: Files) -> str:
    titles = []
    for file in files.documentation_pages():
        if file.src_uri.startswith("adr/0"):
            title = (ROOT / "docs" / file.src_uri).read_text(encoding="utf-8").splitlines()[0]
            titles.append(f"- [{title.removeprefix('# ')}]({posixpath.basename(file.src_uri)})")
    return "\n".join(sorted(titles, key=lambda title: title.partition("](")[2])) + "\n"
