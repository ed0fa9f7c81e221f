"""Runs the code blocks of a page as its reader would: files are written, commands typed.

A page is ordinary Markdown. What its blocks mean here:

- a block with ``title="name"`` is a file, written into the reader's directory;
- a ``console`` block is typed into a shell: what follows ``$ command`` (and ``> `` lines that
  go on with it) is what it must print, where ``…`` stands for any text, and alone on a line for any
  lines. ``^C`` is the key. A command that fails, fails the page;
- a comment before a block says what can't be seen in it: ``<!-- test: terminal caller -->`` types
  into a shell of that name, ``<!-- test: runs -->`` does not wait for the last command's end but
  for its output, ``<!-- test: shows -->`` waits for these lines from what runs there,
  ``<!-- test: fragment -->`` is Python that stands for itself and only has to compile, and
  ``<!-- test: skip: why -->`` leaves it out.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.waiting import eventually

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<hint>[^\n]*?) -->\n)?"
    r"^(?P<fence>```+)(?P<language>[\w-]*)(?P<options>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_SKIP = re.compile(r"skip: (?P<why>.+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PATIENCE = 40.0


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    line: int
    language: str
    title: str | None
    body: str
    terminal: str
    runs: bool
    shows: bool
    fragment: bool
    skip: str | None


@dataclass(frozen=True)
class Step:
    """A command or ^C, and the lines that must follow."""

    command: str
    expected: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order.

    Raises:
        ValueError: a hint that says nothing known.
    """
    return [_block(text, found) for found in _BLOCK.finditer(text)]


def _block(text: str, found: re.Match[str]) -> Block:
    line = text.count("\n", 0, found.start("fence")) + 1
    hint = found["hint"] or ""
    skip = _SKIP.fullmatch(hint)
    rest = "" if skip else hint
    terminal = re.search(r"terminal (\S+?)(?:,|$)", rest)
    words = {word.strip() for word in rest.split(",")} - {""}
    unknown = {
        word for word in words if not re.fullmatch(r"terminal \S+|runs|shows|fragment", word)
    }
    if unknown:
        raise ValueError(f"line {line}: unknown hint {sorted(unknown)}")
    title = _TITLE.search(found["options"])
    return Block(
        line,
        found["language"],
        title[1] if title else None,
        found["body"],
        terminal[1] if terminal else "first",
        "runs" in words,
        "shows" in words,
        "fragment" in words,
        skip["why"] if skip else None,
    )


