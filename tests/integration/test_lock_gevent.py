"""Locks and leadership in a process that gevent has patched."""

import subprocess
import sys
import textwrap

PROGRAM = """
    from gevent import monkey
    monkey.patch_all()
    import sys, tempfile, threading
    import gevent, shoal

    with shoal.Directory(sys.argv[1], cache_dir=tempfile.mkdtemp()) as directory:
        first, second = shoal.Lock(directory, "x"), shoal.Lock(directory, "x")
        with first:
            waiting = gevent.spawn(second.acquire)
            gevent.sleep(0.2)
            assert not waiting.ready()
            killed = gevent.spawn(shoal.Lock(directory, "x").acquire)
            gevent.sleep(0.2)
            killed.kill()
        assert waiting.get(timeout=60) > 0
        assert second.held
        second.release()
        assert first.contenders() == []
        led = threading.Event()

        def lead(term):
            led.set()
            term.over.wait(60)

        with shoal.Leadership(directory, "x", lead) as leadership:
            assert led.wait(60)
            assert leadership.leads
    print("done")
"""


def test_greenlets_wait_and_are_killed_without_leaving_anything(chroot):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), chroot],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.stdout.strip() == "done", done.stderr
