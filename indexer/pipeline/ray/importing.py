"""Import Ray, with what it reads from the environment when it is imported."""

import importlib
import os
import secrets
import sys
from types import ModuleType

from whatwhere.indexer.errors import ClusterUnavailable
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings


def import_running(cluster: ClusterSettings) -> ModuleType:
    """Return the module `running`, the one that needs Ray; ClusterUnavailable where Ray is not installed."""
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # they would be sent to its makers
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
        if cluster.address is None:  # whoever reaches a Ray runs code in it, and it listens on all addresses
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        return importlib.import_module("whatwhere.indexer.pipeline.ray.running")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("ray", "pyarrow"):
            raise
        raise ClusterUnavailable(f"Ray is not installed ({error}): pip install 'whatwhere[ray]'") from error
