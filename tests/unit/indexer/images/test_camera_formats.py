"""HEIC, AVIF, JPEG XL, JPEG 2000, MPO and camera files become the photograph, upright, whatever the file is called."""

import subprocess
import sys
import threading
from pathlib import Path

import imagecodecs
import numpy as np
import pi_heif
import pytest
from PIL import AvifImagePlugin, Image

from tests import camera_formats as made
from whatwhere.indexer.errors import ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.decode import DecodedImage, decode_image, decode_within, upright_size
from whatwhere.indexer.images.exif import exif
from whatwhere.indexer.images.limits import ImageLimits

CASES = Path(__file__).parents[5] / "shared" / "cases" / "images"
Rotate = Image.Transpose
PHOTOGRAPH = made.photograph((640, 480))
EVERYTHING = {
    "taken_time": made.TAKEN,
    "camera_make": made.MAKE,
    "camera_model": made.MODEL,
    "latitude": made.LATITUDE,
    "longitude": made.LONGITUDE,
}
# How a picture is stored so that an orientation makes it upright.
STORED = {3: Rotate.ROTATE_180, 5: Rotate.TRANSPOSE, 6: Rotate.ROTATE_90, 8: Rotate.ROTATE_270}


def decoded(content: bytes) -> DecodedImage:
    return decode_image(content, "picture", shorter_side=None)


@pytest.mark.parametrize("name", made.one_of_each())
def test_each_format_gives_the_photograph(name: str) -> None:
    """Size, pixels and media type, by the content alone: the file has no name here."""
    content, mime_type = made.one_of_each()[name]

    image = decoded(content)

    assert made.difference(image.pixels) < 4
    assert (image.height, image.width) == image.pixels.shape[:2]
    assert upright_size(content, name) == (image.width, image.height)
    assert image.mime_type == mime_type


@pytest.mark.skipif(not CASES.is_dir(), reason="the sample pictures are not here")
@pytest.mark.parametrize(
    "name",
    [
        "photo.heic",
        "heic_irot.heic",
        "photo.avif",
        "photo.jxl",
        "photo.jp2",
        "jpeg_named_heic.heic",
        "jpeg_noextension",
    ],
)
def test_samples_of_other_encoders_give_the_photograph(name: str) -> None:
    """Pictures of known content, 320 x 240."""
    image = decoded((CASES / name).read_bytes())

    assert (image.width, image.height) == (320, 240)
    assert made.difference(image.pixels) < 6


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_the_orientation_is_applied_once(orientation: int) -> None:
    """AVIF's `irot` and `imir`, EXIF of JP2 and MPO, and that of a camera file, for its preview and without."""
    stored = PHOTOGRAPH.transpose(STORED[orientation])
    files = {
        "avif": made.avif(stored, exif=made.exif(orientation)),
        "jp2": made.jpeg2000(stored, made.tiff_exif(orientation)),
        "mpo": made.mpo(stored, exif=made.exif(orientation)),
    }
    if orientation != 5:  # cameras mirror nothing
        files["preview"] = made.dng(stored, preview=stored, orientation=orientation)
        files["developed"] = made.dng(stored, orientation=orientation)

    for name, content in files.items():
        image = decoded(content)
        assert made.difference(image.pixels) < (12 if name == "developed" else 4), name
        assert upright_size(content, name) == (image.width, image.height)


@pytest.mark.parametrize("name", ["turned", "mirrored", "ten_bits", "hdr"])
def test_heic_is_upright_and_has_8_bits(name: str) -> None:
    """The container's own turning counts, once; 10 bits and PQ become what an ordinary screen shows."""
    content = made.heic(name)

    assert made.difference(decoded(content).pixels) < 5
    assert upright_size(content, name) == (96, 72)


def test_the_exif_orientation_of_heic_is_ignored() -> None:
    """The standard demands it: files that are turned say so in the container."""
    upside_down = made.photograph().transpose(Rotate.ROTATE_180)

    assert made.difference(decoded(made.heic("ignored")).pixels, upside_down) < 4


