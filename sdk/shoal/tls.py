"""Certificates for both ends of a connection: where they lie, and what lies there now.

The files are read again when they change, so that a certificate, or the authorities behind all of
them, are replaced without a restart. What can't be used is refused with words, and what was there
before is used on.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc

from shoal import forks
from shoal.errors import TlsError
from shoal.identity import DOMAIN, server_name

logger = logging.getLogger(__name__)

# The files of `Tls.of`, named as in Kubernetes' secrets of type kubernetes.io/tls.
CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
ENVIRONMENT = "SHOAL_TLS"

# Files are replaced one after the other. Only what does not go together for this long, seconds, is
# worth a warning.
SETTLES = 1.0
# What could not be used is tried again after this long, seconds, though nothing has changed in the
# files: a clock or a disk may have been mended.
AGAIN = 10.0
# Tries to read three files while nobody replaces one of them.
READS = 5
# A certificate that was not renewed when this share of its life is left is warned of.
RENEWED_BY = 0.1
# Larger ones are no certificates, keys or authorities, bytes.
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Tls:
    """Where a process's certificate lies, and whom it trusts. Nothing is read here.

        tls = shoal.Tls.of("/etc/shoal/tls")
        directory = shoal.Directory("zk1:2181/gateway", tls=tls)
        server = shoal.Server("registry", tls=tls)

    Both ends of a connection show a certificate and verify the other's. `shoal.peer_identity` says
    who calls.

    Args:
        certificate: PEM file: the certificate, then those between it and an authority if any.
        key: PEM file with its private key, not encrypted.
        authorities: PEM file with the certificates of all authorities that are trusted.
        domain: What the names in certificates end with: ``registry.<domain>``.
    """

    certificate: Path
    key: Path
    authorities: Path
    domain: str = DOMAIN

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "authorities"):
            # Absolute, for they are read again when the process may be elsewhere.
            object.__setattr__(self, name, Path(getattr(self, name)).absolute())

    @classmethod
    def of(cls, directory: Path | str, *, domain: str = DOMAIN) -> Tls:
        """The three files in a directory: ``tls.crt``, ``tls.key``, ``ca.crt``.

        Args:
            directory: Where they are.
            domain: What follows a service's name in certificates: ``registry.shoal.internal``.
        """
        place = Path(directory)
        return cls(place / CERTIFICATE, place / KEY, place / AUTHORITIES, domain)

    @classmethod
    def from_environment(cls) -> Tls | None:
        """Those in the directory that ``SHOAL_TLS`` names; None where it names none."""
        place = os.environ.get(ENVIRONMENT)
        return cls.of(place) if place else None


@dataclass(frozen=True, slots=True)
class Material:
    """What lay in the files at one moment, and goes together.

    Attributes:
        certificate: PEM.
        key: PEM.
        authorities: PEM.
        names: DNS names of the certificate.
        not_before: Since when it holds, seconds since 1970.
        not_after: Until when.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    names: tuple[str, ...]
    not_before: float
    not_after: float

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a connection to a server."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """For connections that begin now."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], self.authorities
        )


# Of one file: what changes when another is put in its place, or it is written anew.
_Stamp = tuple[int, int, int, int, int]


