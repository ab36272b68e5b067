"""Serve scripted answers from a small real gRPC server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from whatwhere.service.rpc import admin_pb2, admin_pb2_grpc
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc

Answer = Callable[[grpc.ServicerContext], None]


class ScriptedServer(rpc.ImageSearchServiceServicer, admin_pb2_grpc.AdminServiceServicer):
    """Answer each call with the next of `answers`, repeating the last, and record the metadata of the calls."""

    def __init__(self, *answers: Answer, generation: int = 4) -> None:
        self.answers = list(answers)
        self.generation = generation
        self.calls: list[dict[str, Any]] = []
        self._health = health.HealthServicer()
        self.says(serving=True)
        self._health.set("tired", health_pb2.HealthCheckResponse.NOT_SERVING)

    def says(self, *, serving: bool) -> None:
        """Set the status that the health service reports."""
        kind = health_pb2.HealthCheckResponse
        self._health.set("", kind.SERVING if serving else kind.NOT_SERVING)

    def add_to(self, server: grpc.Server) -> None:
        rpc.add_ImageSearchServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    def GetCollection(self, request: Any, context: grpc.ServicerContext) -> pb.GetCollectionResponse:  # noqa: N802 - the contract's name
        self._answer(context)
        return pb.GetCollectionResponse(collection=pb.Collection(generation=3))

    def SearchImages(self, request: Any, context: grpc.ServicerContext) -> pb.SearchImagesResponse:  # noqa: N802 - the contract's name
        self._answer(context)
        return pb.SearchImagesResponse(kept_factor_count=5)

    def RefreshCollection(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.RefreshCollectionResponse:  # noqa: N802 - the contract's name
        self._answer(context)
        return admin_pb2.RefreshCollectionResponse(collection=pb.Collection(generation=self.generation))

    def _answer(self, context: grpc.ServicerContext) -> None:
        self.calls.append(dict(context.invocation_metadata()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer(context)


def well(context: grpc.ServicerContext) -> None:
    """Let the call succeed."""


def refusing(code: grpc.StatusCode, text: str = "no") -> Answer:
    return lambda context: context.abort(code, text)


@contextmanager
def serving(
    scripted: ScriptedServer,
    *options: tuple[str, int],
    credentials: grpc.ServerCredentials | None = None,
    listen: str = "127.0.0.1:0",
) -> Iterator[str]:
    """Run the server and yield its address."""
    server = grpc.server(ThreadPoolExecutor(4), options=options)
    scripted.add_to(server)
    port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    server.start()
    yield f"{listen.rpartition(':')[0]}:{port}"
    server.stop(None).wait()
