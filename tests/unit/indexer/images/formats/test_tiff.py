"""Every layout of a TIFF gives its picture, or is refused by its name."""

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.malformed.pictures import tiff_values, with_tiff_entry
from whatwhere.indexer.errors import ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.decode import decode_image, upright_size
from whatwhere.indexer.images.limits import ImageLimits

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

HEIGHT, WIDTH = 37, 52  # no multiple of a tile's or a strip's sides


def ramp(channels: int) -> NDArray[np.float64]:
    """Draw [h, w, channels] in 0 to 1: each channel reaches both ends and has a pattern of its own."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    patterns = [
        rows / (HEIGHT - 1),
        columns / (WIDTH - 1),
        (rows + columns) % 17 / 16,
        (rows * 3 + columns) % 29 / 28,
        (rows * 5 + columns * 2) % 31 / 30,
    ]
    return np.stack(patterns[:channels], axis=-1)


# --- the grid -----------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A number format: numpy's type, the bits written, the number for the darkest and for the brightest sample."""

    dtype: str
    bits: int
    low: float
    high: float


KINDS = {
    "uint8": Kind("u1", 8, 0, 0xFF),
    "uint16": Kind("u2", 16, 0, 0xFFFF),
    "uint32": Kind("u4", 32, 0, 0xFFFFFFFF),
    "uint64": Kind("u8", 64, 0, 2**64 - 2**11),
    "10 bits": Kind("u2", 10, 0, 1023),
    "12 bits": Kind("u2", 12, 0, 4095),
    "12 in 16 bits": Kind("u2", 16, 0, 4095),
    "int8": Kind("i1", 8, -128, 127),
    "int16": Kind("i2", 16, -32768, 32767),
    "int32": Kind("i4", 32, -(2**31), 2**31 - 1),
    "int16 from 0": Kind("i2", 16, 0, 32767),
    "float16": Kind("f2", 16, 0, 1),
    "float32": Kind("f4", 32, 0, 1),
    "float64": Kind("f8", 64, 0, 1),
    "float32 to 255": Kind("f4", 32, 0, 255),
    "float32 of heights": Kind("f4", 32, -120, 3000),
}
COLORS = {  # photometric, samples, extra samples, whether samples of 0 are bright
    "gray": ("minisblack", 1, None),
    "white is 0": ("miniswhite", 1, None),
    "gray, alpha": ("minisblack", 2, ["unassalpha"]),
    "RGB": ("rgb", 3, None),
    "RGBA": ("rgb", 4, ["unassalpha"]),
    "RGB, premultiplied alpha": ("rgb", 4, ["assocalpha"]),
    "RGB, two more": ("rgb", 5, ["unspecified", "unspecified"]),
    "CMYK": ("separated", 4, None),
    "CMYK, alpha": ("separated", 5, ["unassalpha"]),
}


WAYS = (("<", False, None), (">", False, (16, 32)), (">", True, None), ("<", True, (16, 32)))