def steps(body: str) -> list[Step]:
    """The commands of a console block with what each must print."""
    made: list[tuple[list[str], list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ ") or line == "^C":
            made.append(([line.removeprefix("$ ")], []))
        elif line.startswith("> ") and made and not made[-1][1]:
            made[-1][0].append(line.removeprefix("> "))
        elif made:
            made[-1][1].append(line)
        else:
            raise ValueError(f"output before any command: {line!r}")
    return [Step("\n".join(command), tuple(expected)) for command, expected in made]


def matches(expected: tuple[str, ...], printed: list[str]) -> bool:
    """Whether these lines are what was to be printed, ``…`` standing for anything."""
    pattern = "".join(
        r"(?:[^\n]*\n)*" if line.strip() == "…" else _line(line) + r"\n" for line in expected
    )
    text = "".join(f"{line.rstrip()}\n" for line in printed)
    return re.fullmatch(pattern, text) is not None


def _line(expected: str) -> str:
    # Where a reader sees a table, columns are as wide as what is in them.
    parts = re.split(r"(…| {2,})", expected.rstrip())
    known = {"…": r"[^\n]*?"}
    return "".join(
        known.get(part) or (r" +" if part.startswith("  ") else re.escape(part)) for part in parts
    )


class Terminal:
    """A shell into which commands are typed."""

    def __init__(self, directory: Path, log: Path, environment: dict[str, str]) -> None:
        self._log = log
        self._seen = 0
        with log.open("wb") as output:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Ctrl-C is for what runs in it, not for the shell itself.
        self._type("trap : INT")
        self._awaited: str | None = None

    def _type(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\n".encode())
        self._shell.stdin.flush()

    def _text(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return _COLOURS.sub("", text[self._seen :]).replace("\r", "")

    def run(self, command: str) -> tuple[int, list[str]]:
        """Types a command and waits for its end: its exit code and what it printed."""
        self.start(command)
        return self.end()

    def start(self, command: str) -> None:
        """Types a command that goes on."""
        assert self._awaited is None, f"something runs in this terminal already: {self._text()}"
        self._seen = len(self._log.read_text(encoding="utf-8", errors="replace"))
        self._awaited = f"end-{uuid.uuid4().hex}"
        self._type(f"{command}\nprintf '%s %d\\n' {self._awaited} $?")

    def end(self) -> tuple[int, list[str]]:
        """Waits for the end of what runs."""
        mark = re.compile(rf"{self._awaited} (\d+)\n")
        try:
            found = eventually(lambda: mark.search(self._text()), PATIENCE, "the command's end")
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed:\n{self._text()}") from error
        self._awaited = None
        return int(found[1]), self._text()[: found.start()].splitlines()

    def shows(self, expected: tuple[str, ...]) -> None:
        """Waits until what runs prints these lines, one after the other, whatever is between."""
        for line in expected:
            pattern = re.compile(rf"^{_line(line)}\s*$\n", re.MULTILINE)
            try:
                found = eventually(lambda p=pattern: p.search(self._text()), PATIENCE, repr(line))
            except AssertionError as error:
                raise AssertionError(f"{error}; it printed:\n{self._text()}") from error
            self._seen += found.end()

    def from_now(self) -> None:
        """Forgets what was printed until now."""
        self._seen += len(self._text())

    def interrupt(self) -> None:
        """The reader presses Ctrl-C."""
        os.killpg(self._shell.pid, signal.SIGINT)

    def close(self) -> None:
        """Ends the shell and all that was started in it."""
        with contextlib.suppress(OSError):
            os.killpg(self._shell.pid, signal.SIGINT)
        self._type("kill $(jobs -p) 2>/dev/null; wait; exit")
        try:
            self._shell.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait(15)


@dataclass
class Reader:
    """Somebody who does what a page says, in a directory of their own.

    Attributes:
        directory: Where files are written and commands run.
        logs: Where the terminals' output goes.
        replace: What stands in the page, by what it is here: a port, a path.
        environment: Of all commands.
    """

    directory: Path
    logs: Path
    replace: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    _terminals: dict[str, Terminal] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The last one first: what it started may live on what was started before.
        for terminal in reversed(self._terminals.values()):
            terminal.close()

    def read(self, page: Path, *, files_only: bool = False) -> None:
        """Does what the page says.

        Raises:
            AssertionError: something did not go as the page has it; with page and line.
        """
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.skip is not None or (files_only and block.title is None):
                continue
            try:
                self._do(block)
            except AssertionError as error:
                raise AssertionError(f"{page.name}, line {block.line}: {error}") from error

    def _do(self, block: Block) -> None:
        body = self._here(block.body)
        if block.title is not None:
            path = self.directory / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
        elif block.fragment:
            compile(body, block.language, "exec")
        elif block.shows:
            terminal = self._terminal(block.terminal)
            terminal.from_now()
            terminal.shows(tuple(body.splitlines()))
        elif block.language == "console":
            self._type(block, steps(body))
        else:
            raise AssertionError(f"nobody runs this {block.language} block: name it, or skip it")

    def _type(self, block: Block, todo: list[Step]) -> None:
        terminal = self._terminal(block.terminal)
        for number, step in enumerate(todo):
            if block.runs and number == len(todo) - 1:
                terminal.start(step.command)
                terminal.shows(step.expected)
                continue
            if step.command == "^C":
                terminal.from_now()
                terminal.interrupt()
                code, printed = terminal.end()
                printed = [line for line in printed if line]
            else:
                code, printed = terminal.run(step.command)
            said = "\n".join(printed)
            assert code == 0, f"`{step.command}` ended with {code} and printed:\n{said}"
            if step.expected:
                wanted = "\n".join(step.expected)
                assert matches(step.expected, printed), (
                    f"`{step.command}` printed:\n{said}\nwhere the page has:\n{wanted}"
                )

    def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            log = self.logs / f"{name}.log"
            self._terminals[name] = Terminal(self.directory, log, self.environment)
        return self._terminals[name]

    def _here(self, text: str) -> str:
        for page, here in self.replace.items():
            text = text.replace(page, here)
        return text
