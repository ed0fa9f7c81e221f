"""What a request must be like before the store hears of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from google.protobuf import duration_pb2

from shoal_gateway import traceparents
from shoal_gateway import validation as check
from shoal_gateway.errors import InvalidError
from shoal_gateway.registry.claims import Holding, Report, Start
from shoal_gateway.registry.quotas import LARGEST
from shoal_gateway.registry.rules import Ending
from shoal_gateway.registry.submission import Creation
from shoal_gateway.tokens import DIGEST_BYTES
from shoal_protos.gateway.model.v1 import account_pb2, job_pb2
from shoal_protos.gateway.registry.v1 import registry_pb2

MAX_SPEC_BYTES = 256 * 1024
MAX_BATCH = 1000
MAX_PARAMETERS = 256
# An owner's name, and a key's id behind it.
MAX_SIGNER = 256
MAX_ATTEMPTS = 10_000
EXIT_CODES = 255
# Seconds that a lease may last.
LEASE = (0.1, 600.0)
_LARGEST = 2**63 - 1
MAX_USER = 64
_TOKEN_ID = re.compile(r"[0-9a-f]{16}")


def spec(request: registry_pb2.CreateJobRequest) -> job_pb2.JobSpec:
    """A job as it may be written down."""
    check.present(request, "spec")
    found = request.spec
    check.size_of(found, "spec", MAX_SPEC_BYTES)
    check.required(found.application, "spec.application")
    check.label(found.flavor, "spec.flavor")
    check.work(found, "spec")
    check.at_most(list(found.parameters), "spec.parameters", limit=MAX_PARAMETERS)
    for name, value in found.parameters.items():
        check.label(name, "spec.parameters")
        check.optional(value, f"spec.parameters[{name}]")
    for index, file in enumerate(check.at_most(found.inputs, "spec.inputs")):
        check.file_ref(file, f"spec.inputs[{index}]")
    check.distinct([file.name for file in found.inputs], "spec.inputs")
    for index, name in enumerate(check.at_most(found.outputs, "spec.outputs")):
        check.file_name(name, f"spec.outputs[{index}]")
    check.distinct(found.outputs, "spec.outputs")
    check.between(found.resources.wall_seconds, "spec.resources.wall_seconds", 0.0, 1e9)
    check.whole(found.resources.memory_mib, "spec.resources.memory_mib", 0, 1 << 30)
    check.whole(found.max_attempts, "spec.max_attempts", 0, MAX_ATTEMPTS)
    for index, code in enumerate(
        check.at_most(found.retryable_exit_codes, "spec.retryable_exit_codes")
    ):
        check.whole(code, f"spec.retryable_exit_codes[{index}]", 1, EXIT_CODES)
    check.whole(found.max_failures, "spec.max_failures", 0, MAX_ATTEMPTS)
    return found


def creations(request: registry_pb2.CreateJobsRequest) -> list[Creation]:
    """Jobs as they may be written down."""
    found = []
    for index, each in enumerate(check.some(request.jobs, "jobs", limit=MAX_BATCH)):
        try:
            found.append(creation(each))
        except InvalidError as error:
            raise InvalidError(f"jobs[{index}].{error.field}", error.problem) from error
    return found


def creation(request: registry_pb2.CreateJobRequest) -> Creation:
    """A job as it may be written down, and for whom."""
    owner = check.required(request.owner, "owner")
    key = check.required(request.idempotency_key, "idempotency_key")
    fingerprint = check.optional(request.fingerprint, "fingerprint", limit=check.MAX_NAME)
    signed_by = check.optional(request.signed_by, "signed_by", limit=MAX_SIGNER)
    account = user_name(request.account, "account") if request.account else ""
    trace = traceparents.valid(request.trace_context)
    return Creation(owner, key, spec(request), fingerprint, signed_by, account, trace)


def user_name(value: str, field: str) -> str:
    """A user's name, as it stands in keys of the object store, too."""
    check.label(value, field)
    if len(value) > MAX_USER:
        raise InvalidError(field, f"has {len(value)} characters; at most {MAX_USER} are allowed")
    return value


def quotas(value: account_pb2.Quotas, field: str) -> dict[str, int | None]:
    """A user's own bounds; None where the common one holds."""
    return {
        each.name: check.whole(getattr(value, each.name), f"{field}.{each.name}", 0, LARGEST)
        if value.HasField(each.name)  # type: ignore[arg-type] # stubs want literals
        else None
        for each in account_pb2.Quotas.DESCRIPTOR.fields
    }


def token_id(value: str, field: str = "id") -> str:
    """A token's id."""
    if not _TOKEN_ID.fullmatch(value):
        raise InvalidError(field, "must be 16 lower-case hex digits")
    return value


