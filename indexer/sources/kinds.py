"""Name files that are not indexed: their kind, for counting, and the reason, for people."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

_MAX_KIND = 12  # characters of an extension that counts as a kind
_MAX_KINDS = 100  # in a summary
_SHOWN = 10  # kinds in a sentence
_COUNTED = ("file", "folder", "placeholder")  # words at the end of kinds that have a plural
_WITHOUT = "without extension"
_OTHER = "other"


class Skip(NamedTuple):
    """Why a file or folder was passed over. `by_rule`: it was left out by its name or place, whatever its content."""

    kind: str
    reason: str
    by_rule: bool = False


_VIDEO = ".mp4 .mov .m4v .avi .mkv .webm .wmv .mpg .mpeg .mts .m2ts .3gp .3g2 .flv .ogv .vob .lrv .insv"
_SOUND = ".mp3 .m4a .wav .flac .ogg .aac .wma .aif .aiff .opus .amr"
_METADATA = ".json .xmp"
_EDITS = ".aae .pp3 .dop .cos .cop .cot .on1 .lrcat"
_LISTS = ".txt .lst .csv .tsv .jsonl .ndjson .parquet"
_ARCHIVES = ".zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .iso .dmg"
_PROJECTS = ".psd .psb .xcf .kra .afphoto .ai .eps .ps .svg .svgz .cdr .blend"
_DOCUMENTS = ".pdf .doc .docx .xls .xlsx .ppt .pptx .odt .ods .odp .rtf .md .htm .html .epub .pages .numbers .key .xml"
_INCOMPLETE = ".part .partial .crdownload .download .tmp .temp"
_PROGRAMS = (
    ".db .ini .log .lnk .url .exe .dll .so .dylib .bat .sh .py .js .css .h .c .cpp .java .sqlite .db-wal .db-shm .yaml "
    ".yml .toml .cfg .conf .npy .npz .pt .pth .safetensors .faiss .bin .ttf .otf .srt .vtt .thm .ics .vcf .eml"
)
# What the extension says is enough: the first bytes of these files are not read.
_KNOWN = {
    suffix: Skip(suffix, reason)
    for suffixes, reason in (
        (_VIDEO, "a video"),
        (_SOUND, "a sound recording"),
        (_METADATA, "metadata of no image: no image of its name is in this folder"),
        (_EDITS, "another program's edits or library, which are not read"),
        (_LISTS, "a list or a table: give it by name to index the images in it, or with --metadata"),
        (_ARCHIVES, "an archive: unpack it first"),
        (_PROJECTS, "a drawing or a project of a graphics program: export it as an image"),
        (_DOCUMENTS, "a document"),
        (_INCOMPLETE, "a temporary file or an incomplete download"),
        (_PROGRAMS, "not an image"),
    )
    for suffix in suffixes.split()
}


def suffix_of_name(name: str) -> str:
    """Return the extension of a file's name in lower case, with its dot, "" without one."""
    return os.path.splitext(name)[1].lower()


def known_skip(suffix: str) -> Skip | None:
    """Return why files of this extension (lower case, with a dot) are never images, None if their bytes decide."""
    return _KNOWN.get(suffix)


def skip_of_content(suffix: str) -> Skip:
    """Return the reason of a file whose first bytes are those of no image."""
    return _unknown(suffix, "its first bytes are those of no image format that is read")


def skip_of_listing(suffix: str) -> Skip:
    """Return the reason of a file in an object store, of which only the name is known."""
    return known_skip(suffix) or _unknown(suffix, "its extension is that of no image: give its URI to index it")


def skip_of_special(suffix: str) -> Skip:
    """Return the reason of a pipe, a socket or a device."""
    return _unknown(suffix, "not a regular file")


def skip_of_error(suffix: str, error: OSError) -> Skip:
    """Return the reason of a file whose first bytes cannot be read."""
    return _unknown(suffix, f"its first bytes cannot be read: {error.strerror}")


def _unknown(suffix: str, reason: str) -> Skip:
    letters = suffix[1:].replace("-", "")
    # Numbers and long texts are no extensions: there would be as many kinds as files.
    counts = len(suffix) <= _MAX_KIND and letters.isalnum() and not letters.isdigit()
    return _shared(_WITHOUT if not suffix else suffix if counts else _OTHER, reason)


@lru_cache(maxsize=1024)
def _shared(kind: str, reason: str) -> Skip:
    """Return one object for each kind and reason: a million files share them."""
    return Skip(kind, reason)


def count_kinds(skipped: Iterable[Skip]) -> dict[str, int]:
    """Return the number of each kind, the most frequent first; those beyond the first 100 kinds count as "other"."""
    counts = Counter(why.kind for why in skipped)
    kept = Counter(dict(counts.most_common(_MAX_KINDS)))
    if len(counts) > len(kept):
        kept[_OTHER] += counts.total() - kept.total()
    return dict(kept.most_common())


def described(kinds: Mapping[str, int]) -> str:
    """Write numbers of kinds for people: "3 .dng, 2 .mp4, 1 hidden folder"; the first ten kinds, the rest as one."""
    listed = list(kinds.items())
    parts = [
        f"{count:,} {kind}{'s' if count > 1 and kind.endswith(_COUNTED) else ''}" for kind, count in listed[:_SHOWN]
    ]
    if rest := sum(count for _, count in listed[_SHOWN:]):
        parts.append(f"{rest:,} of other kinds")
    return ", ".join(parts)
