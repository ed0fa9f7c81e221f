"""Directories in forked children, under gevent, and under asyncio."""

import asyncio
import os
import subprocess
import sys
import textwrap

import shoal.aio.directory
from shoal_balancer import Replica
from tests.support.waiting import eventually

A = Replica("a", "127.0.0.1", 5001, registered_at=1.0)
B = Replica("b", "127.0.0.1", 5002, registered_at=2.0)


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fork_after_use_gets_a_session_and_a_caller_id_of_its_own(chroot, tmp_path, directories):
    script = """
        import os, sys, threading
        from shoal.directory import Directory
        from shoal_balancer import Replica

        directory = Directory(sys.argv[1], cache_dir=sys.argv[2])
        parent = directory.announce("jobs", Replica("a", "127.0.0.1", 5001))
        watch = directory.watch("jobs")
        directory.ready("jobs")
        session, caller = directory._session.session_id, directory.caller_id
        pid = os.fork()
        if pid == 0:
            assert directory.caller_id != caller
            assert directory._session is None
            assert [each.id for each in watch.replicas()] == ["a"]
            # The parent's announcement is the parent's: this must neither hang nor delete it.
            parent.withdraw()
            directory.announce("jobs", Replica("b", "127.0.0.1", 5002))
            assert [each.id for each in directory.ready("jobs", count=2)] == ["a", "b"]
            assert directory._session.session_id != session
            assert directory.watch("jobs") is watch
            directory.close()
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert directory._session.session_id == session
        assert [each.id for each in directory.ready("jobs")][0] == "a"
        print("parent unharmed")
        directory.close()
    """
    assert "parent unharmed" in run(script, chroot, tmp_path)


def test_a_child_that_never_uses_the_directory_ends_without_a_hang(chroot, tmp_path):
    script = """
        import os, sys
        from shoal.directory import Directory

        directory = Directory(sys.argv[1], cache_dir=sys.argv[2])
        directory.watch("jobs")
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        directory.close()
        print("done")
    """
    assert "done" in run(script, chroot, tmp_path)


def test_trap_10_under_gevent_the_session_runs_on_greenlets_and_closes_from_a_listener(
    chroot, tmp_path
):
    script = """
        from gevent import monkey
        monkey.patch_all()
        import sys, threading, time
        import gevent
        from kazoo.handlers.gevent import SequentialGeventHandler
        from shoal.directory import Directory
        from shoal_balancer import Replica

        directory = Directory(sys.argv[1], cache_dir=sys.argv[2])
        other = Directory(sys.argv[1], cache_dir=sys.argv[2])
        ticks = []
        def tick():
            while True:
                ticks.append(time.monotonic())
                gevent.sleep(0.01)
        ticker = gevent.spawn(tick)
        registration = directory.announce("jobs", Replica("a", "127.0.0.1", 5001))
        assert isinstance(directory._session.client.handler, SequentialGeventHandler)
        assert [each.id for each in other.ready("jobs")] == ["a"]
        ticks.clear()
        try:
            other.ready("jobs", timeout=1.0, count=9)
        except TimeoutError:
            # Nobody held the hub while we waited.
            assert len(ticks) > 3
        closed = threading.Event()
        def close(replicas):
            if any(each.id == "b" for each in replicas):
                other.close()
                closed.set()
        other.watch("jobs").subscribe(close)
        directory.announce("jobs", Replica("b", "127.0.0.1", 5002))
        assert closed.wait(30)
        registration.withdraw()
        directory.close()
        ticker.kill()
        print("done")
    """
    assert "done" in run(script, chroot, tmp_path)


def test_under_gevent_a_dead_zookeeper_raises_no_gevent_timeout(tmp_path):
    script = """
        from gevent import monkey
        monkey.patch_all()
        import sys
        from shoal.directory import Directory
        from shoal.errors import RegistrationError
        from shoal_balancer import Replica

        with Directory("127.0.0.1:1/x", cache_dir=sys.argv[1]) as directory:
            try:
                directory.announce("jobs", Replica("a", "127.0.0.1", 5001), timeout=0.5)
            except RegistrationError as error:
                print("done", error)
    """
    assert "done" in run(script, tmp_path)


async def test_the_asyncio_directory_waits_without_holding_the_loop(chroot, tmp_path, directories):
    server = directories()
    async with shoal.aio.directory.Directory(chroot, cache_dir=tmp_path / "aio") as directory:
        waiting = asyncio.create_task(directory.ready("jobs", count=2))
        await asyncio.to_thread(server.announce, "jobs", A)
        registration = await asyncio.to_thread(directory.announce, "jobs", B)
        assert await waiting == (A, B)
        assert directory.watch("jobs").replicas() == (A, B)
        assert directory.describe() == "connected"
        assert directory.caller_id == directory.sync.caller_id
        await asyncio.to_thread(registration.withdraw)
    await directory.aclose()
    assert directory.describe() == "not used yet"
    eventually(lambda: server.watch("jobs").replicas() == (A,))
