"""Find out which files hold metadata of which images, by their names alone.

| file | image | written by |
|---|---|---|
| photo.jpg.json | photo.jpg | people and scripts; Google Takeout |
| photo.jpg.supplemental-metadata.json, and each of its shorter spellings | photo.jpg | Google Takeout since 2024 |
| photo.jpg(1).json, photo.jpg.supplemental-metadata(1).json | photo(1).jpg | Google Takeout |
| photo.jpg.json | photo-edited.jpg, if it has none of its own | Google Takeout |
| photo.jpg.xmp | photo.jpg | darktable, digiKam |
| photo.xmp | photo.jpg, photo.heic, ... | Lightroom |

Takeout cuts names at 46 characters without .json: `a-long-name.jpg.supplem.json`, and within the image's own name.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from os.path import splitext

JSON, XMP = ".json", ".xmp"
_SUPPLEMENT = ".supplemental-metadata"
_TAKEOUT_LENGTH = 46  # characters of a name before .json, at most
_EDITED = "-edited"
_NUMBER = re.compile(r"\(\d+\)$", re.ASCII)


def possible_sidecars(image: str) -> tuple[str, ...]:
    """Return the names that a sidecar of an image can have, for an image of which the folder is not listed."""
    stem, suffix = splitext(image)
    title, number = _without_number(image)
    names = [image + JSON, image + XMP, stem + XMP]
    for full in (title, title + _SUPPLEMENT):
        names += [full + number + JSON, full[:_TAKEOUT_LENGTH] + number + JSON]
        names.append(full[: _TAKEOUT_LENGTH - len(number)] + number + JSON)
    if stem.endswith(_EDITED):
        names.append(stem.removesuffix(_EDITED) + suffix + JSON)
    return tuple(dict.fromkeys(names))


def sidecars_of(images: Sequence[str], others: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the sidecars, by name and sorted, of those images of a folder that have some.

    `images` and `others` are the names of all files of the folder. The time grows with their number, not faster.
    """
    found: dict[str, list[str]] = defaultdict(list)
    folder = _Folder(images)
    for name in others:
        base, suffix = splitext(name)
        if suffix.lower() == JSON:
            image = folder.image_of_json(base)
            if image is not None:
                found[image].append(name)
        elif suffix.lower() == XMP:
            for image in folder.images_of_xmp(base):
                found[image].append(name)
    if any(map(_is_json, (name for names in found.values() for name in names))):
        for image in images:
            stem, suffix = splitext(image)
            if stem.endswith(_EDITED) and image not in found:
                original = found.get(stem.removesuffix(_EDITED) + suffix, [])
                if shared := [name for name in original if _is_json(name)]:
                    found[image] = shared
    return {image: tuple(sorted(names)) for image, names in found.items()}


def _is_json(name: str) -> bool:
    return name.lower().endswith(JSON)


def _without_number(image: str) -> tuple[str, str]:
    """Split the number of a copy from an image's name: ("photo.jpg", "(1)") for photo(1).jpg."""
    stem, suffix = splitext(image)
    match = _NUMBER.search(stem)
    return (image, "") if match is None else (stem[: match.start()] + suffix, match[0])


class _Folder:
    """The images of a folder, to be looked up by the names of their sidecars."""

    def __init__(self, images: Collection[str]) -> None:
        self._images = set(images)
        self._sorted: list[str] | None = None
        self._by_stem: dict[str, list[str]] | None = None

    def image_of_json(self, base: str) -> str | None:
        """Return the image of `base`.json, None without one."""
        if base in self._images:
            return base
        match = _NUMBER.search(base)
        number = "" if match is None else match[0]
        base = base.removesuffix(number)
        named = [base]
        title, dot, rest = base.rpartition(".")
        if dot and _SUPPLEMENT.startswith(dot + rest):
            named.append(title)
        for title in named:
            stem, suffix = splitext(title)
            if stem + number + suffix in self._images:
                return stem + number + suffix
        if len(base) in (_TAKEOUT_LENGTH, _TAKEOUT_LENGTH - len(number)):
            return self._cut(base, number)
        return None

    def _cut(self, base: str, number: str) -> str | None:
        """Return the one image whose name Takeout cut to `base`, or cut less or elsewhere than `base`."""
        if self._sorted is None:
            self._sorted = sorted(self._images)
        at = bisect_left(self._sorted, base)
        longer = [name for name in self._sorted[at : at + 2] if name.startswith(base)]
        if len(longer) == 1 and not number:
            return longer[0]
        # Takeout cuts the image's name before its extension, where the sidecar has more of the title instead.
        stems = {splitext(name)[1] for name in self._near(base)}
        for length in range(len(base), _TAKEOUT_LENGTH - 8, -1):
            for suffix in sorted(stems):
                if base[:length] + number + suffix in self._images:
                    return base[:length] + number + suffix
        return None

    def _near(self, base: str) -> Iterable[str]:
        """Yield a few images whose names begin as `base` does."""
        assert self._sorted is not None
        start = base[: _TAKEOUT_LENGTH - 8]
        at = bisect_left(self._sorted, start)
        return (name for name in self._sorted[at : at + 100] if name.startswith(start))

    def images_of_xmp(self, base: str) -> Sequence[str]:
        """Return the images of `base`.xmp: that of this name, else all of this stem."""
        if base in self._images:
            return (base,)
        if self._by_stem is None:
            self._by_stem = defaultdict(list)
            for name in sorted(self._images):
                self._by_stem[splitext(name)[0]].append(name)
        return self._by_stem.get(base, ())
