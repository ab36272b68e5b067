"""The page's files, as they are in the package: read once, known by their names alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

INDEX = "index.html"
# Not the system's table, which is another one on each system.
_MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "ico": "image/x-icon",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "mjs": "text/javascript",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain",
    "webp": "image/webp",
    "woff2": "font/woff2",
}


@dataclass(frozen=True)
class PageFile:
    """A file and what is said with it."""

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """Return it, or that it has not changed. It is asked after every time: one start's files go together."""
        headers = {"etag": self.etag, "cache-control": "no-cache"}
        if matches(request, self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def page_files(folder: Traversable) -> Mapping[str, PageFile]:
    """Return the files of the page by their names; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    return {entry.name: _page_file(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()}


def _page_file(name: str, content: bytes) -> PageFile:
    media_type = _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
    return PageFile(content, media_type, weak_etag(content))


def weak_etag(content: bytes) -> str:
    """Return an ETag that holds for the content however it is compressed on the way."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'


def matches(request: Request, etag: str) -> bool:
    """Tell whether the caller has this very content already."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag.removeprefix("W/") in known or known == ["*"]
