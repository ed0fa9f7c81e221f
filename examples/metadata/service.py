"""Many replicas read, one writes: it is elected, replaced when it dies, and fenced.

    python -m examples.metadata.service --zookeeper 127.0.0.1:2181/demo --store /tmp/facts.db

Start it several times. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import grpc

import shoal
from examples.metadata.store import StaleFenceError, Store
from shoal_protos.examples.metadata.v1 import metadata_pb2, metadata_pb2_grpc

# Seconds after which callers may ask again who has refused them.
AGAIN = 0.2


class Metadata(metadata_pb2_grpc.MetadataServicer):
    """One replica.

    Args:
        name: Its own.
        store: What all of them share.
    """

    def __init__(self, name: str, store: Store) -> None:
        self._name = name
        self._store = store
        self._term: shoal.Term | None = None

    def lead(self, term: shoal.Term) -> None:
        """Is the writer until the term is over."""
        # Before anything is promised: what a former writer still has under way is refused now, and
        # not only when this one has written.
        self._store.claim(term.fence)
        self._term = term
        try:
            term.over.wait()
        finally:
            self._term = None

    def Get(  # noqa: N802 - as generated
        self, request: metadata_pb2.GetRequest, context: grpc.ServicerContext
    ) -> metadata_pb2.GetResponse:
        """Any replica reads."""
        value = self._store.get(request.name)
        if value is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no fact {request.name!r}")
        return metadata_pb2.GetResponse(value=value, replica=self._name)

    def Put(  # noqa: N802 - as generated
        self, request: metadata_pb2.PutRequest, context: grpc.ServicerContext
    ) -> metadata_pb2.PutResponse:
        """Only the writer writes."""
        term = self._term
        if term is None or not term.leads:
            # Where all say so, nobody is promoted yet: who called asks again a moment later.
            shoal.refuse(
                context, f"{self._name} only reads; ask another", reason="reader", pushback=AGAIN
            )
        try:
            self._store.put(request.name, request.value, term.fence)
        except StaleFenceError as error:
            # It was paused between the look above and the write. Nothing was written.
            shoal.refuse(context, f"{self._name}: {error}", reason="deposed", pushback=AGAIN)
        return metadata_pb2.PutResponse(replica=self._name, fence=term.fence)


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zookeeper", required=True, help="servers and chroot: zk1:2181/demo")
    parser.add_argument("--store", required=True, type=Path, help="SQLite file that all share")
    parser.add_argument("--session", type=float, default=5.0, help="seconds; a dead writer's term")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    server = shoal.Server("metadata")
    metadata = Metadata(server.identity.id, Store(options.store))
    metadata_pb2_grpc.add_MetadataServicer_to_server(metadata, server)
    with (
        shoal.Directory(options.zookeeper, session_timeout=options.session) as directory,
        shoal.Leadership(directory, "metadata", metadata.lead, who=server.identity.id),
    ):
        server.run(directory, ready=lambda replica: print(replica.target, flush=True))


if __name__ == "__main__":
    main()
