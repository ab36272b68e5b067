"""Open pictures in a child process: most decoders are C code that is rarely used and meets strangers' files.

A file that crashes a decoder, takes all its memory or never ends is refused as any damaged file is; it costs the child.
Children are kept for the next picture, one for each thread that decodes at a time. They end with this process.
"""

import atexit
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from PIL import Image

from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import UnreadableImage

DEADLINE_S = 120.0  # without an answer: 100 megapixels take up to 15 s
_PROGRAM = "import sys; sys.path[:] = {path!r}; from whatwhere.indexer.images.decoder_process import main; main()"

# Reentrant: a picture that is collected gives its child back, which may happen while this thread holds the lock.
_lock = threading.RLock()
_idle: list["_Child"] = []


def contained(family: str) -> Callable[[bytes], Image.Image]:
    """Return the function that opens pictures of a family in a child process."""
    return lambda content: _open(family, content)


class _Gone(Exception):
    """The child ended. Callers get UnreadableImage."""


def _open(family: str, content: bytes) -> Image.Image:
    child = _take()
    try:
        header = child.ask({"family": family, "length": len(content)}, content, family)
    except _Gone as error:
        child.end()
        if child.is_new:
            raise UnreadableImage(str(error)) from None
        return _open(family, content)  # the picture before may have damaged it, or memory ran out between them
    except BaseException:
        child.end()
        raise
    child.is_new = False
    if "error" in header:
        _give_back(child)
        raise UnreadableImage(header["error"])
    return _ContainedPicture(family, child, header)


class _ContainedPicture(Image.Image):
    """A picture whose header a child has read, and whose pixels it decodes at `load()`."""

    def __init__(self, family: str, child: "_Child", header: dict[str, Any]) -> None:
        super().__init__()
        self._family = family
        self._child: _Child | None = child
        self._draft: list[int] | None = None
        self.format, self.custom_mimetype = header["format"], header["mime_type"]
        self._mode, self._size = "RGB", tuple(header["size"])  # the mode until it is loaded
        self.sensor_size = tuple(header["sensor_size"] or header["size"])
        self.info = {key: b64decode(header[key]) for key in ("exif", "icc_profile") if header[key]}

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> None:
        """Allow a smaller decoding that is at least as large as `size`."""
        del mode
        self._draft = None if size is None else [*size]

    def load(self) -> Any:
        """Take the pixels from the child; raise UnreadableImage if they are damaged, or the decoder crashed."""
        if self._child is not None:
            child, self._child = self._child, None
            try:
                answer = child.ask({"draft": self._draft}, b"", self._family)
                pixels = b"" if "error" in answer else child.read(self._length(answer), self._family)
            except _Gone as error:
                child.end()
                raise UnreadableImage(str(error)) from None
            except BaseException:
                child.end()
                raise
            _give_back(child)
            if "error" in answer:
                raise UnreadableImage(answer["error"])
            decoded = Image.frombytes(answer["mode"], tuple(answer["size"]), pixels)
            self.im, self._mode, self._size = decoded.im, decoded.mode, decoded.size
        return super().load()

    def _length(self, answer: dict[str, Any]) -> int:
        """Return how many bytes follow: a child whose decoder was taken over may say anything."""
        length: int = answer["length"]
        if not 0 <= length <= 4 * self._size[0] * self._size[1]:
            raise UnreadableImage(f"{self._family} of {length:,} bytes, its header says {self._size} pixels")
        return length

    def __exit__(self, *arguments: object) -> None:
        """Give the child back, if the pixels were not asked for."""
        self.__del__()

    def __del__(self) -> None:
        """Do as `__exit__` does."""
        child, self._child = getattr(self, "_child", None), None
        if child is not None and child.drop():
            _give_back(child)


class _Child:
    """A child process, and what is said to it and by it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # lines of libraries without the file's name
            bufsize=0,
        )
        self.is_new = True  # it has opened no picture yet
        self._buffer = bytearray()
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def ask(self, request: dict[str, Any], content: bytes, family: str) -> dict[str, Any]:
        """Send a request and return the answer. Raises _Gone if the child ends, UnreadableImage without an answer."""
        try:
            self._write(json.dumps(request).encode() + b"\n" + content)
        except OSError:
            raise self._gone(family) from None
        while (end := self._buffer.find(b"\n")) < 0:
            self._receive(family)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def read(self, length: int, family: str) -> bytes:
        """Return bytes that follow an answer."""
        while len(self._buffer) < length:
            self._receive(family)
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return content

    def drop(self) -> bool:
        """Tell the child that the pixels are not asked for; return whether it still runs."""
        try:
            self._write(b'{"drop": true}\n')
        except OSError:
            self.end()
            return False
        return True

    def runs(self) -> bool:
        """Return whether the child has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the child."""
        self._process.kill()
        self._process.wait()
        self._close()

    def forget(self) -> None:
        """Close the pipes of a child that is another process's."""
        self._process.returncode = 0  # nothing to wait for
        self._close()

    def _close(self) -> None:
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(content)
        while view:
            view = view[self._process.stdin.write(view) or 0 :]

    def _receive(self, family: str) -> None:
        if not self._selector.select(DEADLINE_S):
            raise UnreadableImage(f"{family} whose decoder gave no answer within {DEADLINE_S:.0f} s; save it again")
        assert self._process.stdout is not None
        if not (received := os.read(self._process.stdout.fileno(), 1 << 20)):
            raise self._gone(family)
        self._buffer += received

    def _gone(self, family: str) -> _Gone:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _Gone(f"{family} that crashes its decoder ({how}); restore the file, or save it again")


def _take() -> _Child:
    with _lock:
        _register()
        while _idle:
            child = _idle.pop()
            if child.runs():
                return child
            child.end()
    try:
        return _Child()
    except OSError as error:
        raise UnreadableImage(f"no process for its decoder can be started ({error}): index again") from error


def _give_back(child: _Child) -> None:
    with _lock:
        if len(_idle) < available_cores():
            _idle.append(child)
            return
    child.end()


def _end_all() -> None:
    with _lock:
        children = [*_idle]
        _idle.clear()
    for child in children:
        child.end()


def _forget() -> None:
    """Leave the children to the process that was forked from: their pipes are its."""
    global _lock, _idle
    for child in _idle:
        child.forget()
    _lock, _idle = threading.RLock(), []


@functools.cache
def _register() -> None:
    """With the first child, not at import."""
    atexit.register(_end_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
