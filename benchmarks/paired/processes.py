"""Programs that a case starts, pauses, kills and always ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self, cast

ROOT = Path(__file__).parents[2]
# How long an end in good order may take, seconds.
PATIENCE = 10.0


class Program:
    """One of our own programs: a line in, a line out.

    In a session of its own: Ctrl-C is for the benchmark, which ends its programs then.

    Args:
        module: What ``python -m`` runs.
        arguments: Its arguments.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.module = module
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def line(self) -> str:
        """The next line that it prints.

        Raises:
            RuntimeError: it ended instead.
        """
        text = cast("IO[str]", self.process.stdout).readline().strip()
        if not text:
            raise RuntimeError(f"{self.module} ended with {self.process.wait(PATIENCE)}")
        return text

    def ask(self, question: str = "") -> str:
        """What it answers to a line."""
        stdin = cast("IO[str]", self.process.stdin)
        stdin.write(question + "\n")
        stdin.flush()
        return self.line()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Ends it at once, if it still runs. Idempotent."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            # What was not read any more by a dead process is lost anyway.
            with contextlib.suppress(BrokenPipeError):
                cast("IO[str]", stream).close()


class EchoProcess(Program):
    """An echo server; see `benchmarks.paired.echo`."""

    def __init__(
        self,
        *,
        work: float = 0.0,
        fail: bool = False,
        addresses: int = 1,
        threads: bool = False,
        tls: Path | None = None,
    ) -> None:
        super().__init__(
            "benchmarks.paired.echo",
            f"--work={work}",
            f"--addresses={addresses}",
            *(["--fail"] * fail),
            *(["--threads"] * threads),
            *([f"--tls={tls}"] if tls is not None else []),
        )
        self.target = ""
        # Of its port for TLS, where it has one.
        self.secure = ""

    def wait(self) -> Self:
        """Waits until it listens, and learns its ``target``."""
        self.target, _, self.secure = self.line().partition(" ")
        return self

    @property
    def calls(self) -> int:
        """How many calls it has had."""
        return int(self.ask())


class Daemon:
    """A foreign server process with a log.

    Args:
        command: Its command line; it must stay in the foreground.
        log: Where its output goes.
        environment: Added to ours.
    """

    def __init__(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process: subprocess.Popen[Any] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def end(self) -> None:
        """Ends it, as an operator would first."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
