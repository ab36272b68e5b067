"""What people look at, from a real server: factors, comparisons, pictures, images at random, searches by factor."""

import hashlib
import io
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH
from whatwhere.indexer.boxes import Box, box_from_pixels
from whatwhere.indexer.errors import (
    DescriptorNotIndexed,
    ImageNotFound,
    InvalidFilter,
    InvalidRequest,
    RegionNotSupported,
    SourceUnavailable,
)
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.client.client import Client
from whatwhere.service.results import StoredImage
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

MOTORBIKE_LEFT = box_from_pixels(90, 100, 690, 455, width=741, height=500)


def named(client: Client, stem: str) -> StoredImage:
    return next(image for image in client.images() if f"/{stem}." in image.uri)


# --- factors ------------------------------------------------------------------------------------------------------


def test_a_stored_image_is_explained_by_its_factors(client: Client) -> None:
    """As many as the collection's rank, strongest first, their shares adding up to one, each in its own colour."""
    astronaut = named(client, "astronaut")

    explanation = client.explain(astronaut.name)

    factors = explanation.factors
    assert explanation.image == astronaut
    assert [factor.index for factor in factors] == list(range(client.collection().rank))
    shares = [factor.energy_share for factor in factors]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert len({factor.color for factor in factors}) == len(factors)
    assert all(factor.heat.max() == 1 and factor.heat.min() >= 0 for factor in factors)
    assert all(factor.box is not None and factor.png == b"" and factor.similar == () for factor in factors)


def test_an_upload_is_explained_as_the_stored_image_is(client: Client) -> None:
    """The same bytes give the same factors, and are recognised; another picture belongs to no stored image."""
    astronaut = named(client, "astronaut")
    content = client.content(astronaut.name).content

    uploaded, stored = client.explain(content), client.explain(astronaut.name)

    assert uploaded.image == astronaut
    for one, other in zip(uploaded.factors, stored.factors, strict=True):
        np.testing.assert_allclose(one.heat, other.heat, atol=2 / 255)
    assert client.explain(QUERY_PHOTOGRAPH).image is None


def test_a_heatmap_is_drawn_to_be_laid_over_its_picture(client: Client) -> None:
    """In the picture's proportions and the factor's colour, opaque where the factor is strongest."""
    rocket = named(client, "rocket")

    factor = client.explain(rocket.name, heatmap_size_px=128).factors[0]

    drawn = Image.open(io.BytesIO(factor.png))
    assert (drawn.mode, max(drawn.size)) == ("RGBA", 128)
    assert drawn.width / drawn.height == pytest.approx(rocket.width / rocket.height, rel=0.02)
    pixels = np.asarray(drawn)
    assert "#{:02x}{:02x}{:02x}".format(*pixels[0, 0, :3]) == factor.color
    row, column = np.unravel_index(factor.heat.argmax(), factor.heat.shape)
    height, width = factor.heat.shape
    middle = int((row + 0.5) / height * drawn.height), int((column + 0.5) / width * drawn.width)
    assert pixels[middle][3] > 200


def test_the_other_view_has_the_like_of_the_motorbike(client: Client) -> None:
    """The most similar factor of another image is on the other view; the image itself is not among them."""
    other = named(client, "motorcycle_right")

    uploaded = client.explain(QUERY_PHOTOGRAPH, similar_count=3)
    stored = client.explain(other.name, similar_count=7)

    best = Counter(factor.similar[0].image.name for factor in uploaded.factors)
    assert best.most_common(1)[0][0] == other.name
    for factor in stored.factors:
        names = [similar.image.name for similar in factor.similar]
        assert other.name not in names
        assert len(set(names)) == len(names) == 7
        scores = [similar.score for similar in factor.similar]
        assert scores == sorted(scores, reverse=True)


# --- searching by factor ------------------------------------------------------------------------------------------


def test_the_factors_of_the_motorbike_find_the_other_view(client: Client) -> None:
    """Those whose box lies on it, without any region: it comes first, and is boxed where they are."""
    factors = client.explain(QUERY_PHOTOGRAPH).factors
    inside = [
        factor.index for factor in factors if factor.box and factor.box.intersection_over_union(MOTORBIKE_LEFT) > 0.25
    ]

    result = client.search(QUERY_PHOTOGRAPH, SearchOptions(factors=inside, localize_count=1))

    assert 0 < len(inside) < len(factors)
    assert "motorcycle_right" in result.hits[0].image.uri
    assert result.hits[0].score > result.hits[1].score + 0.2
    assert result.kept_factor_count == len(inside)
    assert result.hits[0].box is not None