def digest(value: bytes, field: str = "digest") -> bytes:
    """A SHA-256."""
    if len(value) != DIGEST_BYTES:
        raise InvalidError(field, f"has {len(value)} bytes; a SHA-256 has {DIGEST_BYTES}")
    return value


def scopes(values: Sequence[int]) -> list[int]:
    """What a token is to be good for."""
    return [
        check.known(each, f"scopes[{index}]", account_pb2.Scope.DESCRIPTOR)
        for index, each in enumerate(check.some(values, "scopes", limit=16))
    ]


def lease(value: duration_pb2.Duration) -> float:
    """A lease's length in seconds."""
    return check.seconds(value, "lease", *LEASE)


def claim(value: registry_pb2.Claim, field: str) -> tuple[str, int]:
    """A job's id and a fence that somebody can have been given."""
    check.job_id(value.job_id, f"{field}.job_id")
    return value.job_id, check.whole(value.fence, f"{field}.fence", 1, _LARGEST)


def start(request: registry_pb2.BeginRequest) -> Start:
    """A runner that wants to begin."""
    check.present(request, "claim")
    job_id, fence = claim(request.claim, "claim")
    return Start(
        job_id,
        fence,
        attempt=check.whole(request.attempt, "attempt", 1, 2**31 - 1),
        runner_id=check.unique_id(request.runner_id, "runner_id"),
        manager_id=check.required(request.manager_id, "manager_id"),
        host=check.optional(request.host, "host", limit=check.MAX_NAME),
        manager_version=check.optional(
            request.manager_version, "manager_version", limit=check.MAX_NAME
        ),
    )


def starts(request: registry_pb2.BeginManyRequest) -> list[Start]:
    """Runners that want to begin."""
    manager_id = check.required(request.manager_id, "manager_id")
    host = check.optional(request.host, "host", limit=check.MAX_NAME)
    version = check.optional(request.manager_version, "manager_version", limit=check.MAX_NAME)
    found = []
    for index, item in enumerate(check.some(request.items, "items", limit=MAX_BATCH)):
        field = f"items[{index}]"
        check.present(item, "claim", f"{field}.claim")
        job_id, fence = claim(item.claim, f"{field}.claim")
        attempt = check.whole(item.attempt, f"{field}.attempt", 1, 2**31 - 1)
        runner_id = check.unique_id(item.runner_id, f"{field}.runner_id")
        found.append(Start(job_id, fence, attempt, runner_id, manager_id, host, version))
    check.distinct([each.job_id for each in found], "items")
    return found


def holdings(request: registry_pb2.RenewRequest) -> list[Holding]:
    """What runners hold and want to keep."""
    found = []
    for index, item in enumerate(check.some(request.items, "items", limit=MAX_BATCH)):
        field = f"items[{index}]"
        check.present(item, "claim", f"{field}.claim")
        job_id, fence = claim(item.claim, f"{field}.claim")
        found.append(Holding(job_id, fence, check.unique_id(item.runner_id, f"{field}.runner_id")))
    return found


def reports(request: registry_pb2.ReportRequest) -> list[Report]:
    """How attempts ended."""
    items = check.some(request.items, "items", limit=MAX_BATCH)
    return [_report(item, f"items[{index}]") for index, item in enumerate(items)]


def _report(item: registry_pb2.ReportRequest.Item, field: str) -> Report:
    check.present(item, "claim", f"{field}.claim")
    job_id, fence = claim(item.claim, f"{field}.claim")
    outcome = check.known(
        item.outcome, f"{field}.outcome", registry_pb2.ReportRequest.Outcome.DESCRIPTOR
    )
    runner_id = check.unique_id(item.runner_id, f"{field}.runner_id")
    code = item.exit_code if item.HasField("exit_code") else None
    if code is not None:
        # A signal is negative, as Python's subprocess has it.
        check.whole(code, f"{field}.exit_code", -EXIT_CODES, EXIT_CODES)
    manifest = None
    if outcome == registry_pb2.ReportRequest.OUTCOME_SUCCEEDED:
        check.present(item, "manifest", f"{field}.manifest")
        manifest = _manifest(item.manifest, runner_id, f"{field}.manifest")
    return Report(
        job_id,
        fence,
        Ending(
            outcome,
            runner_id,
            exit_code=code,
            reason=check.optional(item.reason, f"{field}.reason"),
            manifest=manifest,
        ),
    )


def _manifest(value: job_pb2.Manifest, runner_id: str, field: str) -> job_pb2.Manifest:
    check.whole(value.attempt, f"{field}.attempt", 1, 2**31 - 1)
    if value.runner_id != runner_id:
        raise InvalidError(
            f"{field}.runner_id", f"is {value.runner_id!r}; must be the reporter's, {runner_id!r}"
        )
    for index, file in enumerate(check.at_most(value.files, f"{field}.files")):
        check.file_ref(file, f"{field}.files[{index}]")
    check.distinct([file.name for file in value.files], f"{field}.files")
    return value
