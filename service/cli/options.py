"""The options that sub-commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.indexer.features.names import MAX_RANK
from whatwhere.service.cli.app import messages


class Device(StrEnum):
    """Devices that the network runs on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class DescriptorName(StrEnum):
    """Descriptors that images are compared by."""

    WHAT = "what"
    WHAT_AND_WHERE = "what-and-where"
    FUSED = "fused"
    MAC = "mac"
    R_MAC = "r-mac"
    CROW = "crow"
    GEM = "gem"


class Precision(StrEnum):
    """Number formats that the network computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Preset(StrEnum):
    """Ways to compute descriptors from factors."""

    DEFAULT = "default"
    THESIS = "thesis"


# What `images --json` of 0.2.0 called the fields of filters.
_OLDER_NAMES = {"width": "width_px", "height": "height_px", "content_hash": "sha256", "created_at": "create_time"}
COLLECTION_VARIABLE = "WHATWHERE_COLLECTION"


def absolute_filter(filter: str | None) -> str | None:
    """Make the relative paths in a filter absolute: only this process knows the directory that they begin in.

    Prints a note if the filter has a name that `images --json` of 0.2.0 gave a field of the image.
    """
    if not filter:
        return filter
    from whatwhere.indexer.metadata.filter_text import fields_of, with_absolute_uris

    for name in sorted(fields_of(filter) & _OLDER_NAMES.keys()):
        messages.print(
            f"note: {name} in a filter is a name of your metadata; that of the image is {_OLDER_NAMES[name]}",
            style="yellow",
            soft_wrap=True,
        )
    return with_absolute_uris(filter)


Collection = Annotated[
    str,
    typer.Option(
        "--collection",
        "-c",
        metavar="DIR|URI",
        help="Directory of the collection, or its folder in an object store (s3://BUCKET/NAME).",
        envvar=COLLECTION_VARIABLE,
    ),
]
Catalog = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="For a new collection: the catalog's PostgreSQL, postgresql+psycopg://USER@HOST/DATABASE?schema=NAME.",
    ),
]
Vectors = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="For a new collection: the vectors' Milvus server, milvus+http://HOST:19530?index=HNSW."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace files that exist. A file that is read, or an indexed image, is never replaced."
    ),
]
Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="Image files; folders, searched recursively; lists of images; or URIs of any of these: "
        "s3://BUCKET/FOLDER/, gs://..., https://HOST/photo.jpg. The list format is chosen by the file extension: .txt "
        "and .lst (one path or URI per line), .csv, .jsonl and .parquet (a column `uri` or `path`; other columns are "
        "metadata).",
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="Your own checkpoint (.safetensors or torch) instead of the published one.")
]
CollectionWeights = Annotated[
    Path | None, typer.Option(help="The checkpoint that the collection was made with, if it is not the published one.")
]
Network = Annotated[str, typer.Option(metavar="NAME[:LAYER]", help="Network (see `whatwhere backbones`).")]
ComputedIn = Annotated[Precision, typer.Option(help="Number format that the network computes in.")]
Rank = Annotated[int, typer.Option(min=1, max=MAX_RANK, help="Number of factors of each image.")]
Dimensions = Annotated[int, typer.Option(min=1, help="Length of a whitened vector.")]
Filter = Annotated[
    str,
    typer.Option(
        metavar="EXPRESSION",
        help="Only images that match this filter, for example 'label = \"boat\" AND year > 1990'.",
        callback=absolute_filter,
    ),
]
OnDevice = Annotated[Device, typer.Option(help="Device of the network; auto uses CUDA if a GPU is found.")]
StoredImage = Annotated[
    str, typer.Argument(metavar="IMAGE|images/ID", help="An image file, or the name of a stored image.")
]
SearchedCollection = Annotated[
    str | None,
    typer.Option(
        "--collection",
        "-c",
        metavar="DIR|URI",
        help="Open this collection instead of asking a server. Default without --server: WHATWHERE_COLLECTION, if "
        "WHATWHERE_SERVER is not set.",
    ),
]


def names(listed: str) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(name.strip() for name in listed.split(","))
