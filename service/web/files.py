"""Serve the page's files from the package: read once, found by name only."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

INDEX = "index.html"
# Not the system's table, which differs between systems.
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
    """Hold a file's content and response headers."""

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """Return the file, or 304 if unchanged. Browsers revalidate each time, so all files are of one version."""
        headers = {"etag": self.etag, "cache-control": "no-cache"}
        if matches(request, self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def page_files(folder: Traversable) -> Mapping[str, PageFile]:
    """Return the files of the page by name; empty if the folder does not exist."""
    if not folder.is_dir():
        return {}
    return {entry.name: _page_file(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()}


def _page_file(name: str, content: bytes) -> PageFile:
    media_type = _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
    return PageFile(content, media_type, weak_etag(content))


def weak_etag(content: bytes) -> str:
    """Return an ETag that is valid for the content in any compression."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'


def matches(request: Request, etag: str) -> bool:
    """Return whether the caller already has this content."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag.removeprefix("W/") in known or known == ["*"]
