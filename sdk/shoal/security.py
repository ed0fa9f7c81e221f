"""What connections speak, and with which certificate: a channel's, and those to a server's port."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from shoal.doors import Speaks
from shoal.errors import TlsError
from shoal.identity import server_name
from shoal.tls import Tls, TlsFiles, check_service, files_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Security:
    """How a channel's connections are made.

    Attributes:
        speaks: What they speak.
        credentials: Makes the credentials of one; None for plaintext.
        options: Channel options that they need.
        files: Certificate and authorities, where they are ours.
    """

    speaks: Speaks
    credentials: Callable[[], grpc.ChannelCredentials] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    files: TlsFiles | None = None

    @classmethod
    def of(
        cls, service: str, tls: Tls | None, credentials: grpc.ChannelCredentials | None
    ) -> Security:
        """From a channel's arguments.

        Raises:
            TlsError: the files of ``tls`` can't be used.
            ValueError: both are given, or the service's name can't stand in a certificate.
        """
        if tls is not None and credentials is not None:
            raise ValueError("give a channel tls or credentials, not both")
        if credentials is not None:
            given = credentials
            return cls(Speaks.OWN, lambda: given)
        if tls is None:
            return cls(Speaks.PLAIN)
        files = files_of(tls)
        return cls(
            Speaks.TLS,
            lambda: files.current().channel_credentials(),
            # Demanded whatever address is announced, so that nobody but the service can answer.
            (("grpc.ssl_target_name_override", server_name(service, tls.domain)),),
            files,
        )


def server_credentials(files: TlsFiles, service: str) -> grpc.ServerCredentials:
    """Credentials for a port: each new connection gets what lies in the files then, if it is ours.

    Clients must show a certificate of a trusted authority.

    Raises:
        TlsError: the certificate is another service's, and callers would refuse it.
        ValueError: the service's name can't stand in a certificate.
    """
    material = check_service(files, service)
    # Each time on one of grpc's own threads, in a handshake: what is the same is not read again.
    seen = material

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        now = files.current()
        if now is seen:
            return None
        seen = now
        try:
            return check_service(files, service).server_configuration()
        except TlsError as error:
            logger.warning("%s; the one that was there before is shown on", error)
            return None

    return grpc.dynamic_ssl_server_credentials(
        material.server_configuration(),
        fetch,  # type: ignore[arg-type] # None is grpc's word for no change, which its stubs forgot
        require_client_authentication=True,
    )
