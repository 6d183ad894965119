"""A person's own notes on a LoRA, beside its file: trigger words, a weight, a text; and its thumbnail.

The notes are ``NAME.json`` in the field's common form, so that other programs read them too, and what others wrote there
stays. Beside files that are not ours nothing is written: those notes lie in a folder of our own, and count first. What the
Civitai helpers of other programs left (``NAME.civitai.info``) is read.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import InvalidRequest
from engine.catalog import Weights
from engine.lora_facts import MAX_NAME, MAX_TEXT, clean_words, header_thumbnail, plain, split_words
from jobs import StorageFailed
from jobs.files import write_whole

WORDS, WEIGHT, NOTES = "activation text", "preferred weight", "notes"
"""The common names of the fields in ``NAME.json``."""
MAX_SIDECAR = 4 * 2**20
"""Longest file of notes in bytes."""
SIDE = 256
"""Longest side of a thumbnail in pixels."""
OWN_THUMBNAIL = ".preview.webp"
"""Ending of the thumbnails that are chosen on the page."""
_THUMBNAILS = (
    OWN_THUMBNAIL,
    *(
        f"{middle}{end}"
        for middle in (".preview", "")
        for end in (".png", ".jpg", ".jpeg", ".webp")
    ),
)
"""Endings of the pictures that may lie beside a file, the first one that is there counts."""
_MAX_PICTURE = 50 * 2**20
_MAX_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What a person noted."""

    words: tuple[str, ...] = ()
    """Trigger words."""
    weight: float | None = None
    """The weight that a row starts from."""
    text: str = ""
    title: str = ""
    """What the site that it comes from calls it; not to be changed here."""


class NotesFolder:
    """The notes of all LoRAs. Safe to use from any thread: files are written whole."""

    def __init__(self, own: Path, aside: Path) -> None:
        """Keep notes.

        Args:
            own: Folder of LoRAs that may be written to.
            aside: Where notes on all other LoRAs go; made when it is needed.
        """
        self._own = own
        self._aside = aside

    def read(self, item: Weights) -> Notes:
        """Read the notes on a LoRA; where nobody noted words or a weight, what its download says."""
        written = next(filter(None, map(_read_object, self._places(item))), {})
        told = _read_object(_beside(item, ".civitai.info")) or {}
        model = told.get("model")
        return Notes(
            words=_words(written.get(WORDS)) or _listed(told.get("trainedWords")),
            weight=_weight(written.get(WEIGHT)),
            text=_text(written.get(NOTES)),
            title=plain(model.get("name"), MAX_NAME) if isinstance(model, dict) else "",
        )

    def write(self, item: Weights, notes: Notes) -> None:
        """Write notes; other fields of the file stay.

        Raises:
            StorageFailed: neither beside the LoRA nor in our own folder can be written.
        """
        fields = {WORDS: ", ".join(notes.words), WEIGHT: notes.weight or 0, NOTES: notes.text}
        places = self._places(item)
        aside, *beside = places
        is_kept_aside = aside.exists() or not self._is_ours(item)
        for place in [aside] if is_kept_aside else [*beside, aside]:
            before = _read_object(place)
            if before is None and place.exists() and place != aside:
                continue  # somebody else's, of another form
            data = json.dumps({**(before or {}), **fields}, indent=2, ensure_ascii=False)
            if _written(place, data.encode()):
                return
        raise StorageFailed("notes: no folder for them can be written")

    def thumbnail_of(self, item: Weights) -> Path | None:
        """Find the picture that lies beside a LoRA, or that was chosen for it; None where there is none."""
        places = [self._aside_of(item, OWN_THUMBNAIL)]
        places += [_beside(item, ending) for ending in _THUMBNAILS]
        return next((place for place in places if place.is_file()), None)

    def choose_thumbnail(self, item: Weights, picture: Path) -> None:
        """Make a picture the thumbnail.

        Raises:
            InvalidRequest: it is no picture, or gone.
            StorageFailed: neither beside the LoRA nor in our own folder can be written.
        """
        data = shrink(picture)
        if data is None:
            raise InvalidRequest("image", "expected a picture that is still there")
        places = [self._aside_of(item, OWN_THUMBNAIL)]
        if self._is_ours(item):
            places.insert(0, _beside(item, OWN_THUMBNAIL))
        for place in places:
            if _written(place, data):
                return
        raise StorageFailed("thumbnail: no folder for it can be written")

    def _places(self, item: Weights) -> list[Path]:
        """List where notes may lie, the first that are there count."""
        return [self._aside_of(item, ".json"), _beside(item, ".json")]

    def _is_ours(self, item: Weights) -> bool:
        return item.path.is_relative_to(self._own) and item.path.is_file()

    def _aside_of(self, item: Weights, ending: str) -> Path:
        place = hashlib.sha256(str(item.path.absolute()).encode()).hexdigest()[:32]
        return self._aside / f"{place}{ending}"


def thumbnail_bytes(item: Weights, beside: Path | None) -> bytes | None:
    """Make the thumbnail of a LoRA: from the picture beside it, else from its header; None where neither can be shown."""
    data = None if beside is None else shrink(beside)
    if data is not None:
        return data
    inside = header_thumbnail(item.path)
    return None if inside is None else shrink(io.BytesIO(inside))


def shrink(source: Path | io.BytesIO) -> bytes | None:
    """Write a picture as a WebP file of at most `SIDE` pixels a side; None where it is none, or too large."""
    from PIL import Image, ImageOps

    if isinstance(source, Path) and (not source.is_file() or source.stat().st_size > _MAX_PICTURE):
        return None
    try:
        with Image.open(source, formats=_FORMATS) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                return None
            picture.draft("RGB", (SIDE, SIDE))
            small = ImageOps.exif_transpose(picture).convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        return None
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=85, method=4)
    return file.getvalue()


def read_notes(given: Mapping[str, Any]) -> Notes:
    """Read what a person wrote on the page: ``words`` and ``notes`` as texts, ``weight`` as a number or null.

    Raises:
        InvalidRequest: one is something else, or too long.
    """
    words, text, weight = given.get("words"), given.get("notes"), given.get("weight")
    for name, value in (("words", words), ("notes", text)):
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise InvalidRequest(name, f"expected a text of at most {MAX_TEXT} characters")
    if weight is not None and _weight(weight) is None:
        raise InvalidRequest("weight", f"expected a number from -10 to 10, got {weight!r:.40}")
    return Notes(words=_words(words), text=_text(text), weight=_weight(weight))


def _beside(item: Weights, ending: str) -> Path:
    return item.path.with_name(f"{item.stem}{ending}")


def _read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none."""
    try:
        if path.stat().st_size > MAX_SIDECAR:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _words(text: object) -> tuple[str, ...]:
    return split_words(text) if isinstance(text, str) else ()


def _listed(words: object) -> tuple[str, ...]:
    """Read trigger words as Civitai lists them; each may be several."""
    return clean_words(_each(words)) if isinstance(words, list) else ()


def _each(words: list[object]) -> Iterator[str]:
    for word in words:
        yield from _words(word)


def _weight(value: object) -> float | None:
    """Read a weight; 0 is none, as other programs write it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value and -10 <= value <= 10 else None


def _text(value: object) -> str:
    """Keep a text of several lines."""
    if not isinstance(value, str):
        return ""
    return "".join(it for it in value[:MAX_TEXT] if it.isprintable() or it in "\n\t").strip()


def _written(place: Path, data: bytes) -> bool:
    """Write a file whole; False where that cannot be done."""
    with contextlib.suppress(OSError):
        write_whole(place, data)
        return True
    return False
