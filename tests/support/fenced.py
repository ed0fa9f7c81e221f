"""A process that holds a lock again and again, and writes under its fence into a shared register.

    python -m tests.support.fenced ZOOKEEPER CACHE STORE NAME

It writes without asking whether it still holds the lock, as a program does that was paused between
its look and its write: the register is what refuses. It prints JSON lines: what it did, and when by
the machine's clock, which all processes share. It ends when its input does.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from pathlib import Path

import shoal
from shoal.recipes.tenure import uptime

LOCK = "history"
# Writes of one holding, and seconds between them.
WRITES, BETWEEN = 12, 0.02


def make_register(path: Path) -> None:
    """A register that knows the highest fence that it has seen, and the writes that it took."""
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("CREATE TABLE register (fence INTEGER NOT NULL)")
        store.execute("INSERT INTO register VALUES (0)")
        store.execute(
            "CREATE TABLE taken (seq INTEGER PRIMARY KEY AUTOINCREMENT, fence INTEGER, who TEXT)"
        )


def write(store: sqlite3.Connection, fence: int, who: str) -> bool:
    """Writes under a fence; whether the register took it."""
    with store:
        store.execute("BEGIN IMMEDIATE")
        change = store.execute("UPDATE register SET fence = ? WHERE fence <= ?", (fence, fence))
        if change.rowcount == 1:
            store.execute("INSERT INTO taken (fence, who) VALUES (?, ?)", (fence, who))
        return change.rowcount == 1


def main(hosts: str, cache: str, path: str, name: str) -> None:
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()

    def say(event: str, **facts: object) -> None:
        line = {"who": name, "event": event, "at": uptime(), **facts}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    store = sqlite3.connect(path, timeout=60.0, isolation_level=None)
    with shoal.Directory(hosts, cache_dir=cache, session_timeout=2.0) as directory:
        while not over.is_set():
            lock = shoal.Lock(directory, LOCK, who=name)
            try:
                fence = lock.acquire(1.0)
            except shoal.LockTimeoutError:
                continue
            session, password = directory.desk().client.client_id
            say("held", fence=fence, session=session, password=password.hex())
            for _ in range(WRITES):
                held, now = lock.held, uptime()
                if held:
                    say("still held", fence=fence, now=now)
                if not write(store, fence, name):
                    say("refused", fence=fence, held=lock.held)
                    break
                time.sleep(BETWEEN)  # the work of a holder
            lock.release()
            say("left", fence=fence)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
