"""What must be true of a history. Pure: lines and files' checksums in, findings out."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal_checker.history import Line

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "DEAD"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Attributes:
        invariant: Its name: lost, failed, twice, fence, checksum, absent, unstarted, history.
        job_id: Whose; empty for the history as a whole.
        text: One sentence.
    """

    invariant: str
    job_id: str
    text: str


@dataclass(slots=True)
class Story:
    """All that a history says of one job."""

    job_id: str
    key: str = ""
    terminals: list[Line] = field(default_factory=list)
    starts: list[Line] = field(default_factory=list)
    published: list[Line] = field(default_factory=list)
    records: list[Line] = field(default_factory=list)
    expected: Mapping[str, str] | None = None

    @property
    def record(self) -> Line | None:
        """The store's word in the end."""
        return self.records[-1] if self.records else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history shows.

    Attributes:
        submitted: Jobs that the gateway acknowledged.
        succeeded: Of these, those about which nothing is wrong.
        failed: Ended otherwise, or with a result that is not what it must be.
        lost: Acknowledged, and without an end.
        twice: More than one result or end.
        unacknowledged: Submits that were never acknowledged (they may exist, and are judged too).
        executed_more_than_once: Jobs that were started more than once; allowed.
        attempts_lost: Starts that did not lead to the published result.
        findings: What is wrong.
    """

    submitted: int
    succeeded: int
    failed: int
    lost: int
    twice: int
    unacknowledged: int
    executed_more_than_once: int
    attempts_lost: int
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Whether every acknowledged job has succeeded exactly once."""
        return not self.findings

    def line(self) -> str:
        """The last line of a run."""
        return (
            f"{self.submitted} submitted, {self.succeeded} succeeded, {self.failed} failed, "
            f"{self.lost} lost, {self.twice} twice"
        )


def judge(lines: Sequence[Line], fetched: Mapping[str, Mapping[str, str]]) -> Verdict:
    """Judges a history.

    Args:
        lines: The history.
        fetched: By job, the checksums of the output files that lie beside the history.
    """
    stories, clashes = _stories(lines)
    acknowledged = [story for story in stories.values() if story.key]
    findings = list(_whole(lines, len(acknowledged)))
    by_job: dict[str, list[Finding]] = defaultdict(list)
    for each in clashes:
        by_job[each.job_id].append(each)
    for story in stories.values():
        by_job[story.job_id] += _about(story, fetched.get(story.job_id, {}))
    findings += [each for found in by_job.values() for each in found]
    named = Counter(
        kind for story in acknowledged for kind in {each.invariant for each in by_job[story.job_id]}
    )
    bad = [story for story in acknowledged if by_job[story.job_id]]
    lost = sum(
        any(each.invariant in ("lost", "absent") for each in by_job[story.job_id]) for story in bad
    )
    keys = {line["key"] for line in lines if line.kind == "submit"}
    return Verdict(
        submitted=len(acknowledged),
        succeeded=len(acknowledged) - len(bad),
        failed=len(bad) - lost,
        lost=lost,
        twice=named["twice"],
        unacknowledged=len(keys - {story.key for story in acknowledged}),
        executed_more_than_once=sum(len(story.starts) > 1 for story in acknowledged),
        attempts_lost=sum(max(0, len(story.starts) - 1) for story in acknowledged),
        findings=tuple(findings),
    )


def _stories(lines: Iterable[Line]) -> tuple[dict[str, Story], list[Finding]]:
    stories: dict[str, Story] = {}
    owners: dict[str, str] = {}
    findings = []
    for line in lines:
        job_id = line.facts.get("job_id")
        if job_id is None:
            continue
        story = stories.setdefault(job_id, Story(job_id))
        match line.kind:
            case "acknowledged":
                other = owners.setdefault(line["key"], job_id)
                if other != job_id or story.key not in ("", line["key"]):
                    findings.append(
                        Finding(
                            "twice", job_id,
                            f"key {line['key']} was acknowledged as job {other} and as {job_id}",
                        )
                    )  # fmt: skip
                story.key = line["key"]
            case "terminal":
                story.terminals.append(line)
            case "start":
                story.starts.append(line)
            case "published":
                story.published.append(line)
            case "record":
                story.records.append(line)
            case "expected":
                story.expected = line["files"]
    return stories, findings


def _whole(lines: Sequence[Line], acknowledged: int) -> Iterator[Finding]:
    kinds = Counter(line.kind for line in lines)
    if not lines or lines[0].kind != "begin" or kinds["begin"] != 1:
        yield Finding("history", "", "the history does not begin with its one begin")
    if not lines or lines[-1].kind != "finish" or kinds["finish"] != 1:
        yield Finding("history", "", "the history does not end with its one finish: it was cut off")
    elif lines[-1]["jobs"] != acknowledged:
        yield Finding(
            "history", "",
            f"the client counted {lines[-1]['jobs']} acknowledged jobs and the history holds "
            f"{acknowledged}",
        )  # fmt: skip
    if not acknowledged:
        yield Finding("history", "", "no job was acknowledged, so nothing was shown")
    fetches = [line["number"] for line in lines if line.kind == "fault"]
    mended = [line["number"] for line in lines if line.kind == "recovered"]
    for number in sorted(set(fetches) - set(mended)):
        yield Finding("history", "", f"fault {number} was never made good")


