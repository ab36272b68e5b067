"""JSON files with a seal: each contains the SHA-256 of its other values, so that every change is detected."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch
from whatwhere.indexer.storage.files import write_text

# 1: no seals, no preset, one vector file per generation and descriptor; 2: no identity
FORMAT_VERSION = 3
_SEAL = "sha256"
_REMEDY = "run `whatwhere verify --repair`, or restore it from a backup"


def write_sealed(path: Path, values: Mapping[str, Any]) -> str:
    """Write values as JSON, atomically, and return the seal."""
    sealed = {**values, "format_version": FORMAT_VERSION}
    seal = seal_of(sealed)
    write_text(path, json.dumps(sealed | {_SEAL: seal}, indent=2) + "\n")
    return seal


def seal_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of values, independent of key order and whitespace."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_sealed(path: Path) -> tuple[dict[str, Any], str]:
    """Return the values and the seal, which is empty in format 1.

    Raises FileNotFoundError, CollectionCorrupt if the seal does not match, CollectionMismatch if the format is newer.
    """
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:  # also for invalid UTF-8
        raise CollectionCorrupt(f"{path} is not valid JSON: {_REMEDY}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int:
        raise CollectionCorrupt(f"{path} has no format_version: {_REMEDY}")
    if version > FORMAT_VERSION:
        raise CollectionMismatch(
            f"{path} has format {version}, this whatwhere reads {FORMAT_VERSION}: upgrade whatwhere"
        )
    seal = values.pop(_SEAL, "")
    if seal != ("" if version == 1 else seal_of(values)):
        raise CollectionCorrupt(f"{path} does not match its checksum: {_REMEDY}")
    return values, seal
