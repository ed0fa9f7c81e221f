"""From what a user asks to a job that can be written down. No gRPC here, and no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from shoal_gateway import validation as check
from shoal_gateway.api import parameters
from shoal_gateway.api.catalogue import Application, Catalogue
from shoal_gateway.convert import timestamp
from shoal_gateway.errors import InvalidError
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2

MAX_ATTEMPTS = 10_000
# Seconds; a start that may wait longer needs no bound.
MAX_START_WITHIN = 366 * 86400.0

TERMINAL = frozenset(
    {job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED, job_pb2.STATE_CANCELLED, job_pb2.STATE_DEAD}
)


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked submit: what the registry is asked to write down."""

    owner: str
    idempotency_key: str
    spec: job_pb2.JobSpec
    fingerprint: str
    signed_by: str = ""
    account: str = ""


def submission(
    request: api_pb2.SubmitRequest,
    catalogue: Catalogue,
    now: float,
    signed_by: str = "",
    account: str = "",
) -> Submission:
    """Checks a submit against the catalogue and fills in the command.

    Args:
        request: What the user asks.
        catalogue: What there is.
        now: Seconds since 1970, for a deadline that is counted from the submit.
        signed_by: The key whose signature was verified.
        account: The user whose job it is to be; empty: nobody's.

    Raises:
        InvalidError: a field is wrong; names it.
        NotFoundError: there is no such application.
    """
    owner = check.required(request.owner, "owner")
    key = check.required(request.idempotency_key, "idempotency_key")
    application = catalogue.find(check.required(request.application, "application"))
    values = parameters.resolve(application.parameters, request.parameters)
    spec = job_pb2.JobSpec(
        application=application.full_name,
        flavor=application.flavor,
        command=parameters.fill(application.command, values),
        function=application.function,
        parameters=values,
        inputs=_inputs(request, application, account),
        outputs=application.outputs,
        resources=job_pb2.Resources(
            wall_seconds=application.resources.wall_seconds,
            memory_mib=application.resources.memory_mib,
        ),
        max_attempts=check.whole(request.max_attempts, "max_attempts", 0, MAX_ATTEMPTS),
        retryable_exit_codes=application.retry.exit_codes,
        max_failures=application.retry.max_failures,
        deadline=_deadline(request, now),
    )
    return Submission(owner, key, spec, fingerprint(request), signed_by, account)


def submissions(
    request: api_pb2.SubmitManyRequest,
    catalogue: Catalogue,
    now: float,
    signed_by: Sequence[str] = (),
    account: str = "",
) -> list[Submission]:
    """Checks many submits, as `submission` does each.

    Raises:
        InvalidError: a field of one is wrong; names it, with the number of the request.
        NotFoundError: there is no such application.
    """
    found = []
    for index, each in enumerate(check.some(request.requests, "requests")):
        try:
            signer = signed_by[index] if signed_by else ""
            found.append(submission(each, catalogue, now, signer, account))
        except InvalidError as error:
            raise InvalidError(f"requests[{index}].{error.field}", error.problem) from error
    seen: dict[tuple[str, str], int] = {}
    for index, one in enumerate(found):
        before = seen.setdefault((one.owner, one.idempotency_key), index)
        if before != index:
            raise InvalidError(
                f"requests[{index}].idempotency_key",
                f"{one.idempotency_key!r} is that of requests[{before}] too",
            )
    return found


def fingerprint(request: api_pb2.SubmitRequest) -> str:
    """What an idempotency key stands for: the request as it was sent, but for its signature.

    Not the spec it leads to, which a newer version of the application, or the time of a retry,
    changes.
    """
    if request.HasField("signature"):
        # The same request is signed anew when it is sent later.
        unsigned = api_pb2.SubmitRequest()
        unsigned.CopyFrom(request)
        unsigned.ClearField("signature")
        request = unsigned
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def upload_key(sha256: str, account: str = "") -> str:
    """Where an input with this content is kept, once for each user who uploads it.

    Apart for each, so that nobody learns what others have uploaded by naming its checksum.
    """
    return f"uploads/{account}/{sha256}" if account else f"uploads/{sha256}"


def log_prefix(job_id: str, attempt: job_pb2.Attempt, stream: api_pb2.LogStream.ValueType) -> str:
    """Where an attempt's output lies, in segments named by the offset of their first byte."""
    name = "stdout" if stream == api_pb2.LOG_STREAM_STDOUT else "stderr"
    return f"jobs/{job_id}/attempt-{attempt.number}/{attempt.runner_id}/logs/{name}/"


def attempt_numbered(job: job_pb2.Job, number: int) -> job_pb2.Attempt | None:
    """One attempt of a job, if it was started."""
    return next((each for each in job.attempts if each.number == number), None)


def described(application: Application) -> api_pb2.Application:
    """An application as users see it."""
    return api_pb2.Application(
        name=application.name,
        version=application.version,
        description=application.description,
        flavor=application.flavor,
        parameters=[
            api_pb2.Parameter(
                name=parameter.name,
                description=parameter.description,
                type=parameter.type,
                default=None if parameter.default is None else str(parameter.default),
            )
            for parameter in application.parameters
        ],
        inputs=application.inputs,
        outputs=application.outputs,
    )


def _inputs(
    request: api_pb2.SubmitRequest, application: Application, account: str
) -> list[job_pb2.FileRef]:
    given = [
        check.file_ref(file, f"inputs[{index}]")
        for index, file in enumerate(check.at_most(request.inputs, "inputs"))
    ]
    check.distinct([file.name for file in given], "inputs")
    for index, file in enumerate(given):
        if file.name not in application.inputs:
            allowed = ", ".join(application.inputs) or "none"
            raise InvalidError(
                f"inputs[{index}].name",
                f"{file.name!r} is not an input of {application.full_name}; it has {allowed}",
            )
        # Only what was uploaded: a key of one's own choice would read other jobs' files.
        if file.object.key != upload_key(file.object.sha256, account):
            raise InvalidError(
                f"inputs[{index}].object.key",
                f"must be as Upload answered it: {upload_key('<sha256>', account)}",
            )
    missing = set(application.inputs) - {file.name for file in given}
    if missing:
        raise InvalidError("inputs", f"{', '.join(sorted(missing))} must be given")
    return given


def _deadline(request: api_pb2.SubmitRequest, now: float) -> Timestamp | None:
    if not request.HasField("start_within"):
        return None
    within = check.seconds(request.start_within, "start_within", 0.001, MAX_START_WITHIN)
    return timestamp(now + within)
