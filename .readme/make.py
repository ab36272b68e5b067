"""Make the README's pictures from public-domain photographs: `make pictures`.

`answer.jpg`: a collage of scikit-image's chelsea and coffee (both CC0), is asked with a box on the cat and with a
box on the cup; `factors.jpg` shows the factors of scikit-image's astronaut (NASA, public domain), `common.jpg` what it
shares with scikit-image's rocket (SpaceX, public domain). The page's pictures are made by the tests that drive it.
"""

import tempfile
from pathlib import Path

import skimage.data
from PIL import Image, ImageOps

from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.service.drawing.explanation import draw_comparison, draw_explanation
from whatwhere.service.local.files import compare_files, explain_file
from whatwhere.service.local.search import Question, ask

FOLDER = Path(__file__).parent
PACKAGED = Path(skimage.data.__file__).parent
COLLECTION = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
CAT, CUP = "0.04,0.04,0.48,0.97", "0.53,0.04,0.95,0.93"


def main() -> None:
    """Write the pictures beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        answers(Path(folder)).save(FOLDER / "answer.jpg", quality=82)
    factors().save(FOLDER / "factors.jpg", quality=85)
    common().save(FOLDER / "common.jpg", quality=85)


def answers(folder: Path) -> Image.Image:
    """Ask one picture twice, with two boxes, and stack the answers."""
    collage = Image.new("RGB", (1000, 400), "white")
    cat, cup = (Image.open(PACKAGED / name).convert("RGB") for name in ("chelsea.png", "coffee.png"))
    collage.paste(ImageOps.mirror(ImageOps.fit(cat, (500, 400))), (0, 0))
    collage.paste(ImageOps.fit(cup, (500, 400)), (500, 0))
    collage.save(folder / "two_things.png")
    index_paths([PACKAGED / name for name in COLLECTION], folder / "collection")
    sheets = []
    for number, region in enumerate((CAT, CUP)):
        picture = folder / f"{number}.png"
        options = {"page_size": 3, "localize_count": 1}
        ask(Question(str(folder / "two_things.png"), [region], picture=picture, options=options), folder / "collection")
        sheets.append(Image.open(picture).convert("RGB"))
    stacked = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)), "white")
    for number, sheet in enumerate(sheets):
        stacked.paste(sheet, (0, number * sheet.height))
    return stacked


def factors() -> Image.Image:
    """Show what a photograph consists of, as two factors and as four."""
    explained = explain_file(PACKAGED / "astronaut.png", (2, 4))
    return draw_explanation(explained.photograph, explained.by_rank)


def common() -> Image.Image:
    """Show what two photographs have in common."""
    compared = compare_files([PACKAGED / "astronaut.png", PACKAGED / "rocket.jpg"])
    return draw_comparison(compared.photographs, compared.factors)


if __name__ == "__main__":
    main()
