"""Makes an administrator's token in the store itself: the first, or one after a lockout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shoal import atomically
from shoal_gateway import runtime, tokens
from shoal_gateway.errors import AlreadyExistsError, GatewayError
from shoal_gateway.registry import checks
from shoal_gateway.registry.members import Members
from shoal_gateway.registry.store import Store, StoreError
from shoal_protos.gateway.model.v1 import account_pb2

EXAMPLES = """examples:
  python -m shoal_gateway.registry.first_admin sqlite:////var/lib/shoal/registry.db \\
      --token-file ~/.config/shoal/token
  python -m shoal_gateway.registry.first_admin postgresql://shoal@db.example/shoal \\
      --name ada --again
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal_gateway.registry.first_admin",
        description="Makes a user and a token with the scope admin, in a registry's store and with"
        " nobody's leave but the store's. All others are made with `shoal users` and"
        " `shoal tokens`.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="URL", help="as the registry's --store")
    parser.add_argument("--name", default="admin", help="of the user (default: %(default)s)")
    parser.add_argument(
        "--token-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="write the token here, for nobody else to read (default: print it, once)",
    )
    parser.add_argument(
        "--again", action="store_true", help="another token, where the user is there already"
    )
    parser.add_argument(
        "--days", type=_days, default=90.0, help="that the token holds (default: %(default)g)"
    )
    options = parser.parse_args(arguments)
    runtime.configure_logging("WARNING")
    try:
        checks.user_name(options.name, "--name")
        store = Store(options.store)
        try:
            fresh = _make(Members(store), options.name, options.days * 86400.0, options.again)
        finally:
            store.close()
        if options.token_file is None:
            sys.stdout.write(f"{fresh.text}\n")
        else:
            atomically.write(options.token_file, f"{fresh.text}\n".encode())
    except (StoreError, GatewayError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


def _days(text: str) -> float:
    days = float(text)
    least, most = (each / 86400.0 for each in tokens.VALID)
    if not least <= days <= most:  # not a number is neither
        raise argparse.ArgumentTypeError(f"{text} must be {least:.1g} to {most:g}")
    return days


def _make(members: Members, name: str, valid: float, again: bool) -> tokens.Token:
    try:
        members.put_user(name, {}, create=True)
    except AlreadyExistsError as error:
        if not again:
            raise AlreadyExistsError(
                f"there is a user {name} already; with --again it gets another token"
            ) from error
    fresh = tokens.new()
    members.create_token(
        fresh.id,
        fresh.digest,
        name,
        [account_pb2.SCOPE_ADMIN],
        label="made in the store",
        valid=valid,
    )
    return fresh


if __name__ == "__main__":
    sys.exit(main())
