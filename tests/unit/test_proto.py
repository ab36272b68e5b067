"""The generated code is that of the proto, and every element of the proto is explained."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GENERATED = ("image_search_pb2.py", "image_search_pb2.pyi", "image_search_pb2_grpc.py")


def test_the_checked_in_code_is_what_the_proto_generates(tmp_path: Path) -> None:
    """`make proto` would change nothing."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    mapped = f"-Iservice/rpc={ROOT / 'proto/whatwhere/v1'}"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", mapped, *outputs, "service/rpc/image_search.proto"]

    subprocess.run(protoc, check=True, cwd=ROOT)

    for name in GENERATED:
        assert (tmp_path / "service/rpc" / name).read_text() == (ROOT / "service/rpc" / name).read_text(), "make proto"


@pytest.mark.parametrize("path", sorted((ROOT / "proto").rglob("*.proto")), ids=lambda path: path.name)
def test_every_element_has_a_comment(path: Path) -> None:
    """Messages, fields, methods and enum values are explained where they stand."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    starts = ("service ", "rpc ", "message ", "enum ", "oneof ")

    for before, line in itertools.pairwise(lines):
        field = line.endswith(";") and " = " in line and not line.startswith("syntax")
        if field or line.startswith(starts):
            assert before.startswith("//"), line
