"""Page tokens: the offset of the next page, a hash of the request, and the generation."""

import base64
import hashlib
import json

from whatwhere.indexer.errors import (
    InvalidPageToken,
    PageTokenExpired,
)
from whatwhere.service.rpc import image_search_pb2 as pb


def search_fingerprint(request: pb.SearchImagesRequest, content_hash: str) -> str:
    """Return a hash of the fields that determine the order of a search's results within a generation.

    `content_hash` stands for `image_content`, "" for a stored image: an upload is hashed once.
    """
    decisive = pb.SearchImagesRequest()
    decisive.CopyFrom(request)
    for name in ("image_content", "page_size", "page_token", "localize_count", "localization"):
        decisive.ClearField(name)
    return _digest(content_hash.encode() + b"\0" + decisive.SerializeToString(deterministic=True))


def list_fingerprint(request: pb.ListImagesRequest) -> str:
    """Return a hash of the fields that determine the order of a list within a generation."""
    return _digest(b"ListImages\0" + request.filter.encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def make_token(offset: int, fingerprint: str, generation: int, seal: str = "") -> str:
    """Return the token of the page that starts after `offset`.

    `seal` tells apart generations with the same number of two collections, which were at one address after each other.
    """
    return base64.urlsafe_b64encode(json.dumps([offset, fingerprint, generation, seal]).encode()).decode()


def page_offset(token: str, fingerprint: str, generation: int, seal: str = "") -> int:
    """Return the offset at which the page of `token` starts, 0 for an empty token.

    Raises InvalidPageToken if the token belongs to another request, PageTokenExpired if to another generation.
    """
    if not token:
        return 0
    try:
        offset, found, made_on, sealed = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        offset, found, made_on, sealed = None, None, None, None
    if found != fingerprint or type(offset) is not int or offset < 0 or type(made_on) is not int:
        raise InvalidPageToken(
            "page_token does not belong to this request: start at the first page", field="page_token"
        )
    if (made_on, sealed) != (generation, seal):
        other = " of another collection" if made_on == generation else ""
        raise PageTokenExpired(
            f"page_token was made on generation {made_on}{other}, generation {generation} is being served now: "
            "start at the first page",
            field="page_token",
        )
    return offset
