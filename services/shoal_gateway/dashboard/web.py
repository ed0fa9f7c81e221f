"""The page's own server: what is asked over HTTP, and what is answered."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import grpc.aio
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoal.errors import ShoalError
from shoal.testing.installed import ZooKeeperError
from shoal_gateway.dashboard import guard
from shoal_gateway.dashboard.gateway import Gateway, code_of
from shoal_gateway.dashboard.hub import event
from shoal_gateway.dashboard.watcher import Watcher
from shoal_gateway.fleet import FleetError
from shoal_gateway.fleet.pginstalled import PostgresError
from shoal_protos.gateway.model.v1 import job_pb2

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
# Files of these names are shown in the page; all others are only ever saved.
SHOWN = {".png": "image/png", ".txt": "text/plain", ".json": "text/plain", ".csv": "text/plain"}
PNG = b"\x89PNG\r\n\x1a\n"
# Nothing that a job has made runs in our page's name.
UNTRUSTED = "sandbox; default-src 'none'"

DECODER = codecs.getincrementaldecoder("utf-8")

STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class Actor(Protocol):
    """What may be done to a fleet."""

    async def act(self, action: str, name: str, version: str) -> str:
        """Does it; says what was done.

        Raises:
            FleetError: it can't be done.
            ValueError: there is no such action, or something is missing.
        """

    def choices(self) -> dict[str, Any]:
        """What there is to choose from."""


class Documented(Protocol):
    """Where configuration is read."""

    async def all(self) -> list[dict[str, Any]]:
        """All documents."""


class Pages:
    """Answers requests.

    Args:
        watcher: What is known of the fleet.
        gateway: The way to its api.
        documents: Its configuration; None: there is none to show.
        actor: What may be done to it; None: nothing.
        title: Which fleet it is, for a person.
        names: Names by which this server is reached besides loopback's.
    """

    def __init__(
        self,
        watcher: Watcher,
        gateway: Gateway,
        documents: Documented | None = None,
        actor: Actor | None = None,
        *,
        title: str = "",
        names: Collection[str] = (),
    ) -> None:
        self._watcher = watcher
        self._gateway = gateway
        self._documents = documents
        self._actor = actor
        self._title = title
        self._names = frozenset(each.lower() for each in names)
        self._page = (STATIC / "index.html").read_text(encoding="utf-8")
        self.token = guard.Token()

    def app(self, lifespan: Callable[[Any], Any] | None = None) -> Starlette:
        """The application."""
        routes = [
            Route("/", self._index),
            Route("/events", self._events),
            Route("/api/about", self._about),
            Route("/api/jobs", self._jobs),
            Route("/api/jobs/{job}", self._job),
            Route("/api/jobs/{job}/logs", self._logs),
            Route("/api/jobs/{job}/outputs/{name:path}", self._output),
            Route("/api/config", self._config),
            Route("/api/actions", self._act, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(
            routes=routes,
            lifespan=lifespan,
            middleware=[Middleware(Doorman, names=self._names, policy=guard.policy(self._page))],
            exception_handlers={
                HTTPException: _http_error,
                grpc.RpcError: _rpc_error,
                grpc.aio.AioRpcError: _rpc_error,
                FleetError: _conflict,
                ValueError: _bad,
                **dict.fromkeys((ShoalError, ZooKeeperError, PostgresError), _unavailable),
                **dict.fromkeys((KazooException, KazooTimeoutError), _unavailable),
                OSError: _failed,
            },
        )

    async def _index(self, _request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def _about(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "title": self._title,
                "services": self._watcher.services,
                "states": [
                    name.removeprefix("STATE_")
                    for name, value in job_pb2.State.items()
                    if value != job_pb2.STATE_UNSPECIFIED
                ],
                "configuration": self._documents is not None,
                # A page of another origin can't read this answer, so it can't have the token.
                "actions": None
                if self._actor is None
                else {
                    "token": self.token.text,
                    **await asyncio.to_thread(self._actor.choices),
                },
            }
        )

    async def _events(self, _request: Request) -> Response:
        return _stream(self._watcher.hub.stream())

    async def _jobs(self, request: Request) -> Response:
        states = []
        for word in request.query_params.getlist("state"):
            name = f"STATE_{word.upper()}"
            if name not in job_pb2.State.keys():  # noqa: SIM118 - an enum, not a dict
                raise HTTPException(400, f"there is no state {word!r}")
            states.append(job_pb2.State.Value(name))
        found = await self._gateway.jobs(
            states=states,
            owner=request.query_params.get("owner", ""),
            token=request.query_params.get("page", ""),
        )
        return JSONResponse(found)

    async def _job(self, request: Request) -> Response:
        return JSONResponse(await self._gateway.job(request.path_params["job"]))

    async def _logs(self, request: Request) -> Response:
        stream = request.query_params.get("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise HTTPException(400, f"there is no stream {stream!r}: stdout or stderr")
        # A browser that connects anew says how far it came.
        attempt, _, offset = request.headers.get("last-event-id", "0:0").partition(":")
        if not (attempt.isdigit() and offset.isdigit()):
            raise HTTPException(400, "Last-Event-ID is not of this stream")
        responses = self._gateway.logs(
            request.path_params["job"],
            stderr=stream == "stderr",
            attempt=int(attempt),
            offset=int(offset),
        )
        return _stream(_log_events(responses))

    async def _output(self, request: Request) -> Response:
        name = request.path_params["name"]
        chunks = self._gateway.download(request.path_params["job"], name)
        # The first one now: what can't be fetched is an error and no broken file.
        first = await anext(chunks, b"")
        file = PurePosixPath(name)
        kind = SHOWN.get(file.suffix.lower())
        if kind == "image/png" and not first.startswith(PNG):
            kind = None
        headers = {"Content-Security-Policy": UNTRUSTED}
        if kind is None:
            # A header holds Latin-1 only; quoted like this, every name goes.
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(file.name)}"

        async def content() -> AsyncIterator[bytes]:
            yield first
            async for chunk in chunks:
                yield chunk

        media = kind or "application/octet-stream"
        return StreamingResponse(content(), media_type=media, headers=headers)

    async def _config(self, _request: Request) -> Response:
        if self._documents is None:
            raise HTTPException(404, "there is no configuration to show")
        return JSONResponse(await self._documents.all())

    async def _act(self, request: Request) -> Response:
        if self._actor is None:
            raise HTTPException(403, "actions are off: start the dashboard with --allow-actions")
        if not self.token.fits(request.headers.get(guard.TOKEN_HEADER)):
            raise HTTPException(403, "the token of this page is missing or old: load it again")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise HTTPException(415, "an action is a JSON object")
        wish = await request.json()
        if not isinstance(wish, dict) or not all(isinstance(each, str) for each in wish.values()):
            raise HTTPException(400, "an action is an object: action, name, version")
        action, name = wish.get("action", ""), wish.get("name", "")
        said = await self._actor.act(action, name, wish.get("version", ""))
        self._watcher.mark("action", said)
        return JSONResponse({"said": said})


class Doorman:
    """Turns away whoever comes by a name that is not ours; says what a browser may do with us."""

    def __init__(self, app: ASGIApp, names: Collection[str], policy: str) -> None:
        self._app = app
        self._names = names
        self._headers = {
            b"content-security-policy": policy.encode(),
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"no-referrer",
            b"cross-origin-resource-policy": b"same-origin",
            b"cross-origin-opener-policy": b"same-origin",
            # Files change with the version that is installed; asking again costs nothing here.
            b"cache-control": b"no-cache",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's hook, once for each request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"])
        host = given.get(b"host", b"").decode("latin-1")
        if not guard.known_host(host, self._names):
            answer = PlainTextResponse(
                f"{host!r} is no name of this dashboard; start it with --name for one more\n",
                status_code=421,
            )
            await answer(scope, receive, send)
            return

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                more = [each for each in self._headers.items() if each[0] not in said]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, answered)


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")


async def _log_events(responses: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    # A character may come in two parts. The cursor stands before one that is not whole yet: a
    # browser that comes again has not seen it.
    decoder, attempt = DECODER("replace"), 0
    async with contextlib.aclosing(responses) as following:  # type: ignore[type-var] # a generator
        try:
            async for each in following:
                if each.attempt != attempt:
                    decoder, attempt = DECODER("replace"), each.attempt
                text = decoder.decode(each.data)
                come = each.offset + len(each.data) - len(decoder.getstate()[0])
                yield event("log", {"attempt": attempt, "text": text}, f"{attempt}:{come}")
            if rest := decoder.decode(b"", final=True):
                yield event("log", {"attempt": attempt, "text": rest})
        except grpc.RpcError as error:
            if code_of(error) is grpc.StatusCode.UNAVAILABLE:
                return  # the browser comes again, with its cursor
            yield event("problem", {"said": _said(error)})
    # The browser would come again and again for what has ended.
    yield event("end", {})


def _said(error: Any) -> str:
    return str(error.details() or error.code().name) if hasattr(error, "details") else str(error)


Handler = Callable[[Request, Exception], Awaitable[Response]]


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these only
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _rpc_error(_request: Request, error: Exception) -> Response:
    status = STATUS.get(code_of(error) or grpc.StatusCode.UNKNOWN, 502)
    return JSONResponse({"error": _said(error)}, status_code=status)


async def _unavailable(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error) or repr(error)}, status_code=503)


async def _failed(_request: Request, error: Exception) -> Response:
    logger.warning("a request failed: %r", error)
    return JSONResponse({"error": str(error) or repr(error)}, status_code=500)


async def _conflict(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=409)


async def _bad(_request: Request, error: Exception) -> Response:
    logger.info("bad request: %r", error)
    return JSONResponse({"error": str(error)}, status_code=400)
