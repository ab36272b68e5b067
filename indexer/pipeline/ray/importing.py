"""Import Ray, after setting the environment variables that it reads at import."""

import importlib
import os
import secrets
import sys
from types import ModuleType

from whatwhere.indexer.errors import ClusterUnavailable
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings


def import_running(cluster: ClusterSettings) -> ModuleType:
    """Return the module `running`, which needs Ray. Raises ClusterUnavailable if Ray is not installed."""
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # disable telemetry
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # avoids a warning
        if cluster.address is None:  # Ray listens on all addresses and runs code of every client: require a token
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        return importlib.import_module("whatwhere.indexer.pipeline.ray.running")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("ray", "pyarrow"):
            raise
        raise ClusterUnavailable(f"Ray is not installed ({error}): pip install 'whatwhere[ray]'") from error
