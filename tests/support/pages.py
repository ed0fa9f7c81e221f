"""The dashboard's own server over real HTTP, on the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json

import requests
import uvicorn

from shoal_gateway.dashboard import serving
from shoal_gateway.dashboard.gateway import Gateway
from shoal_gateway.dashboard.watcher import Watcher
from shoal_gateway.dashboard.web import Pages


class Served:
    """A dashboard that is served."""

    def __init__(self, url, watcher, pages):
        self.url = url
        self.watcher = watcher
        self.pages = pages

    async def get(self, path, **options):
        return await asyncio.to_thread(
            requests.get, self.url + path, timeout=30, allow_redirects=False, **options
        )

    async def post(self, path, document, **headers):
        return await asyncio.to_thread(
            requests.post, self.url + path, json=document, timeout=30, headers=headers
        )

    async def events(self, path, count=1, **options):
        """The first events of a stream, as (name, document)."""

        def read():
            found, name = [], ""
            with requests.get(self.url + path, stream=True, timeout=30, **options) as answer:
                assert answer.status_code == 200, answer.text
                for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        found.append((name, json.loads(line.removeprefix("data: "))))
                        if len(found) == count or name == "end":
                            break
            return found

        return await asyncio.to_thread(read)


@contextlib.asynccontextmanager
async def served(
    directory,
    services=("api",),
    *,
    token=None,
    actor=None,
    documents=None,
    hosts=None,
    jobs=True,
    title="a test's",
):
    """Serves the page of a directory's services."""
    watcher = Watcher(directory, hosts=hosts)
    gateway = Gateway(directory, token)
    pages = Pages(watcher, gateway, documents, actor, title=title)
    listening = serving.bound("127.0.0.1", 0)
    server = serving.Server(
        uvicorn.Config(
            pages.app(), log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
    )
    watcher.follow(services)
    tasks = [asyncio.create_task(watcher.run())]
    if jobs:
        tasks.append(asyncio.create_task(gateway.follow(watcher.note_job)))
    serve = asyncio.create_task(server.serve(sockets=[listening]))
    await server.serves.wait()
    try:
        yield Served(serving.url_of(listening), watcher, pages)
    finally:
        server.should_exit = True
        watcher.hub.close()
        await serve
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.close()
        listening.close()