def layouts(color: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every kind of number, planar or not, in strips and tiles, in both byte orders, classic and BigTIFF."""
    for kind, planes, (order, is_big, tile) in itertools.product(KINDS, ("contig", "separate"), WAYS):
        if COLORS[color][1] == 1 and planes == "separate":
            continue
        if kind == "float32 of heights" and COLORS[color][2] == ["assocalpha"]:  # alpha is a share
            continue
        options: dict[str, Any] = {"planarconfig": planes, "byteorder": order, "bigtiff": is_big}
        if KINDS[kind].bits in (10, 12):
            if planes == "separate" or order == ">":  # tifffile packs neither as it reads them
                continue
            options["bitspersample"] = KINDS[kind].bits
        yield kind, options | ({"rowsperstrip": 8} if tile is None else {"tile": tile})


def expected(kind: str, color: str, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Work out the RGB picture in 0 to 255 of samples in 0 to 1, by the formulas of the TIFF specification."""
    colors = 1 - shares[..., :1] if color == "white is 0" else shares
    if color.startswith("gray"):
        colors = shares[..., :1]
    elif color.startswith("RGB"):
        colors = shares[..., :3]
    elif color.startswith("CMYK"):
        inks = shares[..., :4] * (shares[..., 4:] if "alpha" in color else 1)
        colors = (1 - inks[..., :3]) * (1 - inks[..., 3:])
    elif color != "white is 0":
        raise AssertionError(color)
    if "alpha" in color or color == "RGBA":
        alpha = shares[..., -1:]
        if color == "RGB, premultiplied alpha":
            colors = colors + 1 - alpha
        elif not color.startswith("CMYK"):
            colors = colors * alpha + 1 - alpha
    return np.broadcast_to(255 * colors, (HEIGHT, WIDTH, 3))


def shares_of(color: str) -> NDArray[np.float64]:
    """Draw samples in 0 to 1; premultiplied colors are at most their alpha, and still reach both ends."""
    shares = ramp(COLORS[color][1])
    if color == "RGB, premultiplied alpha":
        shares[..., 3] = 1 - shares[..., 3] / 2
        shares[0, 0, 3] = 1
        shares[..., :3] = np.minimum(shares[..., :3], shares[..., 3:])
    return shares


def written(kind: str, color: str, options: dict[str, Any]) -> bytes:
    """Write the samples by tifffile."""
    number, (photometric, _, extra) = KINDS[kind], COLORS[color]
    numbers = shares_of(color) * (number.high - number.low) + number.low
    samples = (numbers if number.dtype.startswith("f") else np.rint(numbers)).astype(number.dtype)
    if options["planarconfig"] == "separate":
        samples = np.moveaxis(samples, -1, 0)
    elif samples.shape[-1] == 1:
        samples, options = samples[..., 0], {name: value for name, value in options.items() if name != "planarconfig"}
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric=photometric, extrasamples=extra, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("color", COLORS)
def test_every_layout_gives_its_picture(color: str) -> None:
    """Within two gray levels, which the high byte of each sample leaves, twice with alpha."""
    wrong, count = [], 0
    for kind, options in layouts(color):
        count += 1
        picture = decode_image(written(kind, color, options), "x", shorter_side=None).pixels
        difference = np.abs(picture - expected(kind, color, shares_of(color))).max()
        if difference > 2.5:
            wrong.append((kind, options, difference))

    assert not wrong
    assert count >= 4 * (len(KINDS) - 2)


@pytest.mark.parametrize(
    "compression", ["zlib", "lzw", "packbits", "zstd", "lzma", "lerc", "jpeg2000", "jpegxl", "webp"]
)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_every_compression_gives_its_picture(compression: str, dtype: str) -> None:
    """Lossless as written here, with the predictor where there is one."""
    if dtype == "u2" and compression == "webp":
        pytest.skip("WebP has 8 bits")
    largest = np.iinfo(dtype).max
    samples = np.rint(ramp(3) * largest).astype(dtype)
    lossless = {"jpegxl": {"lossless": True}, "webp": {"lossless": True}, "jpeg2000": {"reversible": True}}
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        photometric="rgb",
        rowsperstrip=16,
        compression=compression,
        compressionargs=lossless.get(compression),
        predictor=compression in ("zlib", "lzw", "zstd", "lzma"),
        metadata=None,
    )

    picture = decode_image(buffer.getvalue(), "x", shorter_side=None).pixels

    assert np.abs(picture - 255 * ramp(3)).max() <= 1


# --- files that tifffile does not write ---------------------------------------------------------------------------


