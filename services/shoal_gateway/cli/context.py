"""What every command needs: the fleet, the way to its gateway, and how to say things."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from shoal.directory import Directory
    from shoal.signing import Signer
    from shoal.tls import Tls
    from shoal_gateway.client import Gateway
    from shoal_gateway.fleet import Fleet

# Names, reasons and errors come from anywhere: brackets and colons in them are no markup of ours.
# What is piped away is not cut to 80 columns.
out = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Where:
    """Which fleet is meant.

    Attributes:
        fleet: Directory of a local one.
        zookeeper: Address with chroot of one elsewhere; None: the local one.
        owner: Whose jobs.
        certificate: Directory of the certificate to call with; None: the local fleet's operator's,
            where it has one.
    """

    fleet: Path
    zookeeper: str | None = None
    owner: str = ""
    certificate: Path | None = None

    def local(self, progress: Any = None) -> Fleet:
        """The local fleet.

        Raises:
            FleetError: a fleet elsewhere is meant.
        """
        # What a command needs of the fleet, of gRPC and of ZooKeeper's client is imported when it
        # needs it: completions and help come without.
        from shoal_gateway.fleet import Fleet, FleetError

        if self.zookeeper:
            raise FleetError("this command works on a local fleet; leave --zookeeper out")
        return Fleet(self.fleet, **({"progress": progress} if progress else {}))

    def address(self) -> str:
        """ZooKeeper's address with chroot.

        Raises:
            FleetError: there is no fleet.
        """
        return self.zookeeper or self.local().state.zookeeper

    @contextmanager
    def directory(self) -> Iterator[Directory]:
        """The way into the fleet's directory."""
        from shoal.directory import Directory

        cache = self.fleet.absolute() / "cache"
        with Directory(self.address(), cache_dir=cache, tls=self.tls()) as directory:
            yield directory

    def tls(self) -> Tls | None:
        """The certificate that calls are made with; None for plain text.

        Raises:
            FleetError: there is no fleet.
        """
        if self.certificate is not None:
            from shoal.tls import Tls

            return Tls.of(self.certificate)
        return None if self.zookeeper else self.local().tls()

    @contextmanager
    def gateway(self, signer: Signer | None = None) -> Iterator[Gateway]:
        """The fleet's gateway; ``signer`` signs what is submitted.

        Raises:
            TokenError: a token is given that can't be used.
        """
        from shoal_gateway.client import Gateway

        token = self.token()
        # With a token the gateway knows whose jobs they are; a signature covers what is said.
        unsaid = token is not None and signer is None and not self.owner
        with self.directory() as directory:
            yield Gateway(directory, "" if unsaid else self.whose(), signer, token=token)

    def token(self) -> str | None:
        """The caller's token; None when there is none.

        Raises:
            TokenError: there is one that can't be used.
        """
        from shoal_gateway.cli import tokenfiles

        return tokenfiles.token_of(None if self.zookeeper else self.fleet / "admin.token")

    def whose(self) -> str:
        """The owner that is meant."""
        return self.owner or getpass.getuser()


def print_json(document: Any) -> None:
    """For scripts: JSON and nothing else, whatever the terminal."""
    out.print(json.dumps(document, indent=2), soft_wrap=True, highlight=False)


def sure(question: str, yes: bool) -> None:
    """Asks before something that can't be taken back; goes on only after a yes.

    Args:
        question: Says what will happen.
        yes: It was answered on the command line.

    Raises:
        ValueError: nobody is there to be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"{question} Nobody can be asked here; say --yes")
    typer.confirm(question, abort=True)
