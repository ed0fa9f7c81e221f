"""``python -m shoal.health HOST:PORT``: asks a server's standard health service, for containers.

The exit code is 0 if it serves, 1 if it says that it does not (it starts, or leaves) or does not
answer: what a container's HEALTHCHECK wants.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import grpc

from shoal.addresses import split_address
from shoal.errors import TlsError
from shoal.standard import MISSING
from shoal.tls import Tls, files_of

EXAMPLES = """examples:
  python -m shoal.health 127.0.1.1:7401
  python -m shoal.health 127.0.1.1:7401 --service shoal.gateway.registry.v1.Registry
  SHOAL_BIND=0.0.0.0:7400 SHOAL_TLS=/etc/shoal/tls python -m shoal.health"""

# Instead of an address that listens everywhere: as near as one can get.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - not bound


def check(target: str, service: str = "", timeout: float = 5.0, tls: Tls | None = None) -> str:
    """The state that a server tells: SERVING, NOT_SERVING, SERVICE_UNKNOWN.

    Args:
        target: ``host:port``.
        service: A proto service's full name; empty: the server as a whole.
        timeout: Seconds.
        tls: The server's own certificate, where it speaks TLS: shown to it, and its name demanded.

    Raises:
        ImportError: the health service's package is not installed; names the cure.
        grpc.RpcError: it did not answer.
        TlsError: the certificate can't be used.
    """
    try:
        from grpc_health.v1 import health_pb2, health_pb2_grpc
    except ImportError as error:
        raise ImportError(MISSING) from error
    with _channel(target, tls) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=timeout
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _channel(target: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target)
    own = files_of(tls).current()
    override = [("grpc.ssl_target_name_override", own.names[0])] if own.names else []
    return grpc.secure_channel(target, own.channel_credentials(), options=override)


def own_target(environment: Mapping[str, str] = os.environ) -> str:
    """Where the server of this container listens, from ``SHOAL_BIND``.

    Raises:
        ValueError: that is not set, or names no port.
    """
    bind = environment.get("SHOAL_BIND")
    if not bind:
        raise ValueError("name HOST:PORT, or set SHOAL_BIND to where the server listens")
    host, port = split_address(bind)
    if not port:
        raise ValueError(f"SHOAL_BIND={bind} leaves the port to the system: name the target")
    return f"{LOOPBACK.get(host, f'[{host}]' if ':' in host else host)}:{port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal.health",
        description="Ask a server's health service.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", nargs="?", metavar="HOST:PORT", help="default: that of SHOAL_BIND, on loopback"
    )
    parser.add_argument(
        "--service", default="", metavar="NAME", help="a proto service (default: all of them)"
    )
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="default: %(default)g"
    )
    parser.add_argument(
        "--tls",
        type=Tls.of,
        default=Tls.from_environment(),
        metavar="DIR",
        help="directory of the server's certificate (default: $SHOAL_TLS, else plain text)",
    )
    parsed = parser.parse_args(arguments)
    try:
        target = parsed.target or own_target()
    except ValueError as error:
        parser.error(str(error))
    try:
        state = check(target, parsed.service, parsed.timeout, parsed.tls)
    except grpc.RpcError as error:
        state = f"{error.code().name}: {error.details()}"
    except TlsError as error:
        state = f"was not asked: {error}"
    print(f"{target} {state}")  # noqa: T201 - what it is for
    return 0 if state == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
