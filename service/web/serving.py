"""Run the web side: its socket, its private channel to the gRPC server, TLS, start and stop."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.storage.user_folders import temporary_folder
from whatwhere.service.addresses import bind, cannot_listen, unix_path
from whatwhere.service.api.admission import ConcurrencyLimiter
from whatwhere.service.api.gateway import Gateway
from whatwhere.service.security.tls import ServerContext
from whatwhere.service.settings import ServerSettings
from whatwhere.service.web.app import create_app
from whatwhere.service.web.calls import Caller
from whatwhere.service.web.connections import Connection, Shared
from whatwhere.service.web.forwarding import TrustedProxies
from whatwhere.service.web.guard import Guard, Hosts, read_prefix

_HEAD_FACTOR = 2  # limit of heads relative to that of call metadata: browsers send more headers
_BACKLOG = 512
_HANDSHAKE_S = 10.0
_TLS_SHUTDOWN_S = 2.0
_LAST_RESPONSES_S = 0.5  # after the grace, to report the calls that the gRPC server has cancelled
_POLL_S = 0.02
_UNSENT_BYTES = 128 * 1024
_LONGEST_FOLDER = 97  # a socket path has at most 107 bytes on Linux, 103 on a Mac


class Web:
    """Serve HTTP at an address. The gRPC server also listens on `private_address`, for the calls of the web side.

    Raises InvalidRequest if the address cannot be used, CredentialsUnreadable if the TLS files are invalid.
    """

    def __init__(self, settings: ServerSettings, listen: str, gateway: Gateway, proxies: TrustedProxies) -> None:
        self._limits, self._gateway, self._prefix = settings.limits, gateway, read_prefix(settings.web_path)
        self._proxies = proxies
        self._tls = None if settings.tls is None else ServerContext(settings.tls)
        self._hosts = Hosts(listen, settings.web_hosts, lambda: () if self._tls is None else self._tls.names)
        self._listening: asyncio.Server | None = None
        self._caller: Caller | None = None
        with ExitStack() as closing:
            self._socket = closing.enter_context(_bound(listen))
            if (path := unix_path(listen)) is not None:
                closing.callback(Path(path).unlink, missing_ok=True)
            self.private_address = f"unix:{closing.enter_context(_private_folder()) / 'calls'}"
            self._threads = ThreadPoolExecutor(settings.cores, "json")
            closing.callback(self._threads.shutdown, wait=False)
            self._closing = closing.pop_all()

    @property
    def port(self) -> int:
        """Return the port; 0 of a Unix socket."""
        return 0 if self._socket.family is socket.AF_UNIX else int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Start to serve. Call it in the event loop of the gRPC server."""
        self._caller = Caller(self.private_address, self._gateway)
        app = create_app(self._caller, self._gateway, self._limits, self._threads)
        head_bytes = _HEAD_FACTOR * self._limits.max_metadata_bytes
        config = uvicorn.Config(
            self._proxies.wrap(Guard(app, self._hosts, head_bytes, self._proxies, self._prefix)),
            interface="asgi3",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # errors of callers are not logged
            access_log=False,  # the gRPC call has a log line
            proxy_headers=False,  # only those of trusted proxies: see above
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._limits.web_idle_s,  # type: ignore[arg-type] # the event loop accepts fractions
            h11_max_incomplete_event_size=head_bytes,
        )
        config.load()
        self._state = ServerState()
        limiter = ConcurrencyLimiter(self._limits.max_web_connections, self._limits.max_web_connections_per_client)
        self._listening = await asyncio.get_running_loop().create_server(
            partial(Connection, config, self._state, Shared(limiter, self._limits.receive_s, self._proxies)),
            sock=self._socket,
            ssl=None if self._tls is None else self._tls.context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_S,
            ssl_shutdown_timeout=None if self._tls is None else _TLS_SHUTDOWN_S,
        )

    def refuse(self) -> None:
        """Refuse new connections, and new requests on existing connections."""
        if self._listening is not None:
            self._listening.close()
            for connection in list(self._state.connections):
                connection.shutdown()

    async def stop(self, grace: float | None) -> None:
        """Wait up to `grace` seconds for the requests in flight, then close all connections."""
        if self._caller is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (grace or 0) + _LAST_RESPONSES_S
        while (self._state.connections or self._state.tasks) and loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
        while self._state.tasks:
            await asyncio.sleep(_POLL_S)  # the tasks notice the closed connections
        await self._caller.close()

    def close(self) -> None:
        """Release the socket, the temporary folder and the threads."""
        self._closing.close()


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Yield a temporary folder that only this user can enter; its path leaves room for a socket's name."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="whatwhere-", dir=temporary_folder(small=True)))
    except OSError as error:
        raise InvalidRequest(
            f"cannot create a temporary folder ({error.strerror}): set TMPDIR to a writable folder"
        ) from error
    try:
        if len(str(folder)) > _LONGEST_FOLDER:
            raise InvalidRequest(f"{folder}: the path is too long for a socket: set TMPDIR to a shorter one")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bound(listen: str) -> socket.socket:
    try:
        listening = bind(listen, _BACKLOG)
    except OSError as error:
        raise cannot_listen(listen, "web_listen", error) from error
    if listening.family is socket.AF_UNIX:
        return listening
    # Connections inherit these. Without TCP_NODELAY, the body of a response waits 40 ms for the head's acknowledgment
    # (measured). TCP_NOTSENT_LOWAT keeps unread data in this process, where the timeout for slow readers sees it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return listening
