"""What a replica serves, as its descriptors say, under a digest that names it."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable
from typing import Any, Self

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from shoal.errors import ContractError

# In a replica's metadata. Beside it ``protos`` names the services, for people.
KEY = "protos_digest"
NAMES = "protos"
# A node of ZooKeeper holds 1 MB less a little; whoever comes near it should hear of it early.
MOST_PACKED = 512 * 1024
# Nobody's descriptors are that long; what says so when it is unpacked is no contract.
MOST_BYTES = 32 * 1024 * 1024
# protobuf's own files come with its runtime, differ between its releases, and mean the same.
_OWN = "google/protobuf/"
_ALGORITHM = "sha256:"


class ServedContract:
    """The descriptors of a replica's services, in one order whoever writes them down.

    The files of its services and what they import, each after its imports, without comments and
    places in the source, and without protobuf's own. The digest is of these bytes, so that one
    contract has one digest, and a digest one contract.

    Attributes:
        digest: ``sha256:`` and 64 hexadecimal digits.
        files: A serialized ``FileDescriptorSet``.
    """

    def __init__(self, files: bytes) -> None:
        self.files = files
        self.digest = f"{_ALGORITHM}{hashlib.sha256(files).hexdigest()}"
        self._pool: Any = None

    def __repr__(self) -> str:
        return f"<ServedContract {self.digest[:19]} {len(self.files)} bytes>"

    @classmethod
    def of(cls, names: Iterable[str], pool: Any = None) -> Self | None:
        """The contract of services by their full names.

        Args:
            names: Of the services. One whose descriptor is not in the pool is left out: a server
                may speak something else than protobuf.
            pool: Where the descriptors are; protobuf's default pool when None.

        Returns:
            None when there is no descriptor at all.
        """
        found = []
        for name in sorted(set(names)):
            try:
                found.append((pool or descriptor_pool.Default()).FindServiceByName(name))
            except KeyError:
                continue
        return cls._from(service.file for service in found) if found else None

    @classmethod
    def _from(cls, files: Iterable[FileDescriptor]) -> Self:
        listed: dict[str, descriptor_pb2.FileDescriptorProto] = {}

        def add(file: FileDescriptor) -> None:
            if file.name in listed or file.name.startswith(_OWN):
                return
            for imported in sorted(file.dependencies, key=lambda each: str(each.name)):
                add(imported)
            proto = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(proto)
            proto.ClearField("source_code_info")
            listed[file.name] = proto

        for file in sorted(files, key=lambda each: str(each.name)):
            add(file)
        whole = descriptor_pb2.FileDescriptorSet(file=listed.values())
        return cls(whole.SerializeToString(deterministic=True))

    def packed(self) -> bytes:
        """Compressed, as it is published.

        Raises:
            ContractError: that is more than a node of ZooKeeper should hold.
        """
        data = gzip.compress(self.files, mtime=0)
        if len(data) > MOST_PACKED:
            raise ContractError(
                f"the descriptors of this server's services take {len(data)} bytes compressed, and "
                f"at most {MOST_PACKED} are published: split the files that they import, or make "
                "the server with contract=False (callers then can't check it)"
            )
        return data

    @classmethod
    def unpack(cls, digest: str, data: bytes) -> Self:
        """What was published under a digest.

        Raises:
            ContractError: it is damaged, or something else.
        """
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                files = file.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ContractError(f"what is published as {digest} is damaged: {error}") from error
        found = cls(files) if len(files) <= MOST_BYTES else None
        if found is None or found.digest != digest:
            raise ContractError(f"what is published as {digest} is something else")
        return found

    def service(self, name: str) -> ServiceDescriptor | None:
        """The descriptor of a service; None when it is not among them.

        Raises:
            ContractError: the descriptors can't be understood here.
        """
        if self._pool is None:
            self._pool = self._loaded()
        try:
            return self._pool.FindServiceByName(name)  # type: ignore[no-any-return]
        except KeyError:
            return None

    def _loaded(self) -> Any:
        # A pool of its own: the caller's has other messages under the same names.
        pool = descriptor_pool.DescriptorPool()
        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(self.files).file
            here = {file.name for file in files}
            for file in files:
                for imported in file.dependency:
                    if imported not in here:
                        _add_own(imported, pool)
                pool.Add(file)
                pool.FindFileByName(file.name)
        except (DecodeError, TypeError, KeyError) as error:
            raise ContractError(
                f"the descriptors {self.digest} can't be understood here: {error}"
            ) from error
        return pool


def _add_own(name: str, pool: Any) -> None:
    """Adds one of protobuf's own files to a pool, after what it imports."""
    try:
        pool.FindFileByName(name)
    except KeyError:
        file = _own_file(name)
        for imported in file.dependencies:
            _add_own(imported.name, pool)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        pool.Add(proto)


def _own_file(name: str) -> FileDescriptor:
    try:
        return descriptor_pool.Default().FindFileByName(name)
    except KeyError:
        # Nothing here has imported it yet: a module is named after its file.
        if not name.startswith(_OWN):
            raise
        import importlib

        module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise KeyError(f"{name} does not come with this protobuf") from error
        return descriptor_pool.Default().FindFileByName(name)
