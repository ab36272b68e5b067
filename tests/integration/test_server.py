"""A real server on a real collection of photographs, asked over a real connection."""

import hashlib
import io
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from tests.conftest import INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH, SCIKIT_IMAGE
from whatwhere.indexer.boxes import Box, box_from_pixels
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.errors import RegionNotSupported
from whatwhere.service.client.client import Client
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search_options import SearchOptions

MOTORBIKE_LEFT = box_from_pixels(90, 100, 690, 455, width=741, height=500)
MOTORBIKE_RIGHT = box_from_pixels(45, 100, 640, 455, width=741, height=500)


def name_of(uri: str) -> str:
    return uri.rpartition("/")[2]


def test_the_other_view_of_a_motorbike_is_found_first_and_boxed(client: Client) -> None:
    """A box on one view finds the other, far ahead of everything else, and the box lies on the motorbike."""
    result = client.search(QUERY_PHOTOGRAPH, SearchOptions(region=MOTORBIKE_LEFT, localize_count=1))

    first, second = result.hits[:2]
    assert name_of(first.image.uri) == "motorcycle_right.png"
    assert first.score > second.score + 0.3
    assert first.box is not None
    assert first.box.intersection_over_union(MOTORBIKE_RIGHT) > 0.6
    assert second.box is None


@pytest.mark.parametrize("exact", [False, True])
def test_the_boxes_follow_the_region(client: Client, exact: bool) -> None:
    """On the query's own stored picture the shuttle is boxed where the shuttle is, the helmet where the helmet is."""
    astronaut = next(image.name for image in client.images() if name_of(image.uri) == "astronaut.png")
    regions = {"shuttle": Box(0.62, 0.0, 1.0, 0.6), "helmet": Box(0.5, 0.6, 1.0, 1.0)}

    boxes = {}
    for name, region in regions.items():
        hits = client.search(astronaut, SearchOptions(region=region, page_size=1, localize_count=1, exact=exact)).hits
        boxes[name] = hits[0].box

    assert boxes["shuttle"] is not None
    assert boxes["helmet"] is not None
    assert boxes["shuttle"].y_max < boxes["helmet"].y_max
    assert boxes["shuttle"].intersection_over_union(boxes["helmet"]) < 0.2


def test_so_many_results_are_boxed_as_were_asked_for(client: Client) -> None:
    """The first three of the page, and no more."""
    hits = client.search("images/1", SearchOptions(localize_count=3)).hits

    assert [hit.box is not None for hit in hits] == [True] * 3 + [False] * 5


def test_exact_localization_boxes_the_motorbike_too(client: Client) -> None:
    """New forward passes at 224 agree with the stored factors on where it is."""
    result = client.search(QUERY_PHOTOGRAPH, SearchOptions(region=MOTORBIKE_LEFT, localize_count=1, exact=True))

    assert result.hits[0].box is not None
    assert result.hits[0].box.intersection_over_union(MOTORBIKE_RIGHT) > 0.6


@pytest.mark.parametrize("descriptor", [None, "what", "what-and-where", "fused", "r-mac"])
def test_a_stored_image_finds_itself_first(client: Client, descriptor: str | None) -> None:
    """An image is most similar to itself, exactly, by every descriptor."""
    for image in client.images():
        best = client.search(image.name, SearchOptions(descriptor=descriptor, page_size=1)).hits[0]

        assert best.image.name == image.name
        assert best.score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("descriptor", "region"),
    [
        ("what", None),
        ("what", Box(0.1, 0.1, 0.7, 0.9)),
        ("what-and-where", None),
        ("what-and-where", Box(0.1, 0.1, 0.7, 0.9)),
        ("fused", None),
        ("fused", Box(0.1, 0.1, 0.7, 0.9)),
        ("fused", Box(0.0, 0.0, 0.02, 0.02)),
        ("r-mac", None),
    ],
)
def test_an_uploaded_image_gets_the_answer_of_the_stored_one(
    client: Client, descriptor: str, region: Box | None
) -> None:
    """Query images pass through the same path as indexed ones, with a region and without."""
    stored = next(image for image in client.images() if name_of(image.uri) == "chelsea.png")

    uploaded = client.search(SCIKIT_IMAGE / "chelsea.png", SearchOptions(region=region, descriptor=descriptor))
    by_name = client.search(stored.name, SearchOptions(region=region, descriptor=descriptor))

    assert [hit.image.name for hit in uploaded.hits] == [hit.image.name for hit in by_name.hits]
    assert [hit.score for hit in uploaded.hits] == pytest.approx([hit.score for hit in by_name.hits], abs=1e-3)
    assert (uploaded.kept_factor_count, uploaded.region_fallback) == (
        by_name.kept_factor_count,
        by_name.region_fallback,
    )