def test_the_orientation_in_the_header_of_jpeg_xl_is_applied() -> None:
    """Libjxl turns: a JPEG that was stored turned keeps its orientation in the codestream."""
    jpeg = made.saved(PHOTOGRAPH.transpose(STORED[6]), "JPEG", quality=92, exif=made.exif(6))
    content = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg))

    assert made.difference(decoded(content).pixels) < 4
    assert upright_size(content, "x") == (640, 480)
    assert exif(content, gps=True) == EVERYTHING


def test_exif_is_read_from_every_format() -> None:
    """Time, camera and position; a compressed box of JPEG XL, too."""
    codestream, block = made.jpegxl(made.photograph()), made.tiff_exif()
    files = {
        "heic": made.heic(),
        "avif": made.avif(PHOTOGRAPH, exif=made.exif(6)),
        "jp2": made.jpeg2000(PHOTOGRAPH, block),
        "mpo": made.mpo(PHOTOGRAPH, exif=made.exif()),
        "jxl": made.jpegxl_container(codestream, block),
        "compressed jxl": made.jpegxl_container(codestream, block, compressed=True),
    }

    assert {name: exif(content, gps=True) for name, content in files.items()} == dict.fromkeys(files, EVERYTHING)
    assert exif(made.jpegxl(PHOTOGRAPH), gps=True) == {}
    too_large = made.jpegxl_container(codestream, bytes(8 << 20), compressed=True)
    assert (exif(too_large), made.difference(decoded(too_large).pixels) < 4) == ({}, True)


def test_the_exif_of_camera_files_is_read() -> None:
    """Those that are a TIFF, with the makers' own numbers, Fuji's JPEG and Canon's boxes."""
    block = made.tiff_exif()
    inner, position = made.exif().get_ifd(0x8769), made.exif().get_ifd(0x8825)
    parts = [Image.Exif(), Image.Exif()]
    parts[0].update(inner)
    parts[1].update(position)
    taken, gps = (part.tobytes().removeprefix(b"Exif\0\0") for part in parts)
    canon = bytes(16) + made.box(b"CMT1", block) + made.box(b"CMT2", taken) + made.box(b"CMT4", gps)
    jpeg = made.saved(made.photograph(), "JPEG", exif=made.exif())
    big_endian = block.startswith(b"MM")
    files = {
        "orf": (b"MMOR" if big_endian else b"IIRO") + block[4:],
        "raf": b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + (100).to_bytes(4, "big") + bytes(12) + jpeg,
        "cr3": made.box(b"ftyp", b"crx \0\0\0\1crx isom") + made.box(b"moov", made.box(b"uuid", canon)),
    }

    assert {name: exif(content, gps=True) for name, content in files.items()} == dict.fromkeys(files, EVERYTHING)
    assert exif(made.dng(PHOTOGRAPH)) == {"camera_make": made.MAKE, "camera_model": made.MODEL}


@pytest.mark.parametrize("kind", ["heic", "avif", "jxl", "jxl gray", "jp2"])
def test_transparency_is_composited_over_white(kind: str) -> None:
    """The left half is transparent, the right half is the photograph."""
    picture = made.photograph()
    alpha = np.full((72, 96), 255, np.uint8)
    alpha[:, :48] = 0
    if kind == "jxl gray":
        picture = picture.convert("L")
    transparent = picture.copy()
    transparent.putalpha(Image.fromarray(alpha))
    files = {
        "heic": lambda: made.heic("alpha"),
        "avif": lambda: made.avif(transparent),
        "jxl": lambda: made.jpegxl(transparent),
        "jxl gray": lambda: made.jpegxl(transparent),
        "jp2": lambda: made.jpeg2000(transparent),
    }

    pixels = decoded(files[kind]()).pixels

    assert pixels[:, :40].min() > 240
    assert made.difference(pixels[:, 56:], picture.crop((56, 0, 96, 72))) < 6


