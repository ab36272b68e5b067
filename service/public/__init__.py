"""Content-based image search that answers what matched and where: the public face.

    from whatwhere import Box, Client, SearchOptions

    with Client("127.0.0.1:50051") as client:
        result = client.search(Path("bike.jpg"), SearchOptions(region=Box(0.1, 0.2, 0.9, 0.9), localize_count=5))

Only the names in `__all__` are public. All else in `whatwhere.indexer` and `whatwhere.service` is private: it may
change in any release. Names are imported when they are first used: `Client` needs neither torch nor faiss.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whatwhere.indexer import errors
    from whatwhere.indexer.boxes import Box
    from whatwhere.indexer.collection.reader import CollectionReader, open_collection
    from whatwhere.indexer.errors import WhatwhereError
    from whatwhere.indexer.pipeline.run import index_paths
    from whatwhere.indexer.pipeline.settings import IndexSettings, RunSummary
    from whatwhere.service.client.client import Client
    from whatwhere.service.results import (
        CollectionInfo,
        ComparedImage,
        Explanation,
        Factor,
        Hit,
        PictureFile,
        SearchResult,
        SimilarFactor,
        StoredImage,
    )
    from whatwhere.service.search_options import SearchOptions
    from whatwhere.service.security.tls import channel_credentials

__all__ = [
    "Box",
    "Client",
    "CollectionInfo",
    "CollectionReader",
    "ComparedImage",
    "Explanation",
    "Factor",
    "Hit",
    "IndexSettings",
    "PictureFile",
    "RunSummary",
    "SearchOptions",
    "SearchResult",
    "SimilarFactor",
    "StoredImage",
    "WhatwhereError",
    "channel_credentials",
    "errors",
    "index_paths",
    "open_collection",
]

_RESULTS = "whatwhere.service.results"
_HOMES = {
    "Box": "whatwhere.indexer.boxes",
    "Client": "whatwhere.service.client.client",
    "CollectionInfo": _RESULTS,
    "CollectionReader": "whatwhere.indexer.collection.reader",
    "ComparedImage": _RESULTS,
    "Explanation": _RESULTS,
    "Factor": _RESULTS,
    "Hit": _RESULTS,
    "IndexSettings": "whatwhere.indexer.pipeline.settings",
    "PictureFile": _RESULTS,
    "RunSummary": "whatwhere.indexer.pipeline.settings",
    "SearchOptions": "whatwhere.service.search_options",
    "SearchResult": _RESULTS,
    "SimilarFactor": _RESULTS,
    "StoredImage": _RESULTS,
    "WhatwhereError": "whatwhere.indexer.errors",
    "channel_credentials": "whatwhere.service.security.tls",
    "index_paths": "whatwhere.indexer.pipeline.run",
    "open_collection": "whatwhere.indexer.collection.reader",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that `import whatwhere` costs nothing (PEP 562)."""
    if name == "errors":
        return importlib.import_module("whatwhere.indexer.errors")
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'whatwhere' has no attribute {name!r}: see whatwhere.__all__") from None
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
