"""Measure how long a 12-megapixel photograph of each format takes to decode: `python -m tests.measure_formats`.

Each row is the median of `--times` decodings, one at a time, whole and at the network's size, which formats with a
reduced decoding need less for. They are measured in turns; compare ratios, not times. `--compare EARLIER` prints the
ratios of an earlier run, which `--json` wrote.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from tests import camera_formats as made
from whatwhere.indexer.images.decode import decode_image

SIZE = (4160, 3120)  # 13 x 13 tiles of the HEIC
QUALITY = 88


def files() -> dict[str, bytes]:
    """Return the photograph in each format, with a little noise: a camera's pictures are not smooth."""
    smooth = np.asarray(made.photograph(SIZE)).astype(int)
    noise = np.random.default_rng(1).integers(-6, 7, smooth.shape)
    picture = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    jpeg = made.saved(picture, "JPEG", quality=QUALITY)
    return {
        "JPEG": jpeg,
        "PNG": made.saved(picture, "PNG", compress_level=1),
        "WebP": made.saved(picture, "WEBP", quality=QUALITY, method=0),
        "TIFF, uncompressed": made.saved(picture, "TIFF"),
        "TIFF, LZW": made.saved(picture, "TIFF", compression="tiff_lzw"),
        "HEIC, 169 tiles": made.heic_grid(13, 13),
        "AVIF": made.saved(picture, "AVIF", quality=70, speed=10, max_threads=1),
        "JPEG XL": bytes(imagecodecs.jpegxl_encode(np.asarray(picture), distance=1.5, effort=3, numthreads=1)),
        "JPEG XL, of a JPEG": bytes(imagecodecs.jpegxl_encode_jpeg(jpeg)),
        "JPEG 2000": made.saved(picture, "JPEG2000", quality_mode="rates", quality_layers=[12]),
        "DNG with a preview": made.dng(picture, preview=picture),
        "DNG without one": made.dng(picture),
    }


def measure(contents: dict[str, bytes], times: int) -> dict[str, tuple[float, float, float]]:
    """Return seconds at full size, seconds at the network's size, and MB of each file."""
    ways: Sequence[Callable[[bytes], object]] = (
        lambda content: decode_image(content, "x", shorter_side=None),
        lambda content: decode_image(content, "x"),
    )
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in contents}
    for content in contents.values():
        ways[0](content)  # imports
    for _ in range(times):
        for name, content in contents.items():
            for way, seconds in zip(ways, taken[name], strict=True):
                started = time.perf_counter()
                way(content)
                seconds.append(time.perf_counter() - started)
    return {
        name: (statistics.median(whole), statistics.median(small), _megabytes(name, contents[name]))
        for name, (whole, small) in taken.items()
    }


def _megabytes(name: str, content: bytes) -> float:
    return (len(made.heic()) * 169 if "tiles" in name else len(content)) / 1e6  # all tiles have the same bytes


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.measure_formats", description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--compare", type=Path, help="print the ratios of this earlier run, too")
    options = parser.parse_args()
    rows = measure(files(), options.times)
    earlier = json.loads(options.compare.read_text()) if options.compare and options.compare.exists() else {}
    print(f"{SIZE[0]} x {SIZE[1]} pixels, one thread, median of {options.times}")
    print(f"{'':20} {'MB':>6} {'whole, s':>9} {'scaled, s':>9} {'MB/s':>6} {'/ JPEG':>6} {'earlier':>7}")
    for name, (whole, small, megabytes) in rows.items():
        before = f"{earlier[name][1] / earlier['JPEG'][1]:7.1f}" if name in earlier else ""
        ratio = small / rows["JPEG"][1]
        print(f"{name:20} {megabytes:6.1f} {whole:9.2f} {small:9.2f} {megabytes / small:6.1f} {ratio:6.1f} {before}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
