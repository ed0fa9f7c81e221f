"""Every invariant of the checker, each broken once in a history that is good otherwise."""

import copy
import json
import subprocess
import sys

import pytest

from shoal_checker.history import HistoryError, Line, read
from shoal_checker.invariants import judge

SUM = "ab" * 32


def good(jobs=2):
    """A history in which job-1 lost its first attempt, and its files."""
    lines = [{"kind": "begin", "experiment": "failure", "seed": 1, "jobs": jobs}]
    for number in range(jobs):
        job, key, runner = f"job-{number}", f"key-{number}", f"runner-{number}"
        lines += [
            {"kind": "submit", "key": key},
            {"kind": "rejected", "key": key, "code": "UNAVAILABLE"},
            {"kind": "acknowledged", "key": key, "job_id": job},
            {"kind": "terminal", "job_id": job, "state": "SUCCEEDED", "seq": 10 + number},
        ]
        attempts = [attempt(number + 1, runner, 10 + number, "succeeded")]
        if number == 1:
            lines.append({"kind": "start", "job_id": job, "attempt": 1, "runner_id": "lost"})
            attempts.insert(0, attempt(1, "lost", 2, "lease lost"))
        lines += [
            {"kind": kind, "job_id": job, "attempt": number + 1, "runner_id": runner}
            for kind in ("start", "end", "published")
        ]
        lines += [
            {"kind": "expected", "job_id": job, "files": {"result.json": SUM}},
            {
                "kind": "record",
                "job_id": job,
                "state": "SUCCEEDED",
                "attempts": attempts,
                "publications": [runner],
                "manifest": {"runner_id": runner, "files": {"result.json": SUM}},
            },
        ]
    lines += [
        {"kind": "fault", "number": 1, "what": "host-1 lost"},
        {"kind": "recovered", "number": 1, "what": "host-1 lost"},
        {"kind": "finish", "jobs": jobs},
    ]
    return lines, {f"job-{number}": {"result.json": SUM} for number in range(jobs)}


def attempt(number, runner, fence, outcome):
    return {"number": number, "runner_id": runner, "fence": fence, "outcome": outcome}


def judged(lines, files):
    return judge([Line(at, each["kind"], each) for at, each in enumerate(lines)], files)


def of(lines, kind, job="job-1"):
    return next(each for each in lines if each["kind"] == kind and each.get("job_id") == job)


def test_a_good_history_is_good():
    verdict = judged(*good())

    assert verdict.good, verdict.findings
    assert verdict.line() == "2 submitted, 2 succeeded, 0 failed, 0 lost, 0 twice"
    assert verdict.executed_more_than_once == verdict.attempts_lost == 1


def without(kind):
    def mutate(lines, files):
        lines.remove(of(lines, kind))

    return mutate


def state(kind, name):
    def mutate(lines, files):
        of(lines, kind)["state"] = name

    return mutate


def whole_state(name):
    def mutate(lines, files):
        of(lines, "record")["state"] = of(lines, "terminal")["state"] = name

    return mutate


def never_acknowledged(lines, files):
    # The client's count says that one more was.
    lines.remove(of(lines, "acknowledged"))


def second_end(lines, files):
    again = copy.deepcopy(of(lines, "terminal"))
    lines.insert(-1, again | {"seq": 99})


def same_end_told_again(lines, files):
    lines.insert(-1, copy.deepcopy(of(lines, "terminal")))


def second_publication(lines, files):
    of(lines, "record")["publications"].append("runner-1")


def another_publisher(lines, files):
    lines.insert(-1, of(lines, "published") | {"runner_id": "lost"})


def publisher_without_attempt(lines, files):
    of(lines, "published")["runner_id"] = "stranger"


def key_of_two_jobs(lines, files):
    of(lines, "acknowledged")["key"] = "key-0"


def old_attempt_publishes(lines, files):
    of(lines, "published")["runner_id"] = "lost"
    record = of(lines, "record")
    record["publications"], record["manifest"]["runner_id"] = ["lost"], "lost"


def fences_fall(lines, files):
    of(lines, "record")["attempts"][0]["fence"] = 50


def accepted_under_another_fence(lines, files):
    of(lines, "published")["fence"] = 2


def two_attempts_of_one_number(lines, files):
    of(lines, "record")["attempts"][0]["number"] = 2


def two_attempts_succeed(lines, files):
    of(lines, "record")["attempts"][0]["outcome"] = "succeeded"


def wrong_file(lines, files):
    files["job-1"]["result.json"] = "cd" * 32


def missing_file(lines, files):
    del files["job-1"]


def further_file(lines, files):
    files["job-1"]["more.txt"] = SUM


def manifest_says_otherwise(lines, files):
    of(lines, "record")["manifest"]["files"]["result.json"] = "cd" * 32


