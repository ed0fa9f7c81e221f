"""Moto's server with one mistake mended:  python -m tests.support.moto_server -H 127.0.0.1 -p 0.

Moto 5.2 knows nothing of a request that a bucket's policy could set a condition on. A bucket that
refuses what comes without TLS, as AWS advises, refuses everything there. Here a refusal under a
condition refuses nothing, which is what AWS answers to all who use TLS.
"""

from __future__ import annotations

import sys

from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.server import main

permitted = IAMPolicyStatement.is_action_permitted


def permitted_over_tls(self, *arguments, **named):
    if self._statement["Effect"] == "Deny" and self._statement.get("Condition"):
        return PermissionResult.NEUTRAL
    return permitted(self, *arguments, **named)


if __name__ == "__main__":
    IAMPolicyStatement.is_action_permitted = permitted_over_tls
    main(sys.argv[1:])
