"""Which methods may be sent twice: what their protos promise."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool

_SAFE = (
    descriptor_pb2.MethodOptions.IDEMPOTENT,
    descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
)


def declared_safe(method: str) -> bool:
    """Whether the proto of ``/package.Service/Method`` declares an ``idempotency_level``.

    A method whose proto is not loaded, or that says nothing, is not safe. Looked up once for each
    multi-callable, not for each call.
    """
    service, _, name = method.strip("/").rpartition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return False
    descriptor = found.methods_by_name.get(name)
    return descriptor is not None and descriptor.GetOptions().idempotency_level in _SAFE