def test_avoiding_is_keeping_the_others(client: Client) -> None:
    """The same results either way, and others than without."""
    name = named(client, "coffee").name
    rank = client.collection().rank

    avoided = client.search(name, SearchOptions(avoided_factors=[0, 1]))
    kept = client.search(name, SearchOptions(factors=range(2, rank)))
    everything = client.search(name)

    assert [hit.score for hit in avoided.hits] == pytest.approx([hit.score for hit in kept.hits], abs=1e-6)
    assert [hit.score for hit in avoided.hits] != pytest.approx([hit.score for hit in everything.hits], abs=1e-3)
    assert avoided.kept_factor_count == rank - 2


def test_a_factor_that_there_is_not_is_named(client: Client) -> None:
    """With those that there are; and so is a descriptor that has none."""
    with pytest.raises(InvalidRequest, match="0 to 7") as refused:
        client.search("images/1", SearchOptions(factors=[8]))
    assert refused.value.field == "concepts"
    with pytest.raises(RegionNotSupported, match="what-and-where"):
        client.search("images/1", SearchOptions(factors=[0], descriptor="r-mac"))
    with pytest.raises(DescriptorNotIndexed):
        client.search("images/1", SearchOptions(factors=[0], descriptor="gem"))


def test_two_boxes_ask_for_what_is_in_either(client: Client) -> None:
    """The shuttle and the helmet: more factors than in one box, fewer than in all; a mask of the two says the same."""
    name = named(client, "astronaut").name
    boxes = [Box(0.625, 0.0, 1.0, 0.5), Box(0.5, 0.625, 1.0, 1.0)]
    mask = Image.new("L", (512, 512))
    for box in boxes:
        mask.paste(255, tuple(int(512 * side) for side in box))
    written = io.BytesIO()
    mask.save(written, "PNG")

    each = [client.search(name, SearchOptions(region=box, page_size=3)) for box in boxes]
    both = client.search(name, SearchOptions(region=boxes, page_size=3))
    masked = client.search(name, SearchOptions(mask=written.getvalue(), page_size=3))

    assert both.kept_factor_count >= max(result.kept_factor_count for result in each)
    assert both.kept_factor_count < client.collection().rank
    assert [hit.image.name for hit in masked.hits] == [hit.image.name for hit in both.hits]
    assert [hit.score for hit in masked.hits] == pytest.approx([hit.score for hit in both.hits], abs=1e-5)


# --- comparisons --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_two_views_share_their_concepts(client: Client, exact: bool) -> None:
    """The concept that lies on one motorbike lies on the other, in the same colour."""
    name = named(client, "motorcycle_right").name

    query, other = client.compare(QUERY_PHOTOGRAPH, [name], rank=3, exact=exact)

    assert query.image is None
    assert other.image is not None
    assert other.image.name == name
    on_left = max(query.factors, key=lambda factor: factor.heat[5:12, 4:18].mean() - factor.heat[:3].mean())
    same = other.factors[on_left.index]
    assert same.color == on_left.color
    assert same.heat[5:12, 4:18].mean() > 3 * same.heat[:2].mean()


