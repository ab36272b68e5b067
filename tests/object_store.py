"""Run a real S3 server on a free port for tests and measurements."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import boto3
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """Start the server with empty buckets, set the AWS_* variables, and yield its endpoint."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with mock.patch.dict(os.environ, _CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}):
        S3FileSystem.clear_instance_cache()  # those there are know the server of another module
        client = boto3.client("s3")
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        client.close()
        try:
            yield endpoint
        finally:
            server.stop()
