"""Convert between JSON and protobuf messages: one table of HTTP paths, the rest from the descriptor."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format, message_factory

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.client.metadata import with_integers
from whatwhere.service.rpc import image_search_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["ImageSearchService"]
_MAX_VALUES = 20_000  # requests need hundreds; while parsed, each takes up to a thousand times its bytes
_MAX_MESSAGE_LENGTH = 400
_OBJECT = re.compile(rb"\s*\{")
_FIELD = re.compile(r"Failed to parse (\w+) field")
_CAPITAL = re.compile(r"([A-Z])")
_UNKNOWN = re.compile(r'has no field named "([^"]*)"')


@dataclass(frozen=True)
class HttpMethod:
    """Map an HTTP path to a method. {id} in the path is the image id; other fields of a GET are query parameters."""

    verb: str
    path: str
    name: str

    @property
    def full_name(self) -> str:
        """Return the gRPC path of the method."""
        return f"/{_SERVICE.full_name}/{self.name}"


METHODS: Sequence[HttpMethod] = (
    HttpMethod("POST", "/v1/images:search", "SearchImages"),
    HttpMethod("POST", "/v1/images:explain", "ExplainImage"),
    HttpMethod("POST", "/v1/images:compare", "CompareImages"),
    HttpMethod("POST", "/v1/images:sample", "SampleImages"),
    HttpMethod("GET", "/v1/images", "ListImages"),
    HttpMethod("GET", "/v1/images/{id}", "GetImage"),
    HttpMethod("GET", "/v1/images/{id}/content", "GetImageContent"),
    HttpMethod("GET", "/v1/collection", "GetCollection"),
)


def from_json(method: HttpMethod, body: bytearray) -> bytes:
    """Parse a JSON object to a message. Raises InvalidRequest with the invalid field."""
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > _MAX_VALUES:
        raise InvalidRequest(f"the JSON has more than {_MAX_VALUES:,} values: send fewer")
    if not _OBJECT.match(body):
        raise InvalidRequest("the request is not a JSON object: send {...} with the fields of this method")
    return _parsed(method, lambda message: json_format.Parse(body, message))  # type: ignore[arg-type] # it decodes


def from_parameters(method: HttpMethod, image_id: str | None, parameters: Sequence[tuple[str, str]]) -> bytes:
    """Return the message of a GET. Raises InvalidRequest if a parameter is unknown or repeated."""
    names = [name for name, _ in parameters]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"the parameter {name[:_MAX_MESSAGE_LENGTH]} is repeated: send it once")
    fields = dict(parameters)
    if image_id is not None:
        if "name" in fields:
            raise InvalidRequest("the path names the image: omit the parameter name", field="name")
        fields["name"] = f"images/{image_id}"
    return _parsed(method, lambda message: json_format.ParseDict(fields, message))


def to_json(method: HttpMethod, response: bytes) -> bytes:
    """Return the JSON of a response."""
    message = message_factory.GetMessageClass(_SERVICE.methods_by_name[method.name].output_type)()
    message.ParseFromString(response)
    answer = _with_integers(json_format.MessageToDict(message))
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _with_integers(value: Any) -> Any:
    """Return an answer in which the metadata of images has integers: 1987, not 1987.0."""
    if isinstance(value, list):
        return [_with_integers(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        name: with_integers(inner) if name == "metadata" else _with_integers(inner) for name, inner in value.items()
    }


def to_picture(response: bytes) -> tuple[bytes, str]:
    """Return the bytes and the media type of an image."""
    picture = pb.GetImageContentResponse.FromString(response)
    return picture.content, picture.mime_type


def _parsed(method: HttpMethod, parse: Any) -> bytes:
    message = message_factory.GetMessageClass(_SERVICE.methods_by_name[method.name].input_type)()
    try:
        parse(message)
    except (json_format.ParseError, ValueError) as error:
        raise _invalid(str(error)) from None  # its traceback would keep the body in memory
    return message.SerializeToString()


def _invalid(message: str) -> InvalidRequest:
    fields = [_CAPITAL.sub(r"_\1", field).lower() for field in _FIELD.findall(message)]  # snake_case as in other errors
    path = [*fields, *_UNKNOWN.findall(message)]
    first_line = message.partition("\n")[0][:_MAX_MESSAGE_LENGTH]
    return InvalidRequest(f"the JSON does not match this method: {first_line}", field=".".join(path) or None)
