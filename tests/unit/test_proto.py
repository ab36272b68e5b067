"""The generated code is that of the proto, every element of it is explained, and nothing released breaks."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from tests.contract import breaks

ROOT = Path(__file__).resolve().parent.parent.parent
CONTRACT = sorted((ROOT / "proto").rglob("*.proto"))


def generate(what: str, where: Path) -> None:
    subprocess.run([sys.executable, "proto/generate.py", what, where], check=True, cwd=ROOT)


def test_the_checked_in_code_is_what_the_proto_generates(tmp_path: Path) -> None:
    """`make proto` would change nothing, and leaves nothing of a proto that is gone."""
    generate("code", tmp_path)

    made, kept = (
        {path.name: path.read_text() for path in folder.glob("*_pb2*.py*")}
        for folder in (tmp_path, ROOT / "service/rpc")
    )
    assert len(made) == 3 * len(CONTRACT)
    assert made == kept, "make proto"


@pytest.mark.parametrize("path", CONTRACT, ids=lambda path: path.name)
def test_every_element_has_a_comment(path: Path) -> None:
    """Messages, fields, methods and enum values are explained where they stand."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    starts = ("service ", "rpc ", "message ", "enum ", "oneof ")

    for before, line in itertools.pairwise(lines):
        field = line.endswith(";") and " = " in line and not line.startswith("syntax")
        if field or line.startswith(starts):
            assert before.startswith("//"), line


def test_nothing_that_was_released_breaks(tmp_path: Path) -> None:
    """Callers of the released contract can go on; what is new is none of their business."""
    generate("descriptors", tmp_path / "now.binpb")

    released, now = (
        FileDescriptorSet.FromString(path.read_bytes())
        for path in (ROOT / "proto/released.binpb", tmp_path / "now.binpb")
    )

    assert released.file
    assert breaks(released, now) == []


# --- the comparison itself, on a contract of one message, one enum and one service ----------------------------------


def small_contract() -> FileDescriptorSet:
    """Return a contract that has one of each."""
    file = FileDescriptorProto(name="a.proto", package="a")
    message = file.message_type.add(name="Message")
    message.oneof_decl.add(name="query")
    message.oneof_decl.add(name="_score")
    text, number = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT32
    single, many = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    message.field.add(name="text", json_name="text", number=1, type=text, label=single)
    message.field.add(name="choice", json_name="choice", number=2, type=text, label=single, oneof_index=0)
    message.field.add(
        name="score", json_name="score", number=3, type=number, label=single, oneof_index=1, proto3_optional=True
    )
    message.field.add(name="many", json_name="many", number=4, type=number, label=many)
    enum = FieldDescriptorProto.TYPE_ENUM
    message.field.add(name="kind", json_name="kind", number=5, type=enum, type_name=".a.Kind", label=single)
    message.nested_type.add(name="Nested").field.add(name="x", json_name="x", number=1, type=text, label=single)
    message.enum_type.add(name="Inner").value.add(name="INNER_UNSPECIFIED", number=0)
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="KIND_UNSPECIFIED", number=0)
    kind.value.add(name="KIND_ONE", number=1)
    service = file.service.add(name="Service")
    service.method.add(name="Ask", input_type=".a.Message", output_type=".a.Message")
    return FileDescriptorSet(file=[file])


def of_field(
    change: Callable[[FieldDescriptorProto], object], number: int = 1
) -> Callable[[FileDescriptorProto], object]:
    """Return a change of a field of the message."""
    return lambda file: change(file.message_type[0].field[number - 1])


BREAKING: dict[str, Callable[[FileDescriptorProto], object]] = {
    "package renamed": lambda file: setattr(file, "package", "b"),
    "message removed": lambda file: file.message_type.pop(0),
    "message renamed": lambda file: setattr(file.message_type[0], "name", "Other"),
    "nested message removed": lambda file: file.message_type[0].nested_type.pop(0),
    "field of a nested message removed": lambda file: file.message_type[0].nested_type[0].field.pop(0),
    "map no more": lambda file: setattr(file.message_type[0].nested_type[0].options, "map_entry", True),
    "field removed": lambda file: file.message_type[0].field.pop(0),
    "field renumbered": of_field(lambda field: setattr(field, "number", 9)),
    "field renamed": of_field(lambda field: setattr(field, "name", "words")),
    "field renamed in JSON": of_field(lambda field: setattr(field, "json_name", "words")),
    "field retyped": of_field(lambda field: setattr(field, "type", FieldDescriptorProto.TYPE_BYTES)),
    "field of another enum": of_field(lambda field: setattr(field, "type_name", ".a.Other"), 5),
    "field repeated": of_field(lambda field: setattr(field, "label", FieldDescriptorProto.LABEL_REPEATED)),
    "field single": of_field(lambda field: setattr(field, "label", FieldDescriptorProto.LABEL_OPTIONAL), 4),
    "field moved into a oneof": of_field(lambda field: setattr(field, "oneof_index", 0)),
    "field moved out of a oneof": of_field(lambda field: field.ClearField("oneof_index"), 2),
    "oneof renamed": lambda file: setattr(file.message_type[0].oneof_decl[0], "name", "other"),
    "field without presence": of_field(lambda field: field.ClearField("proto3_optional"), 3),
    "enum removed": lambda file: file.enum_type.pop(0),
    "nested enum removed": lambda file: file.message_type[0].enum_type.pop(0),
    "enum value removed": lambda file: file.enum_type[0].value.pop(1),
    "enum value renamed": lambda file: setattr(file.enum_type[0].value[1], "name", "KIND_TWO"),
    "enum value renumbered": lambda file: setattr(file.enum_type[0].value[1], "number", 2),
    "service removed": lambda file: file.service.pop(0),
    "method removed": lambda file: file.service[0].method.pop(0),
    "another request": lambda file: setattr(file.service[0].method[0], "input_type", ".a.Other"),
    "another response": lambda file: setattr(file.service[0].method[0], "output_type", ".a.Other"),
    "requests streamed": lambda file: setattr(file.service[0].method[0], "client_streaming", True),
    "responses streamed": lambda file: setattr(file.service[0].method[0], "server_streaming", True),
}


@pytest.mark.parametrize("change", BREAKING.values(), ids=BREAKING)
def test_a_break_is_found(change: Callable[[FileDescriptorProto], object]) -> None:
    """Every kind of change that a caller could notice is named, with the element."""
    changed = small_contract()
    change(changed.file[0])

    found = breaks(small_contract(), changed)

    assert found
    assert all(" a." in sentence for sentence in found)


def test_what_is_new_breaks_nothing() -> None:
    """Fields, messages, enum values, methods and services are added; elements move between files and change places."""
    released, now = small_contract(), small_contract()
    file = now.file[0]
    file.message_type[0].field.add(name="new", number=9, type=FieldDescriptorProto.TYPE_BOOL)
    file.message_type[0].field.insert(0, file.message_type[0].field.pop(1))
    file.enum_type[0].value.add(name="KIND_TWO", number=2)
    file.service[0].method.add(name="New", input_type=".a.Message", output_type=".a.Message")
    other = now.file.add(name="b.proto", package="a")
    other.message_type.add(name="New")
    other.service.append(file.service.pop(0))

    found = breaks(released, now)

    assert found == []


def test_the_same_contract_breaks_nothing() -> None:
    """Comparing alike with alike finds nothing."""
    assert breaks(small_contract(), small_contract()) == []