def nothing_published(lines, files):
    of(lines, "record").pop("manifest")


def start_of_nobody(lines, files):
    lines[:] = [e for e in lines if not (e["kind"] == "start" and e["runner_id"] == "runner-1")]


def started_twice(lines, files):
    lines.insert(-1, {"kind": "start", "job_id": "job-1", "attempt": 2, "runner_id": "runner-1"})


def never_mended(lines, files):
    lines[:] = [each for each in lines if each["kind"] != "recovered"]


def cut_off(lines, files):
    lines.pop()


def headless(lines, files):
    lines.pop(0)


MUTATIONS = {
    "lost": [whole_state("RUNNING"), whole_state("QUEUED"), without("terminal")],
    "failed": [whole_state("FAILED"), whole_state("DEAD"), whole_state("CANCELLED")],
    "absent": [without("record")],
    "twice": [
        second_end,
        second_publication,
        another_publisher,
        key_of_two_jobs,
        two_attempts_of_one_number,
        state("terminal", "FAILED"),
        state("record", "FAILED"),
    ],
    "fence": [
        old_attempt_publishes,
        publisher_without_attempt,
        fences_fall,
        accepted_under_another_fence,
        two_attempts_succeed,
    ],
    "checksum": [
        wrong_file,
        missing_file,
        further_file,
        manifest_says_otherwise,
        nothing_published,
        without("expected"),
    ],
    "unstarted": [start_of_nobody, started_twice],
    "history": [never_acknowledged, never_mended, cut_off, headless],
}


@pytest.mark.parametrize(
    ("invariant", "mutate"),
    [
        pytest.param(invariant, mutate, id=f"{invariant}-{number}")
        for invariant, mutations in MUTATIONS.items()
        for number, mutate in enumerate(mutations)
    ],
)
def test_a_broken_history_is_found_broken(invariant, mutate):
    lines, files = good()
    mutate(lines, files)

    verdict = judged(lines, files)

    assert not verdict.good
    assert invariant in {each.invariant for each in verdict.findings}
    if invariant != "history":
        assert verdict.succeeded < 2


def test_an_end_that_is_told_again_is_one_end():
    lines, files = good()
    same_end_told_again(lines, files)

    assert judged(lines, files).good


def test_a_history_without_jobs_shows_nothing():
    assert not judged(*good(jobs=0)).good


def written(directory, lines):
    """As the history is written: with times."""
    text = "".join(
        json.dumps({"monotonic": at, "wall": at, "source": "test", **each}) + "\n"
        for at, each in enumerate(lines)
    )
    directory.mkdir(exist_ok=True)
    (directory / "history.jsonl").write_text(text)
    return directory / "history.jsonl"


def checked(directory):
    return subprocess.run(
        [sys.executable, "-m", "shoal_checker", directory, "--json"], capture_output=True, text=True
    )


def test_the_process_reads_the_files_themselves(tmp_path):
    lines, _ = good(jobs=1)
    content = b"what was fetched"
    import hashlib

    checksum = hashlib.sha256(content).hexdigest()
    of(lines, "expected", "job-0")["files"]["result.json"] = checksum
    of(lines, "record", "job-0")["manifest"]["files"]["result.json"] = checksum
    written(tmp_path, lines)
    place = tmp_path / "outputs" / "job-0" / "result.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    fine = checked(tmp_path)
    place.write_bytes(content + b"!")
    spoilt = checked(tmp_path)

    assert fine.returncode == 0, fine.stdout + fine.stderr
    assert spoilt.returncode == 1
    assert [each["invariant"] for each in json.loads(spoilt.stdout)["findings"]] == ["checksum"]


def test_the_process_says_what_it_can_not_judge(tmp_path):
    done = checked(tmp_path)

    assert done.returncode == 2
    assert "history.jsonl" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[:-5], "torn"),
        (lambda text: "", "torn"),
        (lambda text: text + "{}\n", "can't be read"),
        (lambda text: text + "[1]\n", "can't be read"),
        (lambda text: text + '{"kind": "other"}\n', "can't be read"),
        (lambda text: text + '{"kind": "submit", "monotonic": 1e9, "wall": 1}\n', "lacks key"),
        (lambda text: text + text.splitlines()[0] + "\n", "before the line above"),
    ],
)
def test_a_history_that_is_spoilt_is_refused(tmp_path, spoil, said):
    path = written(tmp_path, good()[0])
    path.write_text(spoil(path.read_text()))

    with pytest.raises(HistoryError, match=said):
        read(path)


def test_the_checker_imports_nothing_of_the_gateway():
    code = (
        "import sys, shoal_checker.__main__\n"
        "print([name for name in sys.modules if name.partition('.')[0] in "
        "('shoal_gateway', 'shoal', 'shoal_balancer', 'shoal_protos', 'grpc', 'sqlalchemy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