def _about(story: Story, fetched: Mapping[str, str]) -> Iterator[Finding]:
    job_id, record = story.job_id, story.record
    if record is None:
        if story.key:
            yield Finding("absent", job_id, f"job {job_id} was acknowledged and is not known")
        elif story.published or story.terminals:
            yield Finding("absent", job_id, f"job {job_id} has an end and is not known")
        return
    yield from _ends(story, record)
    yield from _fences(story, record)
    if record["state"] == "SUCCEEDED":
        yield from _results(story, record)
        yield from _files(story, record, fetched)


def _ends(story: Story, record: Line) -> Iterator[Finding]:
    """Exactly one terminal record, SUCCEEDED, the same one for all who tell of it."""
    job_id, state = story.job_id, record["state"]
    if len({line["state"] for line in story.records}) > 1:
        yield Finding("twice", job_id, f"job {job_id} is told of in two states in the end")
    if state not in TERMINAL:
        # What was never acknowledged may be on its way still; nobody was promised anything.
        if story.key:
            yield Finding("lost", job_id, f"job {job_id} was acknowledged and is still {state}")
        return
    if state != "SUCCEEDED":
        yield Finding("failed", job_id, f"job {job_id} is {state}")
    told = {(line["seq"], line["state"]) for line in story.terminals}
    if len(told) > 1:
        yield Finding("twice", job_id, f"followers were told of {len(told)} ends of job {job_id}")
    if any(other != state for _, other in told):
        yield Finding("twice", job_id, f"followers were told another end of job {job_id}: {told}")
    if story.key and not told:
        yield Finding("lost", job_id, f"job {job_id} is {state} and no follower was told")


def _results(story: Story, record: Line) -> Iterator[Finding]:
    """One result, of a runner that was started once, and of nobody else."""
    job_id, manifest = story.job_id, record.facts.get("manifest")
    publications = list(record["publications"])
    runners = {line["runner_id"] for line in story.published} | set(publications)
    if manifest is not None:
        runners.add(manifest["runner_id"])
    if len(runners) > 1 or len(publications) > 1:
        yield Finding(
            "twice", job_id,
            f"job {job_id} has {max(len(runners), len(publications))} results, of "
            f"{', '.join(sorted(runners))}",
        )  # fmt: skip
    if not publications or manifest is None:
        yield Finding("checksum", job_id, f"job {job_id} SUCCEEDED and published nothing")
    starts = Counter(line["runner_id"] for line in story.starts)
    for runner in sorted(runners):
        if starts[runner] != 1:
            yield Finding(
                "unstarted", job_id,
                f"job {job_id}: runner {runner} published, and the ledgers have {starts[runner]} "
                "starts of it",
            )  # fmt: skip


def _fences(story: Story, record: Line) -> Iterator[Finding]:
    """Only the last attempt writes an end; fences grow with the attempts' numbers."""
    job_id = story.job_id
    attempts: list[dict[str, Any]] = sorted(record["attempts"], key=lambda each: each["number"])
    numbers = [each["number"] for each in attempts]
    if len(set(numbers)) != len(numbers):
        yield Finding("twice", job_id, f"job {job_id} has two attempts of one number: {numbers}")
    fences = [each["fence"] for each in attempts]
    if any(after <= before for before, after in itertools.pairwise(fences)):
        yield Finding("fence", job_id, f"job {job_id}: fences do not grow: {fences}")
    last = attempts[-1] if attempts else None
    known = {each["runner_id"]: each for each in attempts}
    for line in story.published:
        attempt = known.get(line["runner_id"])
        if attempt is None:
            text = f"job {job_id}: runner {line['runner_id']} published and never held it"
            yield Finding("fence", job_id, text)
            continue
        if attempt is not last:
            yield Finding(
                "fence", job_id,
                f"job {job_id}: attempt {attempt['number']} (fence {attempt['fence']}) was let "
                f"write, and attempt {numbers[-1]} has fence {fences[-1]}",
            )  # fmt: skip
        if line.facts.get("fence", attempt["fence"]) != attempt["fence"]:
            yield Finding(
                "fence", job_id,
                f"job {job_id}: a result was accepted under fence {line['fence']}, the attempt "
                f"held {attempt['fence']}",
            )  # fmt: skip
    manifest = record.facts.get("manifest")
    if manifest is not None and last is not None and manifest["runner_id"] != last["runner_id"]:
        yield Finding("fence", job_id, f"job {job_id}: the result is not its last attempt's")
    succeeded = [each["number"] for each in attempts if each["outcome"] == "succeeded"]
    if record["state"] == "SUCCEEDED" and succeeded != numbers[-1:]:
        text = f"job {job_id} SUCCEEDED and its attempts that did are {succeeded} of {numbers}"
        yield Finding("fence", job_id, text)


def _files(story: Story, record: Line, fetched: Mapping[str, str]) -> Iterator[Finding]:
    """What was fetched is what a second run makes, and what the manifest says."""
    job_id = story.job_id
    if story.expected is None:
        yield Finding("checksum", job_id, f"job {job_id} has no second run to compare with")
        return
    manifest = record.facts.get("manifest") or {"files": {}}
    for name, checksum in story.expected.items():
        if fetched.get(name) != checksum:
            yield Finding(
                "checksum", job_id,
                f"job {job_id}: {name} is {fetched.get(name, 'missing')}; a second run makes "
                f"{checksum}",
            )  # fmt: skip
        if manifest["files"].get(name) != checksum:
            yield Finding(
                "checksum", job_id,
                f"job {job_id}: the manifest says {manifest['files'].get(name, 'nothing')} of "
                f"{name}; a second run makes {checksum}",
            )  # fmt: skip
    for name in sorted((fetched.keys() | manifest["files"].keys()) - story.expected.keys()):
        text = f"job {job_id} published {name}, which a second run does not make"
        yield Finding("checksum", job_id, text)
