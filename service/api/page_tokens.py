"""Page tokens: the offset of the next page, a hash of the request, the generation, and the end of a search's page."""

import base64
import hashlib
import json
import math

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


def make_token(
    offset: int, fingerprint: str, generation: int, seal: str = "", last: tuple[float, int] | None = None
) -> str:
    """Return the token of the page that starts after `offset`, and after the score and the image id `last`.

    `seal` tells apart generations with the same number of two collections, which were at one address after each other.
    """
    parts = [offset, fingerprint, generation, seal, *(() if last is None else last)]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def page_offset(token: str, fingerprint: str, generation: int, seal: str = "") -> int:
    """Return the offset at which the page of `token` starts, 0 for an empty token. Raises as `page_position`."""
    return page_position(token, fingerprint, generation, seal)[0] if token else 0


def page_position(
    token: str, fingerprint: str, generation: int, seal: str = ""
) -> tuple[int, tuple[float, int] | None]:
    """Return the offset at which the page of `token` starts, and the score and id before it; None if it has none.

    Raises InvalidPageToken if the token belongs to another request, PageTokenExpired if to another generation.
    """
    try:
        offset, found, made_on, *rest = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        offset, found, made_on, rest = None, None, None, []
    sealed, *last = rest or [""]  # tokens of 0.2.0 have no more
    numbers = type(offset) is int and offset >= 0 and type(made_on) is int
    if found != fingerprint or not numbers or not (last == [] or _is_score_and_id(last)):
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
    return offset, (last[0], last[1]) if last else None


def _is_score_and_id(last: list[object]) -> bool:
    """Tell whether a token's last values are a score and the id of an image."""
    if len(last) != 2:
        return False
    score, image_id = last
    return isinstance(score, float) and math.isfinite(score) and type(image_id) is int and 0 < image_id < 2**63
