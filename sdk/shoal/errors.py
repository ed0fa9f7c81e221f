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


class ContractError(ShoalError, ValueError):
    """A server's descriptors can't be published, or what is published can't be read."""