def test_a_region_keeps_some_factors_and_the_whole_image_all(client: Client) -> None:
    """Eight factors in all, fewer inside a box."""
    whole, part = (client.search("images/1", SearchOptions(region=region)) for region in (None, Box(0, 0, 0.6, 0.6)))

    assert whole.kept_factor_count == 8
    assert 1 <= part.kept_factor_count < 8
    assert not whole.region_fallback


def test_a_region_that_holds_no_factor_says_so(client: Client) -> None:
    """The nearest factor is used, and the caller is told."""
    result = client.search("images/1", SearchOptions(region=Box(0.0, 0.0, 0.02, 0.02)))

    assert result.region_fallback
    assert result.kept_factor_count == 1
    assert result.hits


def test_without_a_descriptor_the_fused_is_asked(client: Client) -> None:
    """The best that there is, to the last bit of every score, and other than the rest."""
    region = Box(0.1, 0.1, 0.7, 0.9)

    answers = {
        name: client.search("images/2", SearchOptions(region=region, descriptor=name, page_size=8)).hits
        for name in (None, "fused", "what-and-where", "what")
    }

    scores = {name: [(hit.image.name, hit.score) for hit in hits] for name, hits in answers.items()}
    assert scores[None] == scores["fused"]
    assert scores["fused"] != scores["what-and-where"] != scores["what"]


@pytest.mark.parametrize("region", [Box(0.0, 0.0, 0.5, 0.5), Box(0.9, 0.9, 1.0, 1.0)])
def test_a_region_on_a_stored_image_needs_no_more_than_is_stored(client: Client, region: Box) -> None:
    """The fused answers it, and a baseline says which descriptors do."""
    whole, part = (client.search("images/4", SearchOptions(region=box, descriptor="fused")) for box in (None, region))

    assert 1 <= part.kept_factor_count < whole.kept_factor_count == 8
    assert [hit.score for hit in part.hits] != [hit.score for hit in whole.hits]
    with pytest.raises(RegionNotSupported, match="r-mac does not use: use one of what, what-and-where, fused"):
        client.search("images/4", SearchOptions(region=region, descriptor="r-mac"))


def test_a_region_on_an_upload_crops_the_pooled_descriptors(client: Client) -> None:
    """R-MAC of the box finds the motorbike and keeps no factors."""
    result = client.search(QUERY_PHOTOGRAPH, SearchOptions(region=MOTORBIKE_LEFT, descriptor="r-mac"))
    whole = client.search(QUERY_PHOTOGRAPH, SearchOptions(descriptor="r-mac"))

    assert name_of(result.hits[0].image.uri) == "motorcycle_right.png"
    assert result.kept_factor_count == 0
    assert result.hits[0].score != whole.hits[0].score


@pytest.mark.parametrize("corner", [0.0, 0.5, 1 - 1e-9])
def test_a_region_smaller_than_a_cell_is_that_cell(client: Client, corner: float) -> None:
    """However small the box, also in the last corner, the pooled descriptors see one cell."""
    region = Box(corner, corner, corner + 1e-9, corner + 1e-9)

    assert client.search(QUERY_PHOTOGRAPH, SearchOptions(region=region, descriptor="r-mac")).hits


def test_pages_are_parts_of_one_answer(client: Client) -> None:
    """Three at a time gives what all at once gives, and ends."""
    everything = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=100))
    paged, token = [], ""
    for _ in range(3):
        page = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=3, page_token=token))
        paged += page.hits
        token = page.next_page_token

    assert [hit.image.name for hit in paged] == [hit.image.name for hit in everything.hits]
    assert len(paged) == len(INDEXED_PHOTOGRAPHS)
    assert (token, everything.next_page_token) == ("", "")


def test_a_minimum_score_cuts_the_list(client: Client) -> None:
    """Only what scores at least this much comes back, and no page follows."""
    everything = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=100))
    limit = everything.hits[2].score

    result = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=100, min_score=limit))

    assert [hit.image.name for hit in result.hits] == [hit.image.name for hit in everything.hits[:3]]
    assert not client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=3, min_score=limit)).has_more


