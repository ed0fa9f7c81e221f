"""A moto server that takes requests for such as came by TLS; see tests/support/moto_server.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

from tests.support.terraform import REPOSITORY

_URL = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


class MotoOverTls:
    """A server on a free port; ends with the block."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.moto_server", "-H", "127.0.0.1", "-p", "0"],
            cwd=REPOSITORY,
            # Groups' instances need no image that moto knows.
            env=os.environ | {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if found := _URL.search(line):
                self.url = found[1]
                break
        else:
            raise AssertionError(f"moto's server did not start: {lines}")
        # Read to the end, else a full pipe stops it.
        self._reader = threading.Thread(target=lambda: [None for _ in self._process.stderr])
        self._reader.start()
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stderr.close()
