"""Make the README's pictures from public-domain photographs: `make pictures`.

`answer.jpg`: a collage of scikit-image's chelsea and coffee (both CC0), is asked with a box on the cat and with a
box on the cup; `factors.jpg` colours the factors of scikit-image's astronaut (NASA, public domain).
"""

import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageOps

from indexer.backbones import DEFAULT_BACKBONE, choose_device, load_backbone
from indexer.describe import Describer
from indexer.images import decode_image
from indexer.pipeline import index_paths
from service.asking import Question, ask

FOLDER = Path(__file__).parent
PACKAGED = Path(skimage.data.__file__).parent
COLLECTION = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
CAT, CUP = "0.04,0.04,0.48,0.97", "0.53,0.04,0.95,0.93"
# Okabe and Ito's colours, told apart by people who see colours differently; one for each factor, strongest first
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442")
GAP = 12


def main() -> None:
    """Write both pictures beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        answers(Path(folder)).save(FOLDER / "answer.jpg", quality=82)
    factors().save(FOLDER / "factors.jpg", quality=85)


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
        ask(Question(str(folder / "two_things.png"), region, picture, options), folder / "collection")
        sheets.append(Image.open(picture).convert("RGB"))
    stacked = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)), "white")
    for number, sheet in enumerate(sheets):
        stacked.paste(sheet, (0, number * sheet.height))
    return stacked


def factors() -> Image.Image:
    """Show a photograph, then each of its four factors' heatmaps in a colour of its own."""
    content = (PACKAGED / "astronaut.png").read_bytes()
    describer = Describer(load_backbone(DEFAULT_BACKBONE, choose_device("cpu")), rank=len(COLOURS))
    stored = describer.describe([decode_image(content, "astronaut").pixels])[0].factors
    maps = stored.restore().where.T.reshape(-1, stored.height, stored.width).numpy()
    photograph = Image.open(PACKAGED / "astronaut.png").convert("RGB").resize((250, 250))
    panels = [photograph, *(coloured(photograph, heat, colour) for heat, colour in zip(maps, COLOURS, strict=True))]
    sheet = Image.new("RGB", (len(panels) * (250 + GAP) - GAP, 250), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number * (250 + GAP), 0))
    return sheet


def coloured(photograph: Image.Image, heat: np.ndarray, colour: str) -> Image.Image:
    """Blend a colour into a grey photograph where a heatmap, scaled to maximum 1, is strong."""
    smooth = Image.fromarray(heat / heat.max()).resize(photograph.size, Image.Resampling.BILINEAR)
    mask = Image.fromarray((np.asarray(smooth).clip(0, 1) * 200).astype(np.uint8))
    grey = ImageOps.grayscale(photograph).convert("RGB")
    return Image.composite(Image.new("RGB", photograph.size, colour), grey, mask)


if __name__ == "__main__":
    main()