@pytest.mark.parametrize("descriptor", ["what-and-where", "fused"])
@pytest.mark.parametrize("as_upload", [False, True])
def test_expansion_adds_the_neighbors_but_not_the_query_itself(
    client: Client, collection: Path, as_upload: bool, descriptor: str
) -> None:
    """The expanded scores are those of query plus first neighbours, recomputed here from the stored vectors."""
    with open_collection(collection) as reader:
        vectors = reader.index(descriptor).vectors
        stored = {image.name: vectors.vector(int(image.name.partition("/")[2])) for image in client.images()}
    query = next(image for image in client.images() if name_of(image.uri) == "china.jpg")
    plain = client.search(query.name, SearchOptions(page_size=100, descriptor=descriptor))
    neighbors = [hit.image.name for hit in plain.hits if hit.image.name != query.name][:2]
    total = stored[query.name] + sum(stored[name] for name in neighbors)
    total /= (total @ total) ** 0.5
    path = next(path for path in INDEXED_PHOTOGRAPHS if path.name == "china.jpg")

    expanded = client.search(
        path if as_upload else query.name, SearchOptions(page_size=100, expansion_count=2, descriptor=descriptor)
    )

    for hit in expanded.hits:
        assert hit.score == pytest.approx(float(stored[hit.image.name] @ total), abs=1e-3)


def test_a_stored_image_says_what_it_is(client: Client) -> None:
    """Size, type, place and digest are those of the file."""
    path = SCIKIT_IMAGE / "rocket.jpg"
    listed = next(image for image in client.images() if name_of(image.uri) == "rocket.jpg")

    image = client.image(listed.name)

    with Image.open(path) as picture:
        assert (image.width_px, image.height_px) == picture.size
    assert (image.mime_type, image.byte_count) == ("image/jpeg", path.stat().st_size)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image == listed


def test_listing_pages_through_all_images_once(server: str) -> None:
    """Pages of three, in the order of their ids, and a negative size is refused."""
    with grpc.insecure_channel(server) as channel:
        stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call]
        names, token = [], ""
        while True:
            page = stub.ListImages(pb.ListImagesRequest(page_size=3, page_token=token))
            names += [image.name for image in page.images]
            token = page.next_page_token
            if not token:
                break

    assert names == [f"images/{number}" for number in range(1, len(INDEXED_PHOTOGRAPHS) + 1)]


def test_the_collection_describes_itself(client: Client) -> None:
    """What a caller needs to know before asking."""
    info = client.collection()

    assert (info.generation, info.image_count, info.backbone, info.rank) == (1, 8, "efficientnet-lite0", 8)
    assert info.latest_generation == 1
    assert info.descriptors == ("what", "what-and-where", "fused", "r-mac")


def test_the_server_says_that_it_is_healthy(server: str) -> None:
    """The standard health service: the whole server, our service, and that its generation is the newest."""
    with grpc.insecure_channel(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        for service in ("", "whatwhere.v1.ImageSearchService", "whatwhere.v1.Generation"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_server_reflects_its_services(server: str) -> None:
    """Public tools can call it without the proto file."""
    with grpc.insecure_channel(server) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()

    assert "whatwhere.v1.ImageSearchService" in services


def test_a_request_id_comes_back(server: str) -> None:
    """The caller's own id where it sent one, a new one where not."""
    with grpc.insecure_channel(server) as channel:
        stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call]
        _, own = stub.GetCollection.with_call(pb.GetCollectionRequest(), metadata=(("x-request-id", "mine-1"),))
        _, new = stub.GetCollection.with_call(pb.GetCollectionRequest())

    assert dict(own.initial_metadata())["x-request-id"] == "mine-1"
    assert len(dict(new.initial_metadata())["x-request-id"]) == 32


def test_a_picture_of_any_supported_kind_is_an_equal_query(client: Client) -> None:
    """The same pixels as PNG, WebP, TIFF and BMP give the same answer; sideways with an EXIF note too."""
    with Image.open(SCIKIT_IMAGE / "coffee.png") as opened:
        picture = opened.convert("RGB")
    truth = client.search(SCIKIT_IMAGE / "coffee.png").hits
    encodings = []
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        encodings.append(buffer.getvalue())
    sideways, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(sideways, "PNG", exif=exif)

    for content in (*encodings, sideways.getvalue()):
        hits = client.search(content).hits
        assert [hit.image.name for hit in hits] == [hit.image.name for hit in truth]
        assert hits[0].score == pytest.approx(truth[0].score, abs=1e-4)
