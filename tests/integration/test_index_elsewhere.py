"""`index` of what is elsewhere: an S3 server and a web server, the real network on small photographs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from tests.conftest import SCIKIT_IMAGE
from tests.object_store import s3_server
from tests.web_server import Answer, Site, web_server
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.errors import SourceUnavailable
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.maintenance.remove import ImageSelection, choose, remove_images
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.indexer.sources.remote import BRIEF, Remote
from whatwhere.service.drawing.tiles import load_pixels
from whatwhere.service.search.searcher import read_source, to_stored_image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of three small photographs."""
    folder = tmp_path_factory.mktemp("album")
    for name in ("astronaut", "chelsea", "coffee"):
        with Image.open(SCIKIT_IMAGE / f"{name}.png") as picture:
            picture.thumbnail((96, 96))
            picture.save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Give an S3 server with an empty bucket."""
    with s3_server("elsewhere") as served:
        yield served


@pytest.fixture
def bucket(endpoint: str, album: Path) -> str:
    """Give a bucket's folder of the three photographs, one with a sidecar."""
    client = boto3.client("s3", endpoint_url=endpoint)
    for path in album.iterdir():
        client.upload_file(str(path), "elsewhere", f"in/{path.name}")
    client.put_object(Bucket="elsewhere", Key="in/coffee.png.json", Body=b'{"label": "cup"}')
    client.close()
    return "s3://elsewhere/in/"


@pytest.fixture
def site(album: Path) -> Iterator[Site]:
    """Give a web site of the three photographs, with tags."""
    with web_server() as served:
        for path in album.iterdir():
            served.put(f"/{path.name}", Answer(path.read_bytes(), headers={"ETag": f'"{path.stem}"'}))
        yield served


def descriptions(root: Path) -> list[Description]:
    with open_collection(root) as reader:
        return [reader.description(reader.indexed_image(identifier)) for identifier in reader.ids.tolist()]


def images(root: Path) -> dict[str, ImageRecord]:
    with Catalog.open(Layout(root).catalog) as catalog:
        return {uri: image for image in catalog.images() for uri in image.uris}


def same(ones: Sequence[Description], others: Sequence[Description]) -> bool:
    pairs = list(zip(ones, others, strict=True))
    return all(
        np.array_equal(one.factors.what, other.factors.what) and np.array_equal(one.factors.where, other.factors.where)
        for one, other in pairs
    )


def test_a_bucket_is_indexed_as_a_folder_of_the_same_pictures(bucket: str, album: Path, tmp_path: Path) -> None:
    """Descriptions are the same bit for bit, and the sidecar is taken along; a second run reads nothing."""
    index_paths([album], tmp_path / "here.ww")

    first = index_paths([bucket], tmp_path / "there.ww")
    again = index_paths([bucket], tmp_path / "there.ww")

    assert (first.progress.total, first.progress.described) == (3, 3)
    assert (again.progress.unchanged, again.published) == (3, False)
    assert same(descriptions(tmp_path / "here.ww"), descriptions(tmp_path / "there.ww"))
    assert images(tmp_path / "there.ww")[f"{bucket}coffee.png"].user_metadata == {"label": "cup"}


def test_what_is_gone_from_a_bucket_is_forgotten_when_asked_for(bucket: str, endpoint: str, tmp_path: Path) -> None:
    """And what changed is described anew."""
    index_paths([bucket], tmp_path / "a.ww")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.delete_object(Bucket="elsewhere", Key="in/chelsea.png")
    client.copy_object(Bucket="elsewhere", Key="in/coffee.png", CopySource="elsewhere/in/astronaut.png")
    client.close()

    summary = index_paths([bucket], tmp_path / "a.ww", IndexSettings(prune=True))

    assert summary.vanished == (f"{bucket}chelsea.png",)
    assert (summary.images, summary.progress.duplicates, summary.progress.unchanged) == (1, 1, 1)


def test_a_list_of_the_web_is_asked_for_once_and_then_only_for_its_tags(site: Site, tmp_path: Path) -> None:
    """Columns are metadata; a picture of 404 is recorded as failed, and stops nothing."""
    names = ("astronaut.png", "chelsea.png", "missing.png")
    lines = [f"{site.address}/{name},{number}" for number, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("\n".join(["uri,number", *lines]))

    first = index_paths([tmp_path / "list.csv"], tmp_path / "a.ww")
    read_first = {path: count for (method, path), count in site.asked.items() if method == "GET"}
    again = index_paths([tmp_path / "list.csv"], tmp_path / "a.ww")

    assert read_first == {f"/{name}": 1 for name in names}
    assert (first.progress.described, first.progress.failed, first.vanished) == (2, 1, ())
    assert (again.progress.unchanged, again.progress.failed, again.metadata_changed) == (2, 1, 0)
    assert site.asked["GET", "/chelsea.png"] == site.asked["HEAD", "/chelsea.png"] == 1
    known = images(tmp_path / "a.ww")
    assert known[f"{site.address}/chelsea.png"].user_metadata == {"number": 1}
    assert "404" in (known[f"{site.address}/missing.png"].failure_message or "")


@pytest.mark.parametrize(("status", "is_gone"), [(404, True), (403, False)])
def test_a_named_uri_is_gone_only_where_nothing_is(site: Site, tmp_path: Path, status: int, is_gone: bool) -> None:
    """What is merely refused keeps what it held; a list that names it no longer says nothing about it."""
    uri = f"{site.address}/coffee.png"
    index_paths([uri], tmp_path / "a.ww")
    site.put("/coffee.png", Answer(status=status))
    (tmp_path / "list.txt").write_text(f"{site.address}/chelsea.png\n")

    other = index_paths([tmp_path / "list.txt"], tmp_path / "a.ww", IndexSettings(prune=True))
    summary = index_paths([uri], tmp_path / "a.ww", IndexSettings(prune=True))

    assert other.vanished == ()
    assert summary.vanished == ((uri,) if is_gone else ())
    assert summary.images == (1 if is_gone else 2)


def test_a_stored_picture_is_read_from_where_it_is(site: Site, tmp_path: Path) -> None:
    """As long as it is the one that was indexed."""
    uri = f"{site.address}/coffee.png"
    index_paths([uri], tmp_path / "a.ww")
    record = images(tmp_path / "a.ww")[uri]
    content = site.answers["/coffee.png"][0].content

    assert read_source(record, Remote(BRIEF)) == content
    pixels = load_pixels(to_stored_image(record))
    assert pixels is not None
    assert pixels.shape == (record.height, record.width, 3)
    for answer in (Answer(content + b"x"), Answer(status=404), Answer(endless=True)):
        site.put("/coffee.png", answer)
        with pytest.raises(SourceUnavailable):
            read_source(record, Remote(BRIEF))


def test_pictures_of_elsewhere_are_removed_by_their_uris(site: Site, tmp_path: Path) -> None:
    """As files are."""
    index_paths([f"{site.address}/coffee.png", f"{site.address}/chelsea.png"], tmp_path / "a.ww")

    chosen = choose(tmp_path / "a.ww", ImageSelection(uri_glob="http://*/chelsea.png"))

    assert [record.uris for record in chosen.first] == [(f"{site.address}/chelsea.png",)]
    assert remove_images(tmp_path / "a.ww", chosen.ids).count == 1
