"""What the gateway's callers ask of each other's replicas."""

from __future__ import annotations

from shoal.contracts import Contract

# Learned from the calls, so that a new method of a service that one caller uses is nobody else's
# concern. Services are upgraded one after another, and an upgrade that goes wrong is undone: either
# side may be the older one, and what only the newer one knows must be no reason to part.
CALLS = Contract(older=True)