class TlsFiles:
    """The files of a `Tls`, read again when they change. Safe from any thread.

    Args:
        tls: Where they lie.
        clock: Seconds, monotonic.
        now: Seconds since 1970.

    Raises:
        TlsError: one is missing, can't be read or used, or they don't go together.
    """

    def __init__(
        self,
        tls: Tls,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.tls = tls
        self._clock = clock
        self._now = now
        self._stamps: tuple[_Stamp, ...] | str | None = None
        # What could not be used, since when, why, when it is tried again, and whether it was said.
        self._bad: tuple[tuple[_Stamp, ...] | str, float, str] | None = None
        self._again = 0.0
        self._complained = False
        self._warned: Material | None = None
        self.after_fork()
        self._stamps, self._held = self._read()
        forks.on_fork(self)

    def current(self) -> Material:
        """What lies there now; what lay there before, while that can't be used."""
        with self._lock:
            stamps = self._stamped()
            if stamps != self._stamps:
                self._replace(stamps)
            self._look_at_age()
            return self._held

    def after_fork(self) -> None:
        """In a forked child: nobody else holds the lock."""
        self._lock = threading.Lock()

    def _replace(self, stamps: tuple[_Stamp, ...] | str) -> None:
        now = self._clock()
        if self._bad is None or self._bad[0] != stamps:
            self._bad, self._again, self._complained = (stamps, now, ""), now, False
        _, since, why = self._bad
        if now >= self._again:
            try:
                self._stamps, found = self._read()
            except TlsError as error:
                why = str(error)
                self._bad, self._again = (stamps, since, why), now + AGAIN
            else:
                self._bad = None
                # Connections are made anew for another material only.
                if found != self._held:
                    self._held = found
                    until = _day(found)
                    logger.info("%s was read again: valid until %s", self.tls.certificate, until)
                return
        if not self._complained and now - since >= SETTLES:
            self._complained = True
            logger.warning("%s; the certificate that was there before is used on", why)

    def _look_at_age(self) -> None:
        held = self._held
        left = held.not_after - self._now()
        if self._warned is not held and left < RENEWED_BY * (held.not_after - held.not_before):
            self._warned = held
            logger.warning(
                "%s %s at %s, and was not renewed: every new connection will be refused",
                self.tls.certificate,
                "expires" if left > 0 else "expired",
                _day(held),
            )

    def _stamped(self) -> tuple[_Stamp, ...] | str:
        try:
            found = [
                path.stat() for path in (self.tls.certificate, self.tls.key, self.tls.authorities)
            ]
        except OSError as error:
            return str(error)
        return tuple(
            (each.st_dev, each.st_ino, each.st_mtime_ns, each.st_ctime_ns, each.st_size)
            for each in found
        )

    def _read(self) -> tuple[tuple[_Stamp, ...] | str, Material]:
        for _ in range(READS):
            stamps = self._stamped()
            try:
                material = _examined(self.tls)
            except TlsError:
                if self._stamped() == stamps:
                    raise
            else:
                if self._stamped() == stamps:
                    return stamps, material
        raise TlsError(f"{self.tls.certificate} and what belongs to it change all the time")


_files: weakref.WeakValueDictionary[Tls, TlsFiles] = weakref.WeakValueDictionary()


def files_of(tls: Tls) -> TlsFiles:
    """The files of equal settings, which the whole process reads only once.

    Raises:
        TlsError: they can't be used; says why.
    """
    found = _files.get(tls)
    if found is None:
        found = _files[tls] = TlsFiles(tls)
    return found


def check_service(files: TlsFiles, service: str) -> Material:
    """Refuses a certificate that callers of a service would refuse; returns any other.

    Raises:
        TlsError: it is another service's.
        ValueError: the service's name can't stand in a certificate.
    """
    material = files.current()
    wanted = server_name(service, files.tls.domain)
    if wanted not in material.names:
        raise TlsError(
            f"{files.tls.certificate} is a certificate of {', '.join(material.names) or 'nobody'}, "
            f"and callers of '{service}' want one of {wanted}: issue that "
            f"(shoal certs issue DIR {service})"
        )
    return material


def _examined(tls: Tls) -> Material:
    """Reads the files and tries them: the certificate is shown to ourselves, in memory.

    Raises:
        TlsError: says which file, what is wrong, and what to do.
    """
    certificate, key = _bytes(tls.certificate), _bytes(tls.key)
    authorities = _bytes(tls.authorities)
    if b"ENCRYPTED" in key:
        raise TlsError(f"the key {tls.key} is encrypted, and nobody is here to be asked for it")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server.verify_mode = ssl.CERT_REQUIRED
    try:
        server.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(
            f"{tls.authorities} holds no certificates of authorities in PEM format: {error}"
        ) from error
    for context in (server, client):
        try:
            context.load_cert_chain(tls.certificate, tls.key)
        except (OSError, ValueError) as error:
            _unusable(tls, error)
    try:
        found = _shown(server, client)
    except ssl.SSLCertVerificationError as error:
        raise TlsError(_why(tls, error)) from error
    except ssl.SSLError as error:
        raise TlsError(f"{tls.certificate} can't be used for TLS: {error}") from error
    return Material(
        certificate,
        key,
        authorities,
        tuple(value.lower() for kind, value in found.get("subjectAltName", ()) if kind == "DNS"),
        ssl.cert_time_to_seconds(found["notBefore"]),
        ssl.cert_time_to_seconds(found["notAfter"]),
    )


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise TlsError(
            f"{path} is missing: a development authority and certificates are made by "
            "`shoal certs init` and `shoal certs issue`"
        ) from error
    except OSError as error:
        raise TlsError(f"{path} can't be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise TlsError(f"{path} is larger than {LARGEST} bytes: that is no PEM file of ours")
    return data


def _unusable(tls: Tls, error: Exception) -> NoReturn:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        raise TlsError(
            f"{tls.key} is not the key of {tls.certificate}: copy both from the same place"
        ) from error
    if isinstance(error, ssl.SSLError):
        raise TlsError(
            f"{tls.certificate} and {tls.key} are no certificate and key in PEM format: {error}"
        ) from error
    raise TlsError(f"{tls.certificate} and {tls.key} can't be read: {error}") from error


def _shown(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """The handshake; what the server has verified of the client's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=None)
    callee = server.wrap_bio(to_server, to_client, server_side=True)
    unfinished = [caller, callee]
    # Three messages: what each side says is handed to the other.
    for _ in range(6):
        for side in list(unfinished):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            unfinished.remove(side)
        if not unfinished:
            break
    return dict(callee.getpeercert() or {})


# OpenSSL's X509_V_ERR_… numbers.
_NOT_YET, _EXPIRED, _PURPOSE = 9, 10, 26
_NO_ISSUER = (2, 18, 19, 20, 21)


def _why(tls: Tls, error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"{tls.certificate}, or an authority's behind it, has expired: renew it"
    if code == _NOT_YET:
        return f"{tls.certificate}, or an authority's behind it, does not hold yet: check the clock"
    if code in _NO_ISSUER:
        return (
            f"{tls.certificate} is of no authority in {tls.authorities}: nobody who trusts those "
            "would take it"
        )
    if code == _PURPOSE:
        return f"{tls.certificate} may not be shown by a client: its extended key usage forbids it"
    return f"{tls.certificate} does not hold for those who trust {tls.authorities}: {error}"


def _day(material: Material) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(material.not_after))
