"""``shoal``: runs a command and turns what goes wrong into a sentence and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import grpc

from shoal.errors import ShoalError
from shoal.testing.installed import ZooKeeperError
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.cli import (  # noqa: F401 - they add their commands
    certs,
    config,
    dashboard,
    experiments,
    fleets,
    instances,
    jobs,
    keys,
    names,
    upgrades,
    users,
    zookeeper,
)
from shoal_gateway.cli.context import err
from shoal_gateway.cli.root import app
from shoal_gateway.client import ChecksumError
from shoal_gateway.fleet import FleetError
from shoal_gateway.fleet.pginstalled import PostgresError

FAILED, UNREACHABLE = 1, 3


def run(arguments: Sequence[str]) -> int:
    """Runs a command; the exit code: 0 fine, 1 failed, 2 usage, 3 nobody to talk to."""
    # As Ctrl-C: what was started is ended, and not left to itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(list(arguments))
    except SystemExit as end:
        # Usage errors (2) and Ctrl-C (130) are said by typer itself.
        return end.code if isinstance(end.code, int) else FAILED
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except grpc.RpcError as error:
        err.print(f"shoal: {_said(error)}", style="red", markup=False)
        return UNREACHABLE if error.code() is grpc.StatusCode.UNAVAILABLE else FAILED
    except FleetError as error:
        err.print(f"shoal: {error}", style="red", markup=False)
        return UNREACHABLE if "no fleet" in str(error) else FAILED
    except (
        ShoalError,
        AwsError,
        ZooKeeperError,
        PostgresError,
        ChecksumError,
        OSError,
        ValueError,
    ) as error:
        err.print(f"shoal: {error}", style="red", markup=False)
        return FAILED
    return 0


def _said(error: grpc.RpcError) -> str:
    code = error.code().name.lower().replace("_", " ")
    return f"{code}: {error.details()}"
