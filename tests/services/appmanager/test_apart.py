"""Jobs with accounts of their own: what one can't do to another, to its manager, or to the host.

They run as root, where managers give accounts, in a directory that every account can reach, with
the system's interpreter, which every account can run.
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import uuid
from pathlib import Path

import pytest

from shoal_gateway.appmanager import apart, supervisor
from shoal_gateway.appmanager.apart import Accounts
from shoal_gateway.appmanager.offers import Input
from shoal_gateway.appmanager.ports import Ended
from tests.services.appmanager.aparthost import CALLS, host
from tests.support.rooted import PYTHON, needs_root
from tests.support.waiting import eventually

__all__ = ["host"]


# Writes a secret, says where it is, and stays until it is told.
KEEP = """
import os, time
open("private", "w").write("of A")
print(os.path.realpath("private"), flush=True)
while not os.path.exists("/tmp/%s"): time.sleep(0.05)
"""

# Says what came of reading each path, and of listing each directory.
SPY = """
import os, sys
for path in sys.argv[1:]:
    for what in (lambda: open(path).read(), lambda: os.listdir(path)):
        try:
            print("GOT", path, what())
        except (IsADirectoryError, NotADirectoryError):
            pass
        except OSError as error:
            print("no", path, error.errno)
"""


@needs_root
def test_a_job_can_read_neither_anothers_directory_nor_the_managers_files(host):
    host.open()
    mark = uuid.uuid4().hex
    first = host.python(KEEP % mark)
    place = Path(eventually(lambda: host.said(first).strip(), what="A's word"))
    attempt = place.parent.parent
    assert place.read_text() == "of A"
    wanted = [
        place,
        place.parent,
        attempt,
        attempt / "spec.json",
        attempt / "claim.json",
        attempt / "stdout",
        attempt.parent,
        host.root,
        host.root / "secret",
        host.root / "ledger.jsonl",
        host.root / "objects",
        f"/proc/{host.pid(first)}/environ",
    ]
    spy_id, answer = host.start("{python}", "-c", SPY, *map(str, wanted))
    assert answer.verdict == "started"
    host.report(spy_id)
    said = host.said(spy_id)
    assert "GOT" not in said
    assert said.count("no ") >= len(wanted)
    (Path("/tmp") / mark).touch()
    try:
        assert host.report(first).ended is Ended.SUCCEEDED
    finally:
        (Path("/tmp") / mark).unlink()


@needs_root
def test_a_job_is_nobody_and_can_write_nowhere_but_in_its_directory(host):
    host.open()
    code = """
import os
print(os.getresuid(), os.getresgid(), os.getgroups(), oct(os.umask(0)))
print(open("/proc/self/status").read())
print(sorted(os.listdir("/proc/self/fd")))
open("mine", "w").write("x"); print("x", file=open("/dev/stderr", "w"))
for path in ("../x", "../stdout.2", "/var/x", "/run/shoal/uids/x", "../../../secret"):
    try:
        open(path, "w"); print("WROTE", path)
    except OSError: pass
try: os.setuid(0); print("ROOT")
except PermissionError: pass
"""
    result, said = host.outcome(code, outputs=("mine",))
    assert result.ended is Ended.SUCCEEDED, result
    uid = int(said.split("(")[1].split(",")[0])
    assert uid in apart.DEFAULT_UIDS
    assert said.startswith(f"({uid}, {uid}, {uid}) ({uid}, {uid}, {uid}) [] 0o22")
    assert "NoNewPrivs:\t1" in said
    assert "CapEff:\t0000000000000000" in said
    assert "WROTE" not in said
    assert "ROOT" not in said
    # Standard streams, and the directory that is being listed.
    assert "['0', '1', '2', '3']" in said
    (name, stored) = result.files[0]
    assert (name, b"".join(host.objects.get(stored.key))) == ("mine", b"x")


@needs_root
def test_inputs_are_the_jobs_own(host):
    host.open()
    data = b"1,2\n"
    digest = hashlib.sha256(data).hexdigest()
    host.objects.put("uploads/x", [data])
    result, said = host.outcome(
        "import os; open('in/a', 'a').write('3'); os.rename('in/a', 'b'); print(open('b').read())",
        inputs=(Input("in/a", "uploads/x", digest),),
        outputs=("b",),
    )
    assert (result.ended, said) == (Ended.SUCCEEDED, "1,2\n3\n")


BOMB = """
import os, sys, time
count = 0
while True:
    try:
        if os.fork():
            count += 1
        else:
            count = 0
    except BlockingIOError:
        os.write(1, b"FULL ")
        time.sleep(0.05)
