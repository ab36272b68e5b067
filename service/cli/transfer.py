"""Copy a collection: `whatwhere copy`."""

import dataclasses
from typing import Annotated

import typer

from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Catalog, Vectors

Place = "A directory, or a folder of an object store (s3://BUCKET/NAME)."


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"The collection. {Place}")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help=f"Destination of the copy. {Place}")],
    catalog: Catalog = None,
    vectors: Vectors = None,
    as_json: AsJson = False,
) -> None:
    """Copy a collection to another place or to other stores. The copy has the same images, ids and answers.

    Without --catalog and --vectors the copy keeps its catalog in SQLite and its vectors in files. At the end, every
    file, row and vector of the copy is compared. Meanwhile the source can be searched, but not indexed into. If the
    copy is stopped or killed, run it again to continue.

    Example: `whatwhere copy ~/pictures.ww s3://bucket/pictures --catalog postgresql+psycopg://me@db/pictures --vectors
    milvus+http://milvus:19530`
    """
    from whatwhere.indexer.collection.stores import Stores
    from whatwhere.indexer.maintenance.transfer import copy_collection

    with stoppable("copied files are kept: run again to continue"), progress.of_stages(messages, "items") as report:
        done = copy_collection(source, target, Stores(catalog, vectors), report)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    out.print(f"{target}: generation {done.generation}, {done.images} images, {done.shards} shards", soft_wrap=True)