def bare(order: str, data: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """Write a TIFF of one strip: the header, the strip, then the directory; every value is a LONG."""
    tags = {273: (8,), 278: tags[257], 279: (len(data),)} | tags
    start = 8 + len(data)
    entries, behind = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            offset = start + 2 + 12 * len(tags) + 4 + len(behind)
            behind, packed = behind + packed, struct.pack(order + "I", offset)
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    signature = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return signature + struct.pack(order + "I", start) + data + directory + behind


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_samples_are_unpacked_in_both_byte_orders(order: str, bits: int) -> None:
    """The first sample is in the highest bits, whatever the byte order; rows end at a byte."""
    numbers = np.rint(ramp(1)[..., 0] * ((1 << bits) - 1)).astype(int)
    rows = ["".join(f"{number:0{bits}b}" for number in row) for row in numbers]
    padded = "".join(row + "0" * (-len(row) % 8) for row in rows)
    data = int(padded, 2).to_bytes(len(padded) // 8, "big")
    content = bare(order, data, {256: (WIDTH,), 257: (HEIGHT,), 258: (bits,), 259: (1,), 262: (1,), 277: (1,)})

    picture = decode_image(content, "x", shorter_side=None).pixels

    np.testing.assert_array_equal(picture[..., 0], numbers >> (bits - 8))


@pytest.mark.parametrize("rows", [4, 37])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_uncompressed_ycbcr_is_unpacked(across: int, down: int, rows: int) -> None:
    """Each unit holds the luma of some pixels, then their two chroma samples."""
    luma = np.rint(ramp(1)[..., 0] * 255).astype(np.uint8)
    tops = range(0, HEIGHT, rows)
    padded = [np.pad(luma[top : top + rows], ((0, 4), (0, 4)), "edge") for top in tops]
    strips = [
        b"".join(
            strip[y : y + down, x : x + across].tobytes() + b"\x60\xa0"
            for y in range(0, min(rows, HEIGHT - top), down)
            for x in range(0, WIDTH, across)
        )
        for top, strip in zip(tops, padded, strict=True)
    ]
    offsets = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    tags = {256: (WIDTH,), 257: (HEIGHT,), 258: (8, 8, 8), 259: (1,), 262: (6,), 277: (3,), 530: (across, down)}
    tags |= {273: tuple(offsets), 278: (rows,), 279: tuple(map(len, strips))}
    content = bare("<", b"".join(strips), tags)

    picture = decode_image(content, "x", shorter_side=None).pixels

    # ITU-R BT.601, full range: R = Y + 1.402 (Cr - 128), G = Y - 0.344 (Cb - 128) - 0.714 (Cr - 128), B = Y + 1.772 ...
    colored = luma[..., np.newaxis] + np.array([1.402 * 32, 0.344 * 32 - 0.714 * 32, -1.772 * 32])
    assert np.abs(picture - colored.clip(0, 255)).max() <= 1


def test_sixteen_bit_palettes_are_looked_up() -> None:
    """An index of 16 bits selects one of 65,536 colors."""
    indices = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 31 % 65536).astype(np.uint16)
    colors = np.random.default_rng(1).integers(0, 65536, (3, 65536)).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, indices, photometric="palette", colormap=colors, metadata=None)

    picture = decode_image(buffer.getvalue(), "x", shorter_side=None).pixels

    np.testing.assert_array_equal(picture, np.moveaxis(colors[:, indices] >> 8, 0, -1))


def test_numbers_that_are_none_are_black() -> None:
    """NaN is black, infinities are clipped, and neither widens the range."""
    samples = np.array([[0, 0.5, 1, np.nan, np.inf, -np.inf]], np.float32)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="minisblack", metadata=None)

    picture = decode_image(buffer.getvalue(), "x", shorter_side=None).pixels

    assert picture[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]


# --- which picture of a file --------------------------------------------------------------------------------------