"""


@needs_root
def test_a_fork_bomb_stays_small_and_leaves_nothing(host):
    host.open()
    bomb = host.python(BOMB, wall_seconds=3.0)
    eventually(lambda: "FULL" in host.said(bomb), what="the bound")
    uid = _uid_of(host, bomb)
    counted = eventually(lambda: len(_processes_of(uid)), what="its processes")
    assert counted <= 64
    # The manager lives and works; others' jobs run beside it.
    result, said = host.outcome("print('beside it')")
    assert (result.ended, said) == (Ended.SUCCEEDED, "beside it\n")
    assert host.report(bomb).ended is Ended.FAILED
    assert "limit of 3 s" in host.report(bomb).reason
    assert _processes_of(uid) == []


def _uid_of(host, job_id):
    (attempt,) = host.root.glob(f"attempts/local/{job_id}.*")
    return (attempt / "work").stat().st_uid


def _processes_of(uid):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@needs_root
def test_the_directory_is_closed_before_the_account_is_anothers(host):
    """A job's account is free when it has ended; what it left is not for the next one."""
    host.open()
    mark = Path("/tmp") / uuid.uuid4().hex
    ends, dies = (host.python(KEEP % mark.name) for _ in range(2))
    left = [next(host.root.glob(f"attempts/local/{each}.*")) for each in (ends, dies)]
    assert all((each / "work").stat().st_uid in apart.DEFAULT_UIDS for each in left)
    eventually(lambda: all(host.said(each) for each in (ends, dies)), what="their words")
    supervisors = [host.pid(each) for each in (ends, dies)]
    # So that the manager can't report their ends, and so keeps the directories.
    host.registry.away = True
    os.kill(supervisor.descendants(supervisors[1])[0], signal.SIGKILL)  # its guard
    mark.touch()
    try:
        eventually(lambda: not any(map(supervisor.start_ticks, supervisors)), what="their ends")
    finally:
        mark.unlink()
    for each in left:
        seen = each.stat()
        assert (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (0, 0, 0o700)
    host.registry.away = False
    assert host.report(ends).ended is Ended.SUCCEEDED
    assert host.report(dies).ended is Ended.SUPERVISOR_LOST


@needs_root
def test_the_next_manager_adopts_a_job_with_its_account(host):
    host.open()
    mark = Path("/tmp") / uuid.uuid4().hex
    job_id = host.python(KEEP % mark.name, outputs=("private",))
    eventually(lambda: host.said(job_id), what="its word")
    uid = _uid_of(host, job_id)
    host.manager.close()
    host.open()
    # Its account is held by its supervisor alone, and nobody else gets it.
    with pytest.raises(OSError, match="all 1 accounts"):
        Accounts(range(uid, uid + 1)).lend()
    mark.touch()
    try:
        result = host.report(job_id)
    finally:
        mark.unlink()
    assert result.ended is Ended.SUCCEEDED
    assert b"".join(host.objects.get(result.files[0][1].key)) == b"of A"

    def free_again():
        try:
            Accounts(range(uid, uid + 1)).lend().close()
        except OSError:
            return False
        return True

    eventually(free_again, what="its account")


@needs_root
def test_functions_have_accounts_too_and_stay_within_their_bounds(host):
    host.open()
    result, said, files = host.call("who")
    assert result.ended is Ended.SUCCEEDED, result
    assert int(said.split()[0]) in apart.DEFAULT_UIDS
    assert said.endswith("[]\n")
    where = b"".join(host.objects.get(files[0][1].key)).decode().strip().strip('"')
    assert where.startswith(str(host.root / "pool" / "local"))
    result, _, _ = host.call("read", path=str(host.root / "secret"))
    assert (result.ended, "PermissionError" in result.reason) == (Ended.FAILED, True)
    result, _, files = host.call("swarm")
    assert result.ended is Ended.SUCCEEDED, result
    assert int(b"".join(host.objects.get(files[0][1].key))) < 64
    # A cache that nobody has made anything for is theirs all the same.
    result, _, files = host.call("place")
    assert result.ended is Ended.SUCCEEDED, result
    assert b"".join(host.objects.get(files[0][1].key)) == b'"500\\n"\n'


@needs_root
def test_what_a_worker_leaves_ends_before_its_account_is_anothers(host):
    host.open(slots=1)
    eventually(lambda: list(host.root.glob("pool/local/*/*/stdout")), what="a worker")
    (place,) = host.root.glob("pool/local/*/*/work")
    uid = place.stat().st_uid
    assert uid in apart.DEFAULT_UIDS
    result, _, _ = host.call("leave")
    assert result.ended is Ended.SUPERVISOR_LOST
    # Init may take a moment to bury them.
    assert not any(map(supervisor.start_ticks, _processes_of(uid)))


LEAVE = f"""{CALLS}
import time
detach()
print("left", flush=True)
time.sleep(3600)
"""


@needs_root
def test_what_is_left_of_a_job_whose_watchers_were_all_killed_ends_before_its_report(host):
    host.open()
    job_id = host.python(LEAVE)
    eventually(lambda: host.said(job_id), what="its word")
    uid, watcher = _uid_of(host, job_id), host.pid(job_id)
    guard = supervisor.descendants(watcher)[0]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        supervisor.send((watcher, guard), number)
    assert host.report(job_id).ended is Ended.SUPERVISOR_LOST
    assert not any(map(supervisor.start_ticks, _processes_of(uid)))


@needs_root
def test_an_interpreter_that_only_root_reaches_is_none_for_jobs(host, caplog):
    # As a Python of pyenv's in /root, to which the links of a virtual environment lead.
    closed = host.root / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(PYTHON)
    (host.root / "python").symlink_to(closed / "python")
    root = host.root / "another"
    assert apart.accounts_for("auto", root, PYTHON, 64) is not None
    assert apart.accounts_for("auto", root, str(host.root / "python"), 64) is None
    assert "Permission denied" in caplog.text