def test_the_same_image_twice_has_the_same_maps(client: Client) -> None:
    """Whatever else is there: concepts are common, maps are each image's own."""
    one, other, _ = client.compare("images/1", ["images/1", "images/2"], rank=5, heatmap_size_px=32)

    assert len(one.factors) == 5
    for first, second in zip(one.factors, other.factors, strict=True):
        np.testing.assert_allclose(first.heat, second.heat, atol=1 / 255)
        assert first.png[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_cannot_be_compared_is_named(client: Client) -> None:
    """An image that there is not, none, and too many."""
    with pytest.raises(ImageNotFound, match="images/99"):
        client.compare("images/1", ["images/99"])
    with pytest.raises(InvalidRequest, match="1 to 16"):
        client.compare("images/1", [])


# --- pictures -----------------------------------------------------------------------------------------------------


def test_the_file_comes_as_it_was_indexed(client: Client) -> None:
    """Byte by byte, with its type."""
    for image in client.images():
        found = client.content(image.name)

        assert hashlib.sha256(found.content).hexdigest() == image.sha256
        assert found.mime_type == image.mime_type


@pytest.mark.parametrize("size", [16, 400, 2048])
def test_a_thumbnail_is_a_small_jpeg_in_the_same_proportions(client: Client, size: int) -> None:
    """Its longer side is the one asked for, or the picture's own where that is smaller; it looks like the picture."""
    for image in client.images():
        found = client.content(image.name, size)

        assert found.mime_type == "image/jpeg"
        thumbnail = Image.open(io.BytesIO(found.content))
        assert thumbnail.format == "JPEG"
        assert max(thumbnail.size) == min(size, max(image.width_px, image.height_px))
        assert thumbnail.width / thumbnail.height == pytest.approx(
            image.width_px / image.height_px, rel=1 / min(thumbnail.size)
        )
        original = Image.open(io.BytesIO(client.content(image.name).content)).convert("RGB")
        small = np.asarray(original.resize((8, 8), Image.Resampling.BOX), dtype=float)
        assert np.abs(small - np.asarray(thumbnail.resize((8, 8), Image.Resampling.BOX))).mean() < 12  # of 255


def test_a_thumbnail_is_upright_and_tells_nothing_else(tmp_path: Path) -> None:
    """A camera that was held sideways, with the place in its EXIF."""
    picture = Image.new("RGB", (80, 60), "white")
    picture.paste("red", (0, 0, 80, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn to the right
    exif.get_ifd(0x8825)[1] = "N"
    (tmp_path / "photographs").mkdir()
    picture.save(tmp_path / "photographs" / "a.jpg", exif=exif, quality=95)

    with serving(tmp_path) as client:
        found = Image.open(io.BytesIO(client.content("images/1", 60).content))

    assert found.size == (45, 60)
    assert len(found.getexif()) == 0
    left, right = found.getpixel((2, 30)), found.getpixel((42, 30))
    assert left[1] > 200  # type: ignore[index] # white
    assert right[1] < 60  # type: ignore[index] # red


@contextmanager
def serving(folder: Path) -> Iterator[Client]:
    """Index and serve what stands in `folder`/photographs."""
    root = folder / "photographs.ww"
    index_paths([folder / "photographs"], root, IndexSettings())
    server, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client
    server.stop(grace=None)


@pytest.fixture
def own_photographs(tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    """Give a client of a server of one photograph, and its file, to do with what one likes."""
    (tmp_path / "photographs").mkdir()
    file = Path(shutil.copy(INDEXED_PHOTOGRAPHS[0], tmp_path / "photographs"))
    with serving(tmp_path) as client:
        yield client, file


def test_another_content_in_the_same_place_is_not_shown(own_photographs: tuple[Client, Path], tmp_path: Path) -> None:
    """Not by name, not by a link to a secret: what was not indexed is not the collection's to show."""
    client, file = own_photographs
    secret = tmp_path / "secret.png"
    shutil.copy(INDEXED_PHOTOGRAPHS[1], secret)
    file.unlink()
    file.symlink_to(secret)

    for size in (0, 100):
        with pytest.raises(SourceUnavailable, match="images/1") as refused:
            client.content("images/1", size)

        assert str(tmp_path) not in str(refused.value)


def test_a_picture_whose_file_has_gone_is_named(own_photographs: tuple[Client, Path]) -> None:
    """And it can still be explained: that takes no file."""
    client, file = own_photographs
    file.unlink()

    with pytest.raises(SourceUnavailable, match="put it back"):
        client.content("images/1")
    assert len(client.explain("images/1").factors) == 8


# --- at random ----------------------------------------------------------------------------------------------------


def test_images_at_random_are_different_ones(client: Client) -> None:
    """As many as asked for, all where more are; over many draws each comes."""
    names = {image.name for image in client.images()}

    assert {image.name for image in client.sample(100)} == names
    assert len(client.sample()) == 1
    drawn = Counter(image.name for _ in range(60) for image in client.sample(2))
    assert set(drawn) == names


def test_a_filter_says_among_which_to_draw(client: Client) -> None:
    """And where it holds for none, none comes."""
    rocket = named(client, "rocket")

    assert client.sample(5, filter='uri : "*rocket*"') == (rocket,)
    assert client.sample(5, filter="width_px < 2") == ()
    with pytest.raises(InvalidFilter):
        client.sample(filter="(((")
