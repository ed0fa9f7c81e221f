"""How commands end: exit codes, and the sentence for what went wrong."""

from __future__ import annotations

# All was done.
FINE = 0
# It was tried, and failed or was refused.
FAILED = 1
# The command line can't be read, or something it needs is not installed.
USAGE = 2
# There is no fleet, or nobody answers: the same command may do later, or elsewhere.
UNREACHABLE = 3
# Stopped between two steps, on request: the same command goes on from there.
PAUSED = 4
# Ctrl-C or SIGTERM.
INTERRUPTED = 130


def ending(error: Exception) -> tuple[int, str] | None:
    """Exit code and sentence for an error; None for one that is a defect of ours.

    What it looks at is imported here: most commands end well.
    """
    import grpc

    from shoal.errors import CoordinationTimeoutError, KeysUnknownError, ShoalError
    from shoal.testing.installed import ZooKeeperError
    from shoal_gateway.aws.errors import AwsError
    from shoal_gateway.client import ChecksumError
    from shoal_gateway.fleet.errors import FleetError, NoFleetError
    from shoal_gateway.fleet.pginstalled import PostgresError

    if isinstance(error, grpc.RpcError):
        code = error.code()
        said = f"{code.name.lower().replace('_', ' ')}: {error.details()}"
        return (UNREACHABLE if code is grpc.StatusCode.UNAVAILABLE else FAILED), said
    if isinstance(
        error, NoFleetError | UnreachableError | CoordinationTimeoutError | KeysUnknownError
    ):
        return UNREACHABLE, str(error)
    known = (
        FleetError,
        ShoalError,
        AwsError,
        ZooKeeperError,
        PostgresError,
        ChecksumError,
        OSError,
        ValueError,
    )
    return (FAILED, str(error)) if isinstance(error, known) else None


class UnreachableError(Exception):
    """Nobody is there to be asked; says who was, and what to look at."""


def unknown(address: str, state: str) -> str:
    """The sentence for a directory of which nothing is known, not even from before.

    Args:
        address: ZooKeeper's, with chroot.
        state: How the session is.
    """
    return (
        f"nothing is known of {address}: ZooKeeper is {state}. Is it running, and is the address"
        " right? `shoal doctor` looks closer"
    )
