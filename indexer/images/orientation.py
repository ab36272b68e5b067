"""Turn pictures upright."""

from PIL import Image

# EXIF orientation → the transpose that makes the image upright. Not ImageOps.exif_transpose: it also rewrites the EXIF
# block, and fails on corrupt blocks of intact images.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING = {TRANSPOSES[number] for number in (5, 6, 7, 8)}
