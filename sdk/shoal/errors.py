"""What can go wrong, as exceptions that say what, where and what to do."""

from __future__ import annotations


class ShoalError(Exception):
    """Root of what Shoal raises by itself; grpc's own errors stay ``grpc.RpcError``."""


class ShoalForkError(ShoalError, RuntimeError):
    """A channel, server or directory made before a fork is used in the child, where grpc hangs."""


class DirectoryClosedError(ShoalError, RuntimeError):
    """A directory, or something made from it, is used after ``close()``."""


class RegistrationError(ShoalError):
    """A replica could not be announced in the directory, so nobody would find it."""


class InstanceFormatError(ShoalError, ValueError):
    """A node under a service is not a registration that can be read."""


class BindError(ShoalError, OSError):
    """A server could not bind the address that it was told to."""


class CoordinationError(ShoalError):
    """ZooKeeper refused what a lock, a leadership or another recipe needs of it."""


class CoordinationTimeoutError(CoordinationError, TimeoutError):
    """What was awaited did not happen in time; says what, and how ZooKeeper is."""


class LockError(ShoalError):
    """A lock is not in the state that the call needs."""


class LockTimeoutError(LockError, TimeoutError):
    """A lock could not be had in time; says who was ahead, and how ZooKeeper is."""


class LockTakenError(LockError):
    """Somebody else holds the lock, and the caller did not want to wait.

    Args:
        path: Of the lock.
        holder: What the holder has written into its node.
    """

    def __init__(self, path: str, holder: bytes) -> None:
        self.path = path
        self.holder = holder
        super().__init__(f"{path} is held by {holder.decode('utf-8', 'replace') or 'another'}")


class LockLostError(LockError):
    """What was held is lost: another may hold it by now, so nothing may be done in its name."""


class ConfigError(ShoalError):
    """A document of the configuration can't be read or written as asked."""


class ConfigInvalidError(ConfigError, ValueError):
    """A document is not what its model wants, is no JSON, or is too large; says which field."""


class ConfigConflictError(ConfigError):
    """Somebody else has written since the version on which a change was based.

    Args:
        path: Of the document.
        expected: The version that was expected; None: no document.
        found: The version that is there; None: no document.
    """

    def __init__(self, path: str, expected: int | None, found: int | None) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        super().__init__(
            f"{path} is {_at(found)} by now, and was to be {_at(expected)}: somebody else has"
            " written it. Read it, and make the change anew"
        )


def _at(version: int | None) -> str:
    return "not there" if version is None else f"at version {version}"


class ContractError(ShoalError, ValueError):
    """A server's descriptors can't be published, or what is published can't be read."""


class KeyFormatError(ShoalError, ValueError):
    """A node under ``/keys`` is not a public key that can be read."""


class KeyFileError(ShoalError, OSError):
    """A private key's file can't be read or written, or others may read it."""


class SignatureError(ShoalError):
    """It is not shown that somebody signed something: says whether key or signature is to blame."""


class KeysUnknownError(ShoalError):
    """Which public keys hold can't be said now, so nothing is verified; try again later."""


class TlsError(ShoalError, OSError):
    """A certificate, its key or the authorities can't be used; says which file, and why."""
