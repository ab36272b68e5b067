"""Find breaking changes of the proto files: compare two descriptor sets element by element.

Callers rely on the bytes (numbers, types), on generated code (names, presence, oneofs) and on JSON (names). New
elements break nothing.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)


def breaks(released: FileDescriptorSet, current: FileDescriptorSet) -> list[str]:
    """Return a sentence for each released element that is removed or changed."""
    before, now = (dict(_elements(contract)) for contract in (released, current))
    return [
        f"{name} is gone" if name not in now else f"{name} was {before[name]}, is {now[name]}"
        for name in before
        if name not in now or now[name] != before[name]
    ]


def _elements(contract: FileDescriptorSet) -> Iterator[tuple[str, Any]]:
    for file in contract.file:
        for message in file.message_type:
            yield from _of_message(message, file.package)
        for enum in file.enum_type:
            yield from _of_enum(enum, file.package)
        for service in file.service:
            yield f"service {file.package}.{service.name}", None
            for method in service.method:
                yield f"method {file.package}.{service.name}.{method.name}", _of_method(method)


def _of_message(message: DescriptorProto, scope: str) -> Iterator[tuple[str, Any]]:
    name = f"{scope}.{message.name}"
    yield f"message {name}", {"map entry": message.options.map_entry}
    for field in message.field:
        yield f"field {name}:{field.number}", _of_field(field, message)
    for nested in message.nested_type:
        yield from _of_message(nested, name)
    for enum in message.enum_type:
        yield from _of_enum(enum, name)


def _of_field(field: FieldDescriptorProto, message: DescriptorProto) -> dict[str, Any]:
    return {
        "name": field.name,
        "JSON name": field.json_name,
        "type": FieldDescriptorProto.Type.Name(field.type) + field.type_name,
        "label": FieldDescriptorProto.Label.Name(field.label),
        "optional": field.proto3_optional,
        "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None,
    }


def _of_enum(enum: EnumDescriptorProto, scope: str) -> Iterator[tuple[str, Any]]:
    yield f"enum {scope}.{enum.name}", None
    for value in enum.value:
        yield f"enum value {scope}.{enum.name}.{value.name}", value.number


def _of_method(method: MethodDescriptorProto) -> dict[str, Any]:
    return {
        "request": method.input_type,
        "response": method.output_type,
        "client streaming": method.client_streaming,
        "server streaming": method.server_streaming,
    }
