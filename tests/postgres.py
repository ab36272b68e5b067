"""Run Debian's PostgreSQL in a temporary folder for the tests, with catalogs in it."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.ports import free_port
from whatwhere.indexer.catalog.catalog import Catalog

TEMPLATE = "migrated"  # a database with the catalogue's tables in it: copied in a thirtieth of a second
# The order of text is that of a language, not of code points, and times are far from UTC: neither may show anywhere.
_INITDB = "-U postgres --auth=trust -E UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US --no-sync"
_POSTGRES = "-c fsync=off -c timezone=Asia/Kathmandu -c autovacuum=off -c max_connections=50"
_POSTGRES += " -c dynamic_shared_memory_type=mmap"  # in its folder, where a killed server leaves nothing behind
_PATIENCE_S = 60


class PostgresServer:
    """Run a server on 127.0.0.1 and a free port; only the role `locked` needs a password, s3cret."""

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not binaries:
            message = "PostgreSQL is not installed: `make postgresql` does that"
            (pytest.fail if os.environ.get("WHATWHERE_TESTS") == "all" else pytest.skip)(message)
        self._binaries = binaries[-1]
        self._folder = Path(tempfile.mkdtemp(prefix="whatwhere-postgresql-"))
        # The server refuses to run as root.
        self._as: list[str | Path] = []
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        initdb = [*self._as, f"{self._binaries}/initdb", "-D", self._folder / "data", *_INITDB.split()]
        subprocess.run(initdb, check=True, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        hba = self._folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        self.start()
        self.run("CREATE ROLE locked LOGIN PASSWORD 's3cret'")
        self.run(f"CREATE DATABASE {TEMPLATE}")
        Catalog.create(self.url(TEMPLATE)).close()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [*self._as, f"{self._binaries}/postgres", "-D", self._folder / "data", *_POSTGRES.split()]
        command += ["-p", str(self.port), "-k", self._folder, "-h", "127.0.0.1"]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline_s or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, also with open connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE_S)

    def close(self) -> None:
        """Stop the server and delete its files."""
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, name: str, user: str = "postgres", query: str = "") -> str:
        """Return the address of a database."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{name}{query}"

    def database(self, template: str = TEMPLATE) -> str:
        """Create a database with an empty catalog and return its name; template1 has no catalog."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, also with open connections."""
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def connect(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """Connect to the catalog's schema directly, without transactions."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            dbname=name,
            autocommit=True,
            options="-c search_path=whatwhere",
        )

    def run(self, statement: str, name: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement directly."""
        with closing(self.connect(name)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []
