"""The gateway as its users call it: upload, submit, follow, fetch. Used by the command line."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from shoal.directory import Directory
from shoal_gateway.contracts import CALLS
from shoal_gateway.signatures import sign
from shoal_gateway.tokens import METADATA_KEY
from shoal_protos.gateway.api.v1 import accounts_pb2, accounts_pb2_grpc, api_pb2, api_pb2_grpc
from shoal_protos.gateway.model.v1 import job_pb2

if TYPE_CHECKING:
    from shoal.signing import Signer

CHUNK = 256 * 1024
# Seconds for a call; the channel tries other replicas within them.
TIMEOUT = 20.0
# Jobs in one call.
MANY = 1000
# Bytes in one call, within what gRPC takes in a message.
MAX_BYTES = 2 << 20

TERMINAL = frozenset(
    {job_pb2.STATE_SUCCEEDED, job_pb2.STATE_FAILED, job_pb2.STATE_CANCELLED, job_pb2.STATE_DEAD}
)


@dataclass(frozen=True, slots=True)
class Submission:
    """A job for `Gateway.submit_many`.

    Attributes:
        application: ``name`` or ``name@version``.
        parameters: Its parameters.
        inputs: Its input files, uploaded before.
        key: Idempotency key; None: a new one.
    """

    application: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, job_pb2.ObjectRef] = field(default_factory=dict)
    key: str | None = None


class ChecksumError(Exception):
    """What came over the wire is not what was published."""


def state_name(state: int) -> str:
    """A state's name for people: ``RUNNING``."""
    return job_pb2.State.Name(state).removeprefix("STATE_")  # type: ignore[arg-type] # as above


