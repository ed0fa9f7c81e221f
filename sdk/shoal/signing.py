"""Private keys in files, and signatures made with them: ed25519, by ``cryptography``.

Needs ``pip install 'shoal[keys]'``. What is signed is the message behind a domain, a word for what
it is, so that a signature under one thing can't be shown as one under another.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shoal import atomically
from shoal.errors import KeyFileError
from shoal.recipes.keydocs import key_id

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "shoal.Signer and shoal.Keys need cryptography: pip install 'shoal[keys]'", name=error.name
    ) from error

_PREFIX = b"shoal signature v1\0"
# A key's file is 119 bytes.
_LONGEST_FILE = 4096


class Signer:
    """A private key in memory.

    Args:
        private: The key.

    Attributes:
        public: Its public half, 32 bytes.
        id: The public half's name.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def __repr__(self) -> str:
        return f"<Signer {self.id}>"

    @classmethod
    def generate(cls) -> Signer:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Signer:
        """The key in a file.

        Raises:
            KeyFileError: it can't be read, is no such key, or others may read it.
        """
        try:
            with path.open("rb") as file:
                # Of the open file: another may be put in its place meanwhile.
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(_LONGEST_FILE)
        except OSError as error:
            raise KeyFileError(f"the private key {path} can't be read: {error}") from error
        if mode & 0o077:
            raise KeyFileError(
                f"others may read the private key {path} (mode {mode:04o}), so it may be known:"
                f" make a new one; or, if you are sure that nobody has seen it, chmod 600 {path}"
            )
        try:
            private = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path} is no private key in PEM format: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileError(f"{path} holds another kind of key; ed25519 is needed")
        return cls(private)

    def save(self, path: Path, *, replace: bool = False) -> None:
        """Writes the key to a file of mode 0600, whole or not at all.

        Args:
            path: The file; its directory is made where it is missing.
            replace: Whether it may take the place of another.

        Raises:
            KeyFileError: there is a file already, unless it is to be replaced; or it can't be
                written.
        """
        data = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            atomically.write(path, data, sync=True, replace=replace)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.exists():
                raise KeyFileError(
                    f"there is a private key at {path} already; rotate it, or name another file"
                ) from error
            raise KeyFileError(f"the private key can't be written to {path}: {error}") from error

    def sign(self, domain: str, message: bytes) -> bytes:
        """The signature under a message, 64 bytes.

        Args:
            domain: What it is for, for example ``billing.invoice.v1``; whoever verifies says the
                same, so that it can't be passed off as a signature for something else.
            message: What is signed.
        """
        return self._private.sign(signed_bytes(domain, message))


def verifies(public: bytes, domain: str, message: bytes, signature: bytes) -> bool:
    """Whether a signature under a message was made with the private half of a key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_bytes(domain, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def signed_bytes(domain: str, message: bytes) -> bytes:
    """What is really signed; no two pairs of domain and message give the same."""
    name = domain.encode()
    return _PREFIX + len(name).to_bytes(2) + name + message
