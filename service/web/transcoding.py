"""Between JSON and the messages of the service: one table from paths to methods, the rest from the descriptor."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format, message_factory

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.rpc import image_search_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["ImageSearchService"]
_MOST_VALUES = 20_000  # a request needs some hundred; each costs up to a thousand times its bytes while it is read
_LONGEST_COMPLAINT = 400
_OBJECT = re.compile(rb"\s*\{")
_FIELD = re.compile(r"Failed to parse (\w+) field")
_CAPITAL = re.compile(r"([A-Z])")
_UNKNOWN = re.compile(r'has no field named "([^"]*)"')


@dataclass(frozen=True)
class HttpMethod:
    """A method of the service under its path. {id} in it is the image's; other fields of a GET are parameters."""

    verb: str
    path: str
    name: str

    @property
    def full_name(self) -> str:
        """As gRPC calls it."""
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
    """Return the message that a JSON object stands for; raises InvalidRequest, naming the field at fault."""
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > _MOST_VALUES:
        raise InvalidRequest(f"the JSON has more than {_MOST_VALUES:,} values: send fewer")
    if not _OBJECT.match(body):
        raise InvalidRequest("the request is no JSON object: send {...} with the fields of this method")
    return _parsed(method, lambda message: json_format.Parse(body, message))  # type: ignore[arg-type] # it decodes


def from_parameters(method: HttpMethod, image_id: str | None, parameters: Sequence[tuple[str, str]]) -> bytes:
    """Return the message of a GET; raises InvalidRequest for a parameter that is no field, or is there twice."""
    names = [name for name, _ in parameters]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"the parameter {name[:_LONGEST_COMPLAINT]} is there twice: send it once")
    fields = dict(parameters)
    if image_id is not None:
        if "name" in fields:
            raise InvalidRequest("the image is named by the path: leave the parameter name out", field="name")
        fields["name"] = f"images/{image_id}"
    return _parsed(method, lambda message: json_format.ParseDict(fields, message))


def to_json(method: HttpMethod, response: bytes) -> bytes:
    """Return the JSON of a response."""
    message = message_factory.GetMessageClass(_SERVICE.methods_by_name[method.name].output_type)()
    message.ParseFromString(response)
    return json.dumps(json_format.MessageToDict(message), ensure_ascii=False, separators=(",", ":")).encode()


def to_picture(response: bytes) -> tuple[bytes, str]:
    """Return the bytes and the media type of a picture."""
    picture = pb.GetImageContentResponse.FromString(response)
    return picture.content, picture.mime_type


def _parsed(method: HttpMethod, parse: Any) -> bytes:
    message = message_factory.GetMessageClass(_SERVICE.methods_by_name[method.name].input_type)()
    try:
        parse(message)
    except (json_format.ParseError, ValueError) as error:
        raise _complaint(str(error)) from None  # its frames hold the body
    return message.SerializeToString()


def _complaint(said: str) -> InvalidRequest:
    fields = [_CAPITAL.sub(r"_\1", field).lower() for field in _FIELD.findall(said)]  # as other errors name them
    path = [*fields, *_UNKNOWN.findall(said)]
    first_line = said.partition("\n")[0][:_LONGEST_COMPLAINT]
    return InvalidRequest(f"the request is not the JSON of this method: {first_line}", field=".".join(path) or None)
