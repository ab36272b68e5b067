"""Run a real web server on a free port that misbehaves as scripted and counts its requests."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """Describe a response: `truncated` sends less than it announces, `endless` never ends, `silent` never starts."""

    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False
    endless: bool = False
    silent: bool = False


@dataclass
class Site:
    """Hold the responses of each path, sent in turn, the last repeated; `asked` counts (method, path)."""

    address: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_head: bool = False
    closing: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, *answers: Answer) -> str:
        """Set the responses of a path, and return its URI."""
        self.answers[path] = list(answers)
        return self.address + path


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Keep standard error quiet."""

        def do_HEAD(self) -> None:
            """Respond without a body, and keep the same response for the next request."""
            site.asked["HEAD", self.path] += 1
            answers = site.answers.get(self.path, [Answer(status=404)])
            self._start(Answer(status=405) if site.without_head else answers[0])

        def do_GET(self) -> None:
            """Send the next response."""
            site.asked["GET", self.path] += 1
            answers = site.answers.get(self.path, [Answer(status=404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer.silent:
                site.closing.wait(30)
                self.close_connection = True
                return
            self._start(answer)
            self.wfile.write(answer.content)
            while answer.endless and not site.closing.is_set():
                self.wfile.write(bytes(65536))
            self.close_connection = answer.truncated or answer.endless

        def _start(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.endless:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(answer.content) + 100 * answer.truncated))
            self.end_headers()

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect within a response: the tests make them do so."""


@contextmanager
def web_server() -> Iterator[Site]:
    """Serve an empty site."""
    site = Site("")
    server = _Quiet(("127.0.0.1", 0), _handler(site))
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