def test_samples_of_more_bits_become_8() -> None:
    """10, 12 and 16 bits and floating point in JPEG XL, 16 bits in JPEG 2000."""
    levels = np.asarray(PHOTOGRAPH) / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    files = {
        f"jxl {bits}": made.jpegxl(
            np.rint(levels * (2**bits - 1)).astype(np.uint16), lossless=True, effort=1, bitspersample=bits
        )
        for bits in (10, 12, 16)
    }
    files["jxl float"] = made.jpegxl(light.astype(np.float32), lossless=True, effort=1)
    files["jp2 16"] = bytes(imagecodecs.jpeg2k_encode(np.rint(levels * 65_535).astype(np.uint16), level=0))

    for name, content in files.items():
        assert made.difference(decoded(content).pixels) < 1, name


@pytest.mark.parametrize(("primaries", "transfer", "tolerance"), [(12, 13, 2.5), (9, 16, 5), (9, 18, 16), (1, 13, 2.5)])
def test_colors_named_by_code_points_become_srgb(primaries: int, transfer: int, tolerance: float) -> None:
    """Display P3; BT.2020 with PQ and with HLG. Encoded by the formulas of the standards."""
    # RGB of BT.709 to that of P3 and BT.2020: the inverse matrices, as ITU-R BT.2087 and Apple print them.
    matrices = {
        1: np.eye(3),
        12: np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]]),
        9: np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]),
    }
    levels = np.asarray(PHOTOGRAPH) / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) @ matrices[primaries].T
    if transfer == 16:
        power = (light * 203 / 10_000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    elif transfer == 18:
        scene = (light * 203 / 1_000) ** (1 / 1.2)
        signal = np.where(
            scene <= 1 / 12,
            (3 * scene) ** 0.5,
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    else:
        signal = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    stored = np.rint(signal.clip(0, 1) * 1_023).astype(np.uint16)
    if imagecodecs.__version__ < "2026":
        pytest.skip("this imagecodecs writes no code points")
    content = imagecodecs.avif_encode(
        stored, level=95, speed=9, bitspersample=10, primaries=primaries, transfer=transfer, matrix=6, numthreads=1
    )

    assert made.difference(decoded(bytes(content)).pixels) < tolerance


@pytest.mark.parametrize("size", [(640, 480), (637, 479), (1280, 960), (1277, 957)])
def test_jpeg_2000_is_decoded_at_a_reduced_resolution(size: tuple[int, int]) -> None:
    """Sides of every rest by powers of two; the result is near that of the full decoding."""
    content = made.jpeg2000(made.photograph(size))

    for longer_side in (640, 160, 24):
        reduced = decode_within(content, "x", longer_side)
        assert made.difference(reduced.pixels) < 8, (size, longer_side)
        assert (reduced.width, reduced.height) == size


def test_a_preview_that_is_too_small_is_not_taken() -> None:
    """Then the sensor's values are developed, at half the size; a damaged preview is no fault either."""
    small = made.dng(PHOTOGRAPH, preview=PHOTOGRAPH.resize((160, 120)))
    whole = made.dng(PHOTOGRAPH, preview=PHOTOGRAPH)
    start = whole.index(b"\xff\xd8\xff")
    damaged = whole[: start + 2] + bytes(300) + whole[start + 302 :]

    for content in (small, damaged):
        image = decoded(content)
        assert (image.width, image.height, image.mime_type) == (320, 240, "image/x-adobe-dng")
        assert made.difference(image.pixels) < 12


def test_a_preview_that_is_upright_already_is_not_turned() -> None:
    """Its shape tells: that of the picture, and not that of the sensor."""
    stored = PHOTOGRAPH.transpose(STORED[6])

    assert made.difference(decoded(made.dng(stored, preview=PHOTOGRAPH, orientation=6)).pixels) < 4


def test_a_camera_file_is_recognized_by_its_sensor() -> None:
    """Not by its maker: a scan of Nikon's software is a TIFF. A file that LibRaw cannot read is refused by its kind."""
    scan = made.saved(PHOTOGRAPH, "TIFF", tiffinfo={271: "NIKON", 272: "COOLSCAN"})
    camera = made.dng(PHOTOGRAPH, make="NIKON CORPORATION")

    assert decoded(scan).mime_type == "image/tiff"
    assert decoded(camera).mime_type == "image/x-nikon-nef"
    with pytest.raises(UnreadableImage, match=r"camera file \(ORF\) that LibRaw [\d.]+ cannot read"):
        decoded(b"IIRO" + bytes(1_000))


def test_the_type_of_an_item_that_is_no_text_does_not_crash_pi_heif() -> None:
    """A file that ended the process: pi_heif makes a string of these bytes and does not look whether it could."""
    for damage in (b"E\xff\xff\xff", b"\0xif"):
        with pytest.raises(UnreadableImage, match="HEIC with a damaged header"):
            decoded(made.heic().replace(b"Exif", damage, 1))


FILES = {
    **{name: content for name, (content, _) in made.one_of_each().items() if name != "photo.mpo"},
    "developed.dng": made.dng(PHOTOGRAPH),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_cut_off_is_refused_by_name(name: str) -> None:
    """Wherever the file ends, the error names the format, or the picture is whole."""
    content, whole = FILES[name], decoded(FILES[name])
    for share in (0.02, 0.1, 0.5, 0.9, 0.99):
        try:
            pixels = decoded(content[: int(len(content) * share)]).pixels
        except UnreadableImage as error:
            assert str(error).startswith("picture: "), error  # noqa: PT017 - the file's name
        else:
            assert name == "photo.dng", share  # its preview comes first
            assert np.array_equal(pixels, whole.pixels)


@pytest.mark.parametrize("name", FILES)
def test_the_limit_is_applied_before_pixels_are_decoded(name: str) -> None:
    """A camera file without a preview counts with its sensor's size."""
    content = FILES[name]
    width, height = upright_size(content, name)
    pixels = 640 * 480 if name == "developed.dng" else width * height

    with pytest.raises(ImageTooManyPixels, match=name):
        decode_image(content, name, limits=ImageLimits(max_pixels=pixels - 1))
    decode_image(content, name, limits=ImageLimits(max_pixels=pixels))


def test_the_number_of_threads_is_one_and_that_of_the_program_is_left() -> None:
    """Pools of threads are those of the caller: a decoder adds none that stays."""
    before = pi_heif.options.DECODE_THREADS, AvifImagePlugin.DEFAULT_MAX_THREADS
    tasks = Path("/proc/self/task")
    count = len([*tasks.iterdir()]) if tasks.exists() else 0
    for name, (content, _) in made.one_of_each().items():
        decode_image(content, name)

    assert before == (pi_heif.options.DECODE_THREADS, AvifImagePlugin.DEFAULT_MAX_THREADS)
    assert not tasks.exists() or len([*tasks.iterdir()]) <= count


def test_threads_decode_the_same() -> None:
    """Eight at once get what one gets."""
    contents = [content for content, _ in made.one_of_each().values()]
    expected = [decoded(content).pixels for content in contents]
    wrong: list[int] = []

    def decode_all(start: int) -> None:
        for step in range(len(contents)):
            number = (start + step) % len(contents)
            if not np.array_equal(decoded(contents[number]).pixels, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=decode_all, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_without_the_extra_the_error_names_the_format_and_the_remedy(tmp_path: Path) -> None:
    """Each library is imported where it is needed: AVIF needs none of them."""
    names = ("photo.heic", "photo.jxl", "photo.dng", "photo.avif")
    for name in names:
        (tmp_path / name).write_bytes(made.one_of_each()[name][0])
    for library in ("imagecodecs", "pi_heif", "rawpy", "tifffile"):
        (tmp_path / f"{library}.py").write_text("raise ImportError")  # found first: a child has the same path
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == [
        "x: HEIC needs pi-heif: pip install 'whatwhere[formats]'",
        "x: JPEG XL needs imagecodecs: pip install 'whatwhere[formats]'",
        "x: camera file (DNG) needs rawpy: pip install 'whatwhere[formats]'",
        "image/avif",
    ]


WITHOUT_THE_EXTRA = """
import sys
from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.decode import decode_image
for path in sys.argv[1:]:
    try:
        print(decode_image(open(path, "rb").read(), "x").mime_type)
    except UnreadableImage as error:
        print(error)
"""
