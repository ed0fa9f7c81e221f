"""Jobs with accounts of their own: what one can't do to another, to its manager, or to the host.

They run as root, where managers give accounts, in a directory that every account can reach, with
the system's interpreter, which every account can run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from shoal_gateway.appmanager import __main__ as appmanager
from shoal_gateway.appmanager import apart, supervisor
from shoal_gateway.appmanager.apart import Accounts, ApartError
from shoal_gateway.appmanager.logic import AppManager
from shoal_gateway.appmanager.offers import Input
from shoal_gateway.appmanager.ports import Ended
from shoal_gateway.appmanager.workers import Worker
from tests.services.appmanager.host import Host
from tests.support.rooted import PYTHON, needs_root
from tests.support.waiting import eventually


class ApartHost(Host):
    """A host whose jobs have accounts."""

    def __init__(self, root, accounts):
        super().__init__(root)
        self.accounts = accounts

    def open(self, slots=3, lease=2.0):
        self.manager = AppManager(
            self.registry,
            self.objects,
            root=self.root,
            flavor="local",
            slots=slots,
            lease=lease,
            python=PYTHON,
            accounts=self.accounts,
        )
        self.manager.open()
        return self.manager

    def said(self, job_id):
        """What a job wrote to standard output."""
        objects = self.objects.list(f"jobs/{job_id}/")
        parts = [each.key for each in objects if "/logs/stdout/" in each.key]
        return b"".join(b"".join(self.objects.get(key)) for key in parts).decode()

    def outcome(self, code, **facts):
        """How a job ended, and what it wrote."""
        job_id = self.python(code, **facts)
        result = self.report(job_id)
        return result, self.said(job_id)

    def call(self, function, **parameters):
        """How a function ended, what it wrote, and its outputs."""
        offer = self.offer(
            function=f"calls:{function}",
            outputs=("result.json",),
            parameters=tuple(parameters.items()),
        )
        # Workers take a moment to be there.
        eventually(lambda: self.manager.start([offer])[0].verdict == "started", what="a worker")
        result = self.report(offer.job_id)
        return result, self.said(offer.job_id), result.files


@pytest.fixture
def host():
    root = Path(tempfile.mkdtemp(prefix="shoal-apart-", dir="/tmp"))
    (root / "secret").write_text("of the manager's")
    (root / "apps" / "test").mkdir(parents=True)
    (root / "apps" / "test" / "calls.py").write_text(CALLS)
    accounts = apart.accounts_for("auto", root, PYTHON, 64)
    assert accounts is not None
    made = ApartHost(root, accounts)
    before = os.umask(0o077)
    yield made
    made.close()
    os.umask(before)
    shutil.rmtree(root)


CALLS = """
import os

def who():
    print(os.getuid(), os.getgroups())
    return os.getcwd()

def read(path):
    return open(path).read()

def place():
    cache = os.environ["XDG_CACHE_HOME"]
    open(os.path.join(cache, "x"), "w").close()
    return open("/proc/self/oom_score_adj").read()

def leave():
    # In a session of its own, known by no parent and by no mark.
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execve("/bin/sleep", ["sleep", "3600"], {})
        os._exit(0)
    os.wait()
    os.kill(os.getpid(), 9)

def swarm():
    children = []
    try:
        while True:
            pid = os.fork()
            if not pid:
                import time; time.sleep(60)
            children.append(pid)
    except BlockingIOError:
        return len(children)
"""

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


# Leaves something in a session of its own, known by no parent and by no mark.
LEAVE = """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execve("/bin/sleep", ["sleep", "3600"], {})
    os._exit(0)
os.wait()
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
def test_a_worker_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    accounts = Accounts(range(70_000, 70_001), locks=tmp_path / "locks")
    accounts.open()
    before = len(list(Path("/proc/self/fd").iterdir()))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Worker(PYTHON, tmp_path / "file" / "1", {}, accounts)

    def refuse(pid):
        raise OSError(f"too many files for {pid}")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="too many files") as caught:
        Worker(PYTHON, tmp_path / "1", {}, accounts)
    assert not Path(f"/proc/{str(caught.value).split()[-1]}").exists()
    assert not (tmp_path / "1").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    accounts.lend().close()


@pytest.mark.parametrize(
    "code",
    ["x = bytearray(1 << 40)", "x = [bytes(1 << 20) for _ in range(10000)]"],
    ids=["at once", "bit by bit"],
)
def test_a_memory_hog_fails_with_a_word_why_and_the_manager_lives(tmp_path, code):
    host = Host(tmp_path)
    host.open()
    try:
        job_id = host.python(code, memory_mib=200)
        result = host.report(job_id)
        assert (result.ended, result.exit_code) == (Ended.FAILED, 1)
        assert "its memory limit of 200 MiB" in result.reason
        failed = host.report(host.python("raise SystemExit(3)", memory_mib=200))
        assert "memory" not in failed.reason
    finally:
        host.close()


@needs_root
def test_an_account_is_lent_once_and_free_again_when_its_last_holder_ends(tmp_path):
    accounts = Accounts(range(70_000, 70_003), locks=tmp_path / "locks")
    accounts.open()
    others = Accounts(range(70_000, 70_003), locks=tmp_path / "locks")
    lent = [each.lend() for each in (accounts, others, accounts)]
    assert {each.uid for each in lent} == {70_000, 70_001, 70_002}
    with pytest.raises(OSError, match="all 3 accounts"):
        others.lend()
    inherited = os.dup(lent[0].descriptor)
    lent[0].close()
    with pytest.raises(OSError, match="all 3 accounts"):
        others.lend()
    os.close(inherited)
    # Nor while anything lives under it: all who held it may have been killed.
    with subprocess.Popen(["/bin/sleep", "3600"], user=lent[0].uid) as left:
        try:
            with pytest.raises(OSError, match="all 3 accounts"):
                others.lend()
        finally:
            left.kill()
    assert others.lend().uid == lent[0].uid


def test_where_accounts_cannot_be_given_it_is_said_and_a_named_range_is_refused(tmp_path, caplog):
    # A directory that others can't enter, as pytest's are.
    root = tmp_path / "host"
    root.mkdir(mode=0o750)
    (root / "notes").touch(mode=0o640)
    before = [(each, each.stat().st_mode) for each in (root, root / "notes")]
    assert apart.accounts_for("auto", root, sys.executable, 64) is None
    assert [(each, each.stat().st_mode) for each, _ in before] == before
    assert "jobs run as this manager's account" in caplog.text
    assert "docs/users.md" in caplog.text
    with pytest.raises(ApartError):
        apart.accounts_for("200000-200010", root, sys.executable, 64)
    assert apart.accounts_for("manager", root, sys.executable, 64) is None


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


@pytest.mark.parametrize("text", ["", "x", "5", "10-20", "3000-2000", "0-70000", "-", "1000-"])
def test_what_is_no_range_of_accounts_is_refused(text):
    with pytest.raises(ValueError, match=r"upwards|neither"):
        apart.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("10-20", "from 1000 upwards"), ("all", "neither 'auto' nor"), ("3000-3004", "slots need 6")],
)
def test_accounts_that_would_not_do_are_refused_before_anything_runs(capsys, tmp_path, text, said):
    given = ["--zookeeper", "zk:2181", "--flavor", "local", "--root", str(tmp_path / "host")]
    given += ["--objects", f"file://{tmp_path}/objects", "--slots", "3"]
    with pytest.raises(SystemExit) as ended:
        appmanager.main([*given, "--jobs-as", text])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