class _Details(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends a token with every call.

    gRPC's own call credentials go over TLS only, and a gateway on this host may have none.
    """

    def __init__(self, token: str) -> None:
        self._metadata = (METADATA_KEY, f"Bearer {token}")

    def _with_token(self, details: Any) -> _Details:
        metadata = (*(details.metadata or ()), self._metadata)
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """One request, one answer."""
        return continuation(self._with_token(details), request)

    intercept_unary_stream = intercept_unary_unary  # type: ignore[assignment] # Any to Any
    intercept_stream_unary = intercept_unary_unary  # type: ignore[assignment] # Any to Any
    intercept_stream_stream = intercept_unary_unary  # type: ignore[assignment] # Any to Any


class Gateway:
    """The gateway's api through the SDK: every call goes to a replica that lives.

    Calls raise ``grpc.RpcError`` as the api answers.

    Args:
        directory: Of the fleet.
        owner: Whose jobs; empty where the token says it.
        signer: The owner's private key, to sign what is submitted; None: it is not signed.
        token: Shows who calls, where the gateway asks for it.
    """

    def __init__(
        self,
        directory: Directory,
        owner: str,
        signer: Signer | None = None,
        *,
        token: str | None = None,
    ) -> None:
        self.owner = owner
        self._signer = signer
        channel: grpc.Channel = directory.channel("api", contract=CALLS)
        if token is not None:
            channel = grpc.intercept_channel(channel, Bearer(token))
        self._channel = channel
        self._api = api_pb2_grpc.ApiStub(channel)

    @property
    def accounts(self) -> accounts_pb2_grpc.AccountsStub:
        """The calls about users and tokens."""
        return accounts_pb2_grpc.AccountsStub(self._channel)

    def user(self) -> str:
        """Whose token it is."""
        request = accounts_pb2.WhoAmIRequest()
        return self.accounts.WhoAmI(request, timeout=TIMEOUT).user.name

    def applications(self) -> list[api_pb2.Application]:
        """The catalogue."""
        response = self._api.Applications(api_pb2.ApplicationsRequest(), timeout=TIMEOUT)
        return list(response.applications)

    def upload(self, path: Path) -> job_pb2.ObjectRef:
        """Stores a file."""
        return self._api.Upload(_parts(path), timeout=60.0).object

    def submit(
        self,
        application: str,
        *,
        inputs: Mapping[str, job_pb2.ObjectRef],
        parameters: Mapping[str, str],
        key: str | None = None,
    ) -> job_pb2.Job:
        """Submits a job; with the same key it is the same job, however often it is sent."""
        request = self._request(Submission(application, parameters, inputs, key))
        return self._api.Submit(request, timeout=TIMEOUT).job

    def submit_many(
        self, submissions: Sequence[Submission]
    ) -> list[api_pb2.SubmitManyResponse.Item]:
        """Submits many jobs, a thousand a call; for each its id, or why there is none.

        With the same keys they are the same jobs, however often they are sent.
        """
        items: list[api_pb2.SubmitManyResponse.Item] = []
        batch = api_pb2.SubmitManyRequest()
        size = 0
        for each in submissions:
            request = self._request(each)
            size += request.ByteSize()
            if batch.requests and (len(batch.requests) == MANY or size > MAX_BYTES):
                items += self._api.SubmitMany(batch, timeout=TIMEOUT).items
                batch = api_pb2.SubmitManyRequest()
                size = request.ByteSize()
            batch.requests.append(request)
        if batch.requests:
            items += self._api.SubmitMany(batch, timeout=TIMEOUT).items
        return items

    def _request(self, submission: Submission) -> api_pb2.SubmitRequest:
        files = [
            job_pb2.FileRef(name=name, object=each) for name, each in submission.inputs.items()
        ]
        request = api_pb2.SubmitRequest(
            owner=self.owner,
            idempotency_key=submission.key or str(uuid.uuid4()),
            application=submission.application,
            parameters=submission.parameters,
            inputs=files,
        )
        if self._signer is not None:
            sign(request, self._signer, time.time())
        return request

    def get(self, job_id: str) -> api_pb2.GetResponse:
        """A job and its history."""
        return self._api.Get(api_pb2.GetRequest(id=job_id), timeout=TIMEOUT)

    def jobs(
        self, *, owner: str = "", states: Sequence[int] = (), timeout: float = TIMEOUT
    ) -> Iterator[job_pb2.Job]:
        """Jobs, newest first, all pages; ``timeout`` seconds for each page."""
        token = ""
        while True:
            request = api_pb2.ListRequest(
                owner=owner,
                states=states,  # type: ignore[arg-type] # stubs want the enum, callers have ints
                page_size=500,
                page_token=token,
            )
            response = self._api.List(request, timeout=timeout)
            yield from response.jobs
            token = response.next_page_token
            if not token:
                return

    def cancel(self, job_id: str) -> job_pb2.Job:
        """Asks for a job's end."""
        reason = f"cancelled by {self.owner}" if self.owner else ""
        request = api_pb2.CancelRequest(id=job_id, reason=reason)
        return self._api.Cancel(request, timeout=TIMEOUT).job

    def replay(self, job_id: str) -> job_pb2.Job:
        """Puts a DEAD job back into the queue."""
        return self._api.Replay(api_pb2.ReplayRequest(id=job_id), timeout=TIMEOUT).job

    def watch(
        self, job_id: str = "", *, after: int = 0, states: Sequence[int] = ()
    ) -> Iterator[job_pb2.Event]:
        """Events of a job, or of all, from a cursor on; follows over the deaths of replicas.

        Args:
            job_id: The job; empty: all.
            after: The cursor; 0: the whole history, -1: from now on.
            states: Only entries into these; empty: into any.
        """
        pause = _Pause()
        while True:
            request = api_pb2.WatchRequest(
                job_id=job_id,
                after=after,
                states=states,  # type: ignore[arg-type] # stubs want the enum, callers have ints
            )
            try:
                for response in self._api.Watch(request, wait_for_ready=True):
                    after = response.event.seq
                    pause.reset()
                    yield response.event
            except grpc.RpcError as error:
                # The replica left or died: another one goes on from the cursor.
                pause.before_retry(error)
                continue
            return

    def logs(self, job_id: str, *, stderr: bool = False, follow: bool = False) -> Iterator[bytes]:
        """Standard output or error; with ``follow`` until the job has ended.

        A follower goes on with each attempt that the job starts anew, from its first byte, and
        loses nothing when the replica that it reads from dies in between.
        """
        stream = api_pb2.LOG_STREAM_STDERR if stderr else api_pb2.LOG_STREAM_STDOUT
        # An offset is one into a certain attempt; 0 asks for the latest, and for those after it.
        seen, asked, offset = 0, 0, 0
        pause = _Pause()
        while True:
            request = api_pb2.LogsRequest(
                job_id=job_id, stream=stream, offset=offset, follow=follow, attempt=asked
            )
            try:
                for response in self._api.Logs(request, wait_for_ready=True):
                    seen, offset = response.attempt, response.offset + len(response.data)
                    pause.reset()
                    yield response.data
            except grpc.RpcError as error:
                pause.before_retry(error)
                asked = seen
                continue
            if not follow or not asked or not self._started_again(job_id, asked):
                return
            seen = asked = asked + 1
            offset = 0

    def _started_again(self, job_id: str, attempt: int) -> bool:
        """Waits until a job has started after ``attempt``; False when it ended without that."""
        for event in self.watch(job_id):
            if self.get(job_id).job.attempt > attempt:
                return True
            if event.state in TERMINAL:
                return False
        return False

    def outputs(self, job_id: str) -> job_pb2.Manifest:
        """What a job published."""
        request = api_pb2.OutputsRequest(job_id=job_id)
        return self._api.Outputs(request, timeout=TIMEOUT).manifest

    def download(self, job_id: str, file: job_pb2.FileRef, target: Path) -> None:
        """Fetches a published file, whole and checked, or not at all.

        Raises:
            ChecksumError: the content is not what the manifest says.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        digest = hashlib.sha256()
        request = api_pb2.DownloadRequest(job_id=job_id, name=file.name)
        try:
            with aside.open("wb") as out:
                for response in self._api.Download(request, timeout=60.0):
                    digest.update(response.chunk)
                    out.write(response.chunk)
            if digest.hexdigest() != file.object.sha256:
                raise ChecksumError(
                    f"{file.name} of job {job_id} hashes to {digest.hexdigest()}; its manifest "
                    f"says {file.object.sha256}"
                )
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


class _Pause:
    """Between two tries to go on with a stream: with jitter, longer while nothing comes."""

    LONGEST = 2.0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Something came: the next try is soon."""
        self._bound = 0.05

    def before_retry(self, error: grpc.RpcError) -> None:
        """Waits; raises the error where another replica would not mend it."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise error
        time.sleep(random.uniform(0.0, self._bound))  # noqa: S311 - no secret
        self._bound = min(self._bound * 2.0, self.LONGEST)


def _parts(path: Path) -> Iterator[api_pb2.UploadRequest]:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        yield api_pb2.UploadRequest(header=api_pb2.UploadRequest.Header(sha256=checksum))
        while chunk := file.read(CHUNK):
            yield api_pb2.UploadRequest(chunk=chunk)