def pages(*pictures: tuple[str, int], below: tuple[str, int] | None = None) -> bytes:
    """Write pictures of one color with their subfile types; `below` the first one, in a SubIFD."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder="<") as file:
        for number, (color, kind) in enumerate(pictures):
            samples = np.asarray(Image.new("RGB", (16 + 16 * (not kind), 16), color))
            subs = 1 if below and not number else None
            file.write(samples, photometric="rgb", subfiletype=kind, subifds=subs, metadata=None)
            if subs and below:
                samples = np.asarray(Image.new("RGB", (40, 30), below[0]))
                file.write(samples, photometric="rgb", subfiletype=below[1], metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "color"),
    [
        (pages(("red", 1), ("blue", 0)), (0, 0, 255)),
        (pages(("red", 1), ("lime", 1), ("blue", 0)), (0, 0, 255)),
        (pages(("red", 0), ("blue", 0)), (255, 0, 0)),
        (pages(("red", 2), ("blue", 2)), (255, 0, 0)),  # 2: a page of several
        (with_tiff_entry(pages(("red", 1), ("blue", 0)), 254, value=4), (0, 0, 255)),  # 4: a mask
        (pages(("red", 1), ("lime", 0), below=("blue", 0)), (0, 0, 255)),
        (pages(("red", 0), below=("blue", 1)), (255, 0, 0)),
        (pages(("red", 1)), (255, 0, 0)),
    ],
    ids=["second", "third", "first", "pages", "mask", "below", "thumbnail below", "nothing else"],
)
def test_the_first_picture_that_is_no_thumbnail_is_taken(content: bytes, color: tuple[int, int, int]) -> None:
    """Wherever it is in the file; its size is known before decoding."""
    decoded = decode_image(content, "x", shorter_side=None)

    assert decoded.pixels[0, 0].tolist() == list(color)
    assert upright_size(content, "x") == (decoded.width, decoded.height)


# --- what is refused ----------------------------------------------------------------------------------------------


def rgb16(height: int = HEIGHT, width: int = WIDTH, **options: Any) -> bytes:
    """Write a picture that tifffile has to read, classic and little-endian."""
    samples = np.zeros((height, width, 3), np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="rgb", byteorder="<", metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_tiff_entry(rgb16(), 262, value=77), r"TIFF \(photometric 77, 3 x 16-bit uint\)"),
        (with_tiff_entry(rgb16(), 259, value=9999), r"TIFF \(.* compression 9999\): such compression is not read"),
        (with_tiff_entry(rgb16(), 277, value=60_000), "TIFF .*: the tags contradict each other"),
        (with_tiff_entry(rgb16(), 273, value=2**31), r"TIFF cut \(RGB, 3 x 16-bit uint\): 1 of 1 strips are not in"),
        (rgb16(rowsperstrip=8)[:-4000], r"TIFF cut \(RGB, 3 x 16-bit uint\): 2 of 5 strips are not in the file"),
        (with_tiff_entry(rgb16(tile=(16, 16)), 322, value=2**20), "tiles of 1048576 x 16 pixels are out of range"),
    ],
    ids=["colors", "compression", "samples", "offset", "cut", "tiles"],
)
def test_other_layouts_are_refused_by_name(content: bytes, message: str) -> None:
    """The message says what the file holds."""
    with pytest.raises(UnreadableImage, match=message):
        decode_image(content, "x")


def test_the_bytes_of_all_samples_are_bounded_before_they_are_decoded() -> None:
    """At most 8 bytes for each pixel of the largest picture."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((40, 50, 3)), photometric="rgb", metadata=None)

    assert decode_image(buffer.getvalue(), "x", limits=ImageLimits(max_pixels=6000)).width == 50
    with pytest.raises(ImageTooManyPixels, match=r"TIFF \(RGB, 3 x 64-bit float\) of 50 x 40 pixels, 48,000 bytes"):
        decode_image(buffer.getvalue(), "x", limits=ImageLimits(max_pixels=5999))


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "jpegxl", "lerc"])
def test_a_codestream_larger_than_its_strip_is_refused(compression: str) -> None:
    """It would be decoded whole before anything noticed."""
    buffer = io.BytesIO()
    samples = np.zeros((64, 48, 3), np.uint8)
    tifffile.imwrite(buffer, samples, photometric="rgb", compression=compression, byteorder="<", metadata=None)

    shrunk = with_tiff_entry(with_tiff_entry(buffer.getvalue(), 257, value=16), 278, value=16)

    with pytest.raises(UnreadableImage, match="codestream in it is damaged or larger"):
        decode_image(shrunk, "x")


def test_libtiff_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Its messages name no file; the error says what is wrong."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="zlib", byteorder="<")
    content = bytearray(buffer.getvalue())
    (start,) = tiff_values(bytes(content), 273)
    content[start + 2 : start + 12] = b"\xaa" * 10

    with pytest.raises(UnreadableImage, match=r"x: not a complete TIFF \(64 x 64 pixels: "):
        decode_image(bytes(content), "x")

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_layout_that_tifffile_reads_is_turned_as_pillow_turns(orientation: int) -> None:
    """Orientation is applied once, the size is the upright one."""
    samples = (ramp(3) * 255).astype(np.uint8)
    expected_picture, found = (
        decode_image(written_with(samples.astype(dtype) * scale, orientation), "x", shorter_side=None)
        for dtype, scale in (("u1", 1), ("u2", 257))
    )

    np.testing.assert_array_equal(found.pixels, expected_picture.pixels)
    assert (found.width, found.height) == (expected_picture.width, expected_picture.height)
    assert upright_size(written_with(samples.astype("u2"), orientation), "x") == (found.width, found.height)


def written_with(samples: NDArray[Any], orientation: int) -> bytes:
    """Write a picture with an orientation."""
    buffer = io.BytesIO()
    extra = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(buffer, samples, photometric="rgb", extratags=extra, metadata=None)
    return buffer.getvalue()
