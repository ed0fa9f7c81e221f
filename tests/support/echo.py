"""The Echo service of shoal.testing.v1, on plain grpc: in this process, or in one of its own.

As a program it prints its target and serves until it is killed:  python -m tests.support.echo NAME
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import grpc

from shoal_protos.testing.v1 import echo_pb2, echo_pb2_grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
ROOT = Path(__file__).parents[2]


class Echo(echo_pb2_grpc.EchoServicer):
    """Answers with what it got, and says who it is.

    ``seen`` holds (method, metadata) of each call; ``script``, when set, is called with the context
    before anything else and may abort.
    """

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.script = None
        self._calls = itertools.count(1)

    def _answer(self, request, context, method) -> echo_pb2.EchoResponse:
        self.seen.append((method, dict(context.invocation_metadata())))
        if self.script is not None:
            self.script(context)
        if request.work:
            # Work is what the test asks for; a handler has nothing to await.
            time.sleep(request.work)
        return echo_pb2.EchoResponse(
            payload=request.payload, server=self.name, calls=next(self._calls)
        )

    def _end(self, request, context) -> None:
        if request.code:
            context.abort(CODES[request.code], f"{self.name} was told to fail")

    def Echo(self, request, context):
        answer = self._answer(request, context, "Echo")
        self._end(request, context)
        return answer

    def EchoOnce(self, request, context):
        answer = self._answer(request, context, "EchoOnce")
        self._end(request, context)
        return answer

    def EchoDown(self, request, context):
        answer = self._answer(request, context, "EchoDown")
        if request.code and not request.fail_after:
            self._end(request, context)
        for number in range(request.answers or 1):
            if request.code and number >= request.fail_after:
                self._end(request, context)
            yield answer
        self._end(request, context)

    def EchoUp(self, request_iterator, context):
        payload = b""
        last = echo_pb2.EchoRequest()
        for last in request_iterator:
            payload += last.payload
        answer = self._answer(last, context, "EchoUp")
        self._end(last, context)
        answer.payload = payload
        return answer

    def EchoBoth(self, request_iterator, context):
        for request in request_iterator:
            answer = self._answer(request, context, "EchoBoth")
            self._end(request, context)
            yield answer


class EchoServer:
    """A plain grpc server with the Echo service in this process."""

    def __init__(self, name: str = "echo", port: int = 0) -> None:
        self.servicer = Echo(name)
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        echo_pb2_grpc.add_EchoServicer_to_server(self.servicer, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def seen(self) -> list[tuple[str, dict[str, str]]]:
        return self.servicer.seen

    def stop(self) -> None:
        self.server.stop(None).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.stop()


class EchoProcess:
    """The same in a process of its own, to be killed and paused.

    With ``hold`` each call says that it has arrived (`arrived`) and is held for that many seconds.
    """

    def __init__(self, name: str = "echo", hold: float = 0.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.echo", name, str(hold)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.name = name
        self.target = self.process.stdout.readline().strip()
        assert self.target, f"{name} did not start"

    @property
    def port(self) -> int:
        return int(self.target.rpartition(":")[2])

    def arrived(self) -> None:
        """Waits for the next call that is held."""
        line = self.process.stdout.readline()
        assert line == "arrived\n", f"{self.name} ended"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        self.process.stdout.close()


def main() -> None:
    server = EchoServer(sys.argv[1])
    hold = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

    def held(_) -> None:
        print("arrived", flush=True)
        time.sleep(hold)

    if hold:
        server.servicer.script = held
    print(server.target, flush=True)
    if os.getppid() == 1:
        return
    server.server.wait_for_termination()


if __name__ == "__main__":
    main()
