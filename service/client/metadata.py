"""Write the metadata of images to messages, and read it, without rounding integers.

A number of google.protobuf.Struct is a float64: it rounds integers beyond 2^53, and 1987 and 1987.0 are the same.
"""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from whatwhere.indexer.metadata.values import LARGEST_EXACT
from whatwhere.service.rpc import image_search_pb2 as pb


def write_metadata(message: pb.Image, metadata: Mapping[str, Any]) -> None:
    """Set `metadata`, with integers beyond 2^53 as text, and `metadata_json` if `metadata` does not say the same."""
    message.metadata.update({name: _for_struct(value) for name, value in metadata.items()})
    if _differs(metadata):
        message.metadata_json = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))


def read_metadata(message: pb.Image) -> dict[str, Any]:
    """Return the metadata with its integers, the inverse of `write_metadata`.

    Servers of 0.2.0 send no `metadata_json`: their numbers without a fraction become integers.
    """
    if message.metadata_json:
        return dict(json.loads(message.metadata_json))
    return {name: with_integers(value) for name, value in MessageToDict(message.metadata).items()}


def with_integers(value: Any) -> Any:
    """Return a JSON value whose floats without a fraction, up to 2^53, are integers: 1987.0 becomes 1987."""
    if isinstance(value, dict):
        return {name: with_integers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_integers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT else value


def _for_struct(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _for_struct(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_for_struct(inner) for inner in value]
    return str(value) if isinstance(value, int) and abs(value) > LARGEST_EXACT else value


def _differs(value: Any) -> bool:
    """Tell whether a value has an integer beyond 2^53 or a float without a fraction."""
    if isinstance(value, Mapping):
        return any(map(_differs, value.values()))
    if isinstance(value, list):
        return any(map(_differs, value))
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and abs(value) > LARGEST_EXACT
