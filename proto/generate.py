"""Generate from the proto files: `python proto/generate.py code FOLDER`, or `descriptors FILE`.

The proto files have the paths that other projects import, whatwhere/v1/*.proto. The generated Python code imports by
the same path, but it is part of the package whatwhere.service.rpc, so its imports are rewritten.
"""

import argparse
import re
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def write_code(folder: Path) -> None:
    """Write the Python modules of messages, their type stubs and the services to a folder."""
    with tempfile.TemporaryDirectory() as made:
        _run(*(f"--{kind}_out={made}" for kind in ("python", "pyi", "grpc_python")))
        for path in (Path(made) / "whatwhere/v1").iterdir():
            code = re.sub(
                "^from whatwhere.v1 import ", "from whatwhere.service.rpc import ", path.read_text(), flags=re.MULTILINE
            )
            (folder / path.name).write_text(code)


def write_descriptors(path: Path) -> None:
    """Write a google.protobuf.FileDescriptorSet of the proto files, without comments and imported files."""
    _run(f"--descriptor_set_out={path}")


def _run(*outputs: str) -> None:
    contract = sorted(map(str, ROOT.rglob("*.proto")))
    google = files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{ROOT}", f"-I{google}", *outputs, *contract]) != 0:
        raise SystemExit(1)  # protoc has printed the error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["code", "descriptors"])
    parser.add_argument("where", type=Path)
    wanted = parser.parse_args()
    {"code": write_code, "descriptors": write_descriptors}[wanted.what](wanted.where)
