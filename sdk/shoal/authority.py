"""A certificate authority in a directory, for development and small installations.

Needs ``pip install 'shoal[certs]'``. Keys are EC P-256, certificates short-lived; each file is
replaced whole, and keys are closed to others. Whoever can read ``authority/ca.pem`` can be anybody:
a production's authority is somebody else's program, and `shoal.Tls` takes what it issues.

    DIR/authority/ca.pem               key and certificate of the authority that issues
    DIR/registry/tls.crt, tls.key      of service registry, and ca.crt: whom it trusts
    DIR/alice.users/...                of user alice
"""

from __future__ import annotations

import datetime as dt
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shoal import atomically
from shoal.errors import TlsError
from shoal.identity import DOMAIN, PeerIdentity, identity_in
from shoal.tls import AUTHORITIES, CERTIFICATE, KEY

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "shoal.authority needs cryptography: pip install 'shoal[certs]'", name=error.name
    ) from error

DAY = 86400.0
# In one file, so that the one is never replaced without the other.
AUTHORITY, OWN, FORMER = "authority", "ca.pem", "former.crt"
# Of a common name, by X.509. ZooKeeper knows callers by theirs, so it is not cut short.
LONGEST = 64
# Clocks of two hosts differ; a certificate holds from a little before it was made, seconds.
SKEW = 300.0


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in the directory.

    Attributes:
        place: Its directory.
        identity: Whose it is; None for a name outside of the domain.
        names: Its DNS names.
        serial: In hexadecimal.
        issuer: The authority's common name.
        not_before: Since when it holds, seconds since 1970.
        not_after: Until when.
        fingerprint: SHA-256 in hexadecimal.
    """

    place: Path
    identity: PeerIdentity | None
    names: tuple[str, ...]
    serial: str
    issuer: str
    not_before: float
    not_after: float
    fingerprint: str


class Authority:
    """The authority of a directory.

    Args:
        directory: With everything.
        domain: What the names of certificates end with.
    """

    def __init__(self, directory: Path, domain: str = DOMAIN) -> None:
        self.directory = directory
        self.domain = domain.lower()
        self._own = directory / AUTHORITY
        self._file = self._own / OWN
        self._former = self._own / FORMER

    @classmethod
    def create(
        cls, directory: Path, *, days: float = 365.0, domain: str = DOMAIN, now: float | None = None
    ) -> Authority:
        """Makes a new one.

        Args:
            directory: Made where it is missing.
            days: For which the authority holds.
            domain: What the names of certificates end with.
            now: Seconds since 1970; the clock's when None.

        Raises:
            TlsError: there is one already, or the files can't be written.
        """
        made = cls(directory, domain)
        with made._locked():
            if made._file.exists():
                raise TlsError(
                    f"there is an authority in {directory} already: `shoal certs roll` puts a new "
                    "one in its place without an outage"
                )
            key, certificate = _authority(days, domain, now)
            _write(made._file, _pem_key(key) + _pem(certificate), 0o600)
        return made

    def issue(
        self, identity: PeerIdentity, *, days: float = 30.0, now: float | None = None
    ) -> Path:
        """Makes a key and a certificate, or others in the place of those that are there.

        Args:
            identity: Whose.
            days: For which it holds, but never longer than the authority.
            now: Seconds since 1970; the clock's when None.

        Returns:
            Their directory.

        Raises:
            TlsError: there is no authority here, or it has expired, or files can't be written.
            ValueError: the name can't stand in a certificate, or is too long with its domain.
        """
        name = identity.dns_name(self.domain)
        if len(name) > LONGEST:
            raise ValueError(
                f"{name!r} can't stand in a certificate: with its domain it has {len(name)} "
                f"characters, and a common name at most {LONGEST}"
            )
        if not days > 0.0:
            raise ValueError(f"a certificate holds for a positive number of days, not {days:g}")
        with self._locked():
            ca_key, ca = self._load()
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _leaf(ca_key, ca, key, name, identity, days, now)
            place = self.directory / name.removesuffix(f".{self.domain}")
            _write(place / AUTHORITIES, self._trusted(ca), 0o644)
            _write(place / KEY, _pem_key(key), 0o600)
            _write(place / CERTIFICATE, _pem(certificate), 0o644)
        return place

    def roll(self, *, days: float = 365.0, now: float | None = None) -> None:
        """Makes the next authority, and has everybody trust both. The next `issue` is by the new.

        Raises:
            TlsError: the last roll was not finished, or files can't be written.
        """
        with self._locked():
            _, old = self._load()
            if self._former.exists():
                raise TlsError(
                    f"the last roll in {self.directory} is not finished: `shoal certs renew`, then "
                    "`shoal certs roll --finish`"
                )
            key, certificate = _authority(days, self.domain, now)
            _write(self._former, _pem(old), 0o644)
            # Trusted by all before anything is issued by it. Interrupted here, it never will be,
            # and a finish puts things back.
            self._tell(self._trusted(certificate))
            _write(self._file, _pem_key(key) + _pem(certificate), 0o600)

    def finish(self) -> None:
        """Ends a roll: nobody trusts the former authority any more.

        Raises:
            TlsError: no roll is under way, or a certificate here is still the former one's.
        """
        with self._locked():
            _, ca = self._load()
            if not self._former.exists():
                raise TlsError(f"no roll is under way in {self.directory}")
            left = [each for each in self.issued() if each.issuer != _common_name(ca.subject)]
            if left:
                raise TlsError(
                    f"{', '.join(each.place.name for each in left)} in {self.directory} are still "
                    "of the former authority: `shoal certs renew` first"
                )
            # Last: interrupted before it, the roll is not finished, and can be.
            self._tell(_pem(ca))
            self._former.unlink()

    def issued(self) -> list[Issued]:
        """All certificates here, by name.

        Raises:
            TlsError: one can't be read.
        """
        places = sorted(each.parent for each in self.directory.glob(f"*/{CERTIFICATE}"))
        return [described(place, self.domain) for place in places]

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._file.exists()

    def own(self) -> Issued:
        """The authority's own certificate.

        Raises:
            TlsError: there is none, or it can't be read.
        """
        self._load()
        return described(self._file, self.domain)

    @property
    def rolling(self) -> bool:
        """Whether two authorities are trusted."""
        return self._former.exists()

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        try:
            data = self._file.read_bytes()
            key = serialization.load_pem_private_key(data, password=None)
            ca = x509.load_pem_x509_certificate(data)
        except FileNotFoundError as error:
            raise TlsError(
                f"there is no authority in {self.directory}: make one with `shoal certs init "
                f"{self.directory}`"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise TlsError(f"the authority in {self.directory} can't be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TlsError(f"the key in {self._file} is not of a kind that this program makes")
        return key, ca

    def _trusted(self, ca: x509.Certificate) -> bytes:
        return _pem(ca) + (self._former.read_bytes() if self.rolling else b"")

    def _tell(self, bundle: bytes) -> None:
        for certificate in self.directory.glob(f"*/{CERTIFICATE}"):
            _write(certificate.with_name(AUTHORITIES), bundle, 0o644)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own.mkdir(mode=0o700, exist_ok=True)
            with (self._own / ".lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except TlsError:
            raise
        except OSError as error:
            raise TlsError(f"{self.directory} can't be written: {error}") from error


def described(place: Path, domain: str = DOMAIN) -> Issued:
    """The certificate in a directory, or in a file.

    Raises:
        TlsError: it can't be read.
    """
    file = place / CERTIFICATE if place.is_dir() else place
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        names = _names(certificate)
    except OSError as error:
        raise TlsError(f"{file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise TlsError(f"{file} is no certificate in PEM format: {error}") from error
    return Issued(
        place=place,
        identity=identity_in(names, domain),
        names=names,
        serial=f"{certificate.serial_number:x}",
        issuer=_common_name(certificate.issuer),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.value.get_values_for_type(x509.DNSName))


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _authority(
    days: float, domain: str, now: float | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Two authorities have two names, or who looks for an issuer would try the wrong key.
    name = _named(f"Shoal development authority {serial:x}"[:LONGEST])
    start, end = _span(days, now)
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder(name, name, public, serial, start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(domain)], None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _leaf(
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    name: str,
    identity: PeerIdentity,
    days: float,
    now: float | None,
) -> x509.Certificate:
    start, end = _span(days, now)
    latest = ca.not_valid_after_utc
    if start >= latest:
        raise TlsError(
            f"the authority has expired at {latest:%Y-%m-%d %H:%M} UTC: `shoal certs roll`"
        )
    # Users only call; services are called, and call others.
    may = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if not identity.user:
        may.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    public = key.public_key()
    return (
        x509.CertificateBuilder(
            ca.subject,
            _named(name),
            public,
            x509.random_serial_number(),
            max(start, ca.not_valid_before_utc),
            min(end, latest),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(may), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _span(days: float, now: float | None) -> tuple[dt.datetime, dt.datetime]:
    at = dt.datetime.now(dt.UTC)
    if now is not None:
        at = dt.datetime.fromtimestamp(now, dt.UTC)
    return at - dt.timedelta(seconds=SKEW), at + dt.timedelta(days=days)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    atomically.write(path, data, mode=mode, sync=True)
