"""Contracts made in a test: a file of messages and services in a descriptor pool of its own."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
TYPES = {name.removeprefix("TYPE_").lower(): value for name, value in Field.Type.items()}
PACKAGE = "shoal.testing.made"
SERVICE = f"{PACKAGE}.Made"


def field(name, number, kind="string", *, repeated=False, required=False, oneof=None, default=None):
    """A field; ``kind`` is a scalar's name, or a message's or enum's with a leading dot."""
    made = Field(name=name, number=number, label=Field.LABEL_OPTIONAL)
    if repeated:
        made.label = Field.LABEL_REPEATED
    if required:
        made.label = Field.LABEL_REQUIRED
    if kind.startswith((".", "enum .")):
        made.type = Field.TYPE_ENUM if kind.startswith("enum") else Field.TYPE_MESSAGE
        made.type_name = f".{PACKAGE}.{kind.rpartition('.')[2]}"
    else:
        made.type = TYPES[kind]
    if oneof is not None:
        made.oneof_index = oneof
    if default is not None:
        made.default_value = default
    return made


def message(name, *fields, oneofs=(), reserved=()):
    """A message."""
    return descriptor_pb2.DescriptorProto(
        name=name,
        field=fields,
        oneof_decl=[descriptor_pb2.OneofDescriptorProto(name=each) for each in oneofs],
        reserved_range=[
            descriptor_pb2.DescriptorProto.ReservedRange(start=each, end=each + 1)
            for each in reserved
        ],
    )


def enum(name, reserved=(), **values):
    """An enum."""
    return descriptor_pb2.EnumDescriptorProto(
        name=name,
        value=[
            descriptor_pb2.EnumValueDescriptorProto(name=each, number=number)
            for each, number in values.items()
        ],
        reserved_range=[
            descriptor_pb2.EnumDescriptorProto.EnumReservedRange(start=each, end=each)
            for each in reserved
        ],
    )


def method(name, *, takes="Ask", answers="Answer", streams=(False, False), idempotent=False):
    """A method of the service."""
    made = descriptor_pb2.MethodDescriptorProto(
        name=name,
        input_type=f".{PACKAGE}.{takes}",
        output_type=f".{PACKAGE}.{answers}",
        client_streaming=streams[0],
        server_streaming=streams[1],
    )
    if idempotent:
        made.options.idempotency_level = descriptor_pb2.MethodOptions.IDEMPOTENT
    return made


class Made:
    """A contract: the messages, enums and methods of one service."""

    def __init__(self, *parts, syntax="proto2", name="made.proto") -> None:
        file = descriptor_pb2.FileDescriptorProto(name=name, package=PACKAGE, syntax=syntax)
        service = descriptor_pb2.ServiceDescriptorProto(name="Made")
        for part in parts:
            if isinstance(part, descriptor_pb2.DescriptorProto):
                file.message_type.append(part)
            elif isinstance(part, descriptor_pb2.EnumDescriptorProto):
                file.enum_type.append(part)
            else:
                service.method.append(part)
        named = {each.name for each in file.message_type}
        file.message_type.extend(message(each) for each in ("Ask", "Answer") if each not in named)
        if not service.method:
            service.method.append(method("Do"))
        file.service.append(service)
        self.pool = descriptor_pool.DescriptorPool()
        self.pool.Add(file)

    @property
    def service(self):
        """The service's descriptor."""
        return self.pool.FindServiceByName(SERVICE)

    def find(self, name):
        """The service's descriptor by its full name, None for any other."""
        return self.service if name == SERVICE else None

    def type(self, name):
        """The class of a message."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def asking(*fields, **options):
    """A contract whose request has these fields."""
    return Made(message("Ask", *fields, **options))


def answering(*fields, **options):
    """A contract whose response has these fields."""
    return Made(message("Answer", *fields, **options))
