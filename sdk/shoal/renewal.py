"""Connections are made anew when their certificate or the trusted authorities have changed.

A connection keeps what it was opened with. So a caller whose files have changed opens another one
beside it, and moves its calls there once it stands: no call waits for a handshake, and a new
certificate that nobody takes breaks nothing that works.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from shoal.endpoint import CONNECTED, Endpoint
from shoal.tls import Material, TlsFiles
from shoal.transport import aside

if TYPE_CHECKING:
    from shoal.pool import Pool, ReplicaNode

logger = logging.getLogger(__name__)

# Between looks at the files, seconds: three calls of stat.
POLL = 2.0
# Between looks at connections that are being made.
LOOK = 0.05
# A new connection that does not stand after this long is worth a warning.
PATIENCE = 10.0
# Connections that are made at a time: a caller of a thousand replicas must not stand still for it.
AT_ONCE = 16


class Renewal:
    """Watches the files for a pool.

    They are read on the housekeeping thread, for an event loop must not wait for a disk; what
    follows from them happens where the transport does things later.

    Args:
        pool: Whose connections.
        files: Certificate and authorities.
    """

    def __init__(self, pool: Pool, files: TlsFiles) -> None:
        # A channel that nobody closed and nobody uses must not live on for this.
        self._pool = weakref.ref(pool)
        self._files = files
        # For each node its other connection, and when the wait for it began.
        self._making: dict[ReplicaNode, tuple[Endpoint, float]] = {}
        self._complained: set[Endpoint] = set()

    def begin(self) -> None:
        """Looks at the files from now on."""
        self._again(POLL)

    def close(self) -> None:
        """The pool is closed: nothing is in the making any more. Idempotent, from any thread."""
        for node in list(self._making):
            self._drop(node)

    def _again(self, delay: float) -> None:
        aside(delay, self._read)

    def _read(self) -> None:
        pool = self._pool()
        if pool is not None:
            material = self._files.current()
            pool.transport.later(0.0, lambda: self._look(material))

    def _look(self, material: Material) -> None:
        pool = self._pool()
        if pool is None:
            return
        if pool.closed:
            # What was begun while it was closed.
            self.close()
            return
        try:
            self._renew(pool, material)
        finally:
            waiting = len(self._making) > len(self._complained)
            self._again(LOOK if waiting else POLL)

    def _renew(self, pool: Pool, material: Material) -> None:
        for node in pool.balancer.snapshot.everyone().values():
            endpoint = node.endpoint
            if endpoint.opened and endpoint.made_with is not material and not node.retired:
                self._prepare(pool, node)
        for node, (endpoint, since) in list(self._making.items()):
            if endpoint.made_with is not material or node.retired:
                self._drop(node)
            elif endpoint.state(connect=True) in CONNECTED or not node.endpoint.connected:
                # Where the old connection is gone nothing is lost by the new one's failing.
                if self._taken(node) is endpoint:
                    pool.succeed(node, endpoint)
            elif pool.clock() - since > PATIENCE and endpoint not in self._complained:
                self._complained.add(endpoint)
                logger.warning(
                    "%s takes no new connection for %.0f s with what %s holds by now; calls go on "
                    "over the old one while that lasts",
                    node.replica.id,
                    PATIENCE,
                    self._files.tls.certificate,
                )

    def _prepare(self, pool: Pool, node: ReplicaNode) -> None:
        # Those that nobody takes don't hold up the others.
        if node not in self._making and len(self._making) - len(self._complained) < AT_ONCE:
            self._making[node] = (node.endpoint.anew(), pool.clock())

    def _drop(self, node: ReplicaNode) -> None:
        endpoint = self._taken(node)
        if endpoint is not None:
            endpoint.close()

    def _taken(self, node: ReplicaNode) -> Endpoint | None:
        """The connection in the making, for whoever comes first."""
        endpoint, _ = self._making.pop(node, (None, 0.0))
        if endpoint is not None:
            self._complained.discard(endpoint)
        return endpoint
