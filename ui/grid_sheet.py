"""A sheet: one prompt over a grid of two settings. What its cells ask for, what they are called, and the picture of them all.

Also the picture of a job's pictures, which has no labels. Pure: from a request and the axes to requests, from pictures and
labels to one picture. Knows no queue and no page.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine import InvalidRequest, Size, TextRequest
from engine.studio import StudioScheduler

if TYPE_CHECKING:
    from PIL import Image, ImageFont

MAX_CELLS = 64
"""Most cells of a sheet; each is a job."""
MAX_VALUES = 200
"""Longest list of values in characters."""
CELL = 512
"""Longest side of a cell in pixels."""
LARGEST = 4096
"""Longest side of a sheet in pixels, but for its labels."""
SCHEDULER = "studio.scheduler"
WORDS = "prompt"
"""The setting whose first value is found in the prompt and replaced by each of the others."""
EVERY = "*"
"""In the path of a setting: all items of a list."""
SETTINGS: Mapping[str, str] = {
    "studio.loras.*.scale": "Weight of all LoRAs",
    "studio.loras.0.scale": "Weight of the first LoRA",
    "studio.loras.1.scale": "Weight of the second LoRA",
    "studio.loras.0.path": "First LoRA",
    "studio.guidance_scale": "Guidance scale",
    "studio.num_inference_steps": "Steps",
    SCHEDULER: "Scheduler",
    "studio.clip_skip": "CLIP skip",
    "studio.eta": "Eta",
    "studio.controlnets.0.conditioning_scale": "Weight of the first ControlNet",
    "studio.ip_adapters.0.scale": "Weight of the first IP-Adapter",
    "advanced.base_model": "Base model",
    "aspect_ratio": "Size",
    "seed": "Seed",
    WORDS: "Words of the prompt",
}
"""What an axis may change, by the place in the request, and what it is called."""
_SHORT: Mapping[str, str] = {
    "studio.loras.*.scale": "LoRA",
    "studio.loras.0.scale": "LoRA 1",
    "studio.loras.1.scale": "LoRA 2",
    "studio.guidance_scale": "Guidance",
    "studio.controlnets.0.conditioning_scale": "Control",
    "studio.ip_adapters.0.scale": "Adapter",
}
_NAMES = ("studio.loras.0.path", "advanced.base_model", "aspect_ratio", WORDS)
"""Settings whose values say by themselves what they are."""
_LISTS = {"loras": "a LoRA", "controlnets": "a ControlNet", "ip_adapters": "an IP-Adapter"}
_GAP, _MARGIN, _TEXT, _LEFT = 8, 24, 22, 240
_PAPER, _INK, _QUIET, _EMPTY = "#ffffff", "#26221f", "#78716c", "#eeece9"


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of the grid."""

    field: str
    """What messages call it."""
    setting: str
    """One of `SETTINGS`."""
    values: tuple[str, ...]
    """As they were typed."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What its lines are called."""
        if self.setting == SCHEDULER:
            return tuple(map(_meant, self.values))
        if self.setting in _NAMES:
            return tuple(value.removesuffix(".safetensors") for value in self.values)
        word = _SHORT.get(self.setting, SETTINGS[self.setting])
        return tuple(f"{word} {value}" for value in self.values)


@dataclass(frozen=True, slots=True)
class Labels:
    """What stands around the pictures of a sheet."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    """Empty names where there is one axis only."""


def read_axis(field: str, setting: object, text: object) -> Axis | None:
    """Read an axis; None where no setting is chosen.

    Raises:
        InvalidRequest: it names no setting, or has no values.
    """
    if not setting:
        return None
    if setting not in SETTINGS or not isinstance(setting, str):
        raise InvalidRequest(field, f"expected a setting of the list, got {setting!r:.80}")
    if not isinstance(text, str) or len(text) > MAX_VALUES:
        raise InvalidRequest(field, f"expected at most {MAX_VALUES} characters of values")
    values = tuple(value for it in text.split(",") if (value := it.strip()))
    if not values:
        raise InvalidRequest(field, "expected values between commas")
    return Axis(field, setting, values)


def labels_of(asked: TextRequest, across: Axis, down: Axis | None) -> Labels:
    """Say what stands around the pictures."""
    return Labels(asked.prompt, across.labels, ("",) if down is None else down.labels)


def cells(asked: TextRequest, across: Axis, down: Axis | None) -> list[TextRequest]:
    """Write the request of each cell, row by row; all of one seed but where an axis changes it.

    Args:
        asked: What all have in common, with a seed.
        across: Its values stand side by side.
        down: Its values stand one below the other; None makes one row.

    Raises:
        InvalidRequest: a value breaks the rule of its setting, there are too many cells, or both axes change one setting.
    """
    if down is not None and down.setting == across.setting:
        raise InvalidRequest(down.field, f"expected another setting than {across.field}'s")
    count = len(across.values) * (1 if down is None else len(down.values))
    if count > MAX_CELLS:
        field = across.field if down is None else down.field
        raise InvalidRequest(field, f"expected at most {MAX_CELLS} pictures together, got {count}")
    single = asked.model_copy(update={"num_images": 1})
    rows = [single] if down is None else list(_line(single, down))
    return [cell for row in rows for cell in _line(row, across)]


def draw_sheet(labels: Labels, pictures: Sequence["Image.Image | None"]) -> "Image.Image":
    """Put the pictures together with their labels.

    Args:
        labels: What stands around them.
        pictures: Row by row; None leaves its cell empty.

    Returns:
        An RGB picture. Cells have the shape of the first picture that is there.
    """
    from PIL import Image, ImageDraw

    columns, rows = len(labels.columns), len(labels.rows)
    width, height = _cell_size(pictures, columns, rows)
    left = _LEFT if any(labels.rows) else 0
    top = _MARGIN + 2 * _TEXT + 3 * _GAP
    size = (
        2 * _MARGIN + left + columns * (width + _GAP) - _GAP,
        top + rows * (height + _GAP) - _GAP + _MARGIN,
    )
    sheet = Image.new("RGB", size, _PAPER)
    brush = ImageDraw.Draw(sheet)
    room = size[0] - 2 * _MARGIN
    brush.text((_MARGIN, _MARGIN), _fitted(labels.title, room), _INK, _font())
    for column, label in enumerate(labels.columns):
        middle = _MARGIN + left + column * (width + _GAP) + width / 2
        text = _fitted(label, width)
        brush.text((middle, top - _GAP), text, _QUIET, _font(), anchor="mb")
    for row, label in enumerate(labels.rows):
        middle = top + row * (height + _GAP) + height / 2
        text = _fitted(label, left - 2 * _GAP)
        brush.text((_MARGIN + left - 2 * _GAP, middle), text, _QUIET, _font(), anchor="rm")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        corner = (_MARGIN + left + column * (width + _GAP), top + row * (height + _GAP))
        if picture is None:
            brush.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), fill=_EMPTY)
        else:
            small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(small, corner)
    return sheet


def grid_size(sizes: Sequence[Size]) -> Size:
    """Say how large `mosaic` makes its picture."""
    columns, rows = _shape(len(sizes))
    cell = _mosaic_cell(sizes)
    return Size(columns * (cell.width + _GAP) - _GAP, rows * (cell.height + _GAP) - _GAP)


def mosaic(files: Sequence[Path], sizes: Sequence[Size]) -> "Image.Image":
    """Put pictures together as they are, side by side in as many columns as rows or one more.

    Args:
        files: In their order.
        sizes: Of the pictures in them. A smaller one fills its cell as far as its shape allows.

    Returns:
        An RGB picture of at most `LARGEST` pixels a side.

    Raises:
        OSError: a file is gone or is no picture.
    """
    from PIL import Image, ImageOps

    columns, _ = _shape(len(files))
    cell = _mosaic_cell(sizes)
    sheet = Image.new("RGB", grid_size(sizes), _PAPER)
    for place, file in enumerate(files):
        row, column = divmod(place, columns)
        with Image.open(file) as opened:
            picture = ImageOps.contain(opened.convert("RGB"), cell, Image.Resampling.LANCZOS)
        left = column * (cell.width + _GAP) + (cell.width - picture.width) // 2
        top = row * (cell.height + _GAP) + (cell.height - picture.height) // 2
        sheet.paste(picture, (left, top))
    return sheet


def _shape(count: int) -> tuple[int, int]:
    """Say how many columns and rows so many pictures take, as Fooocus lays them out."""
    columns = math.ceil(math.sqrt(count))
    return columns, math.ceil(count / columns)


def _mosaic_cell(sizes: Sequence[Size]) -> Size:
    """Find the size of the cells: that of the largest picture, or less where all would take too much."""
    columns, rows = _shape(len(sizes))
    width, height = max(it.width for it in sizes), max(it.height for it in sizes)
    room = (LARGEST / columns - _GAP) / width, (LARGEST / rows - _GAP) / height
    scale = min(1.0, *room)
    return Size(max(1, round(width * scale)), max(1, round(height * scale)))


def _line(asked: TextRequest, axis: Axis) -> Iterator[TextRequest]:
    """Write what the cells along one axis ask for."""
    for value in axis.values:
        tree = asked.model_dump()
        _change(tree, asked, axis, value)
        try:
            yield TextRequest.parse(tree)
        except InvalidRequest as error:
            raise InvalidRequest(axis.field, f"{value}: {error.problem}") from error


def _change(tree: dict[str, Any], asked: TextRequest, axis: Axis, value: str) -> None:
    if axis.setting == WORDS:
        first = axis.values[0]
        if first not in asked.prompt:
            raise InvalidRequest(axis.field, f"expected words of the prompt first, got {first!r}")
        tree["prompt"] = asked.prompt.replace(first, value)
        return
    *parents, leaf = axis.setting.split(".")
    for place in _places(tree, parents, axis):
        place[leaf] = _meant(value) if axis.setting == SCHEDULER else value


def _places(tree: Any, parents: Sequence[str], axis: Axis) -> list[Any]:
    """Find the parts of a request that a setting is in."""
    places = [tree]
    for name in parents:
        if name == EVERY:
            places = [item for place in places for item in place]
        elif name.isdigit():
            places = [place[int(name)] for place in places if int(name) < len(place)]
        else:
            places = [place[name] for place in places]
    if not places:
        thing = next(word for name, word in _LISTS.items() if name in parents)
        raise InvalidRequest(axis.field, f"there is no such one in the form; choose {thing} first")
    return places


def _meant(value: str) -> str:
    """Find a scheduler's name however its letters are written."""
    names = {name.casefold(): name for name in get_args(StudioScheduler)}
    return names.get(re.sub(r"\s+", " ", value).casefold(), value)


def _cell_size(
    pictures: Sequence["Image.Image | None"], columns: int, rows: int
) -> tuple[int, int]:
    first = next((picture for picture in pictures if picture is not None), None)
    ratio = 1.0 if first is None else first.width / first.height
    longest = min(CELL, LARGEST // columns, LARGEST // rows)
    across, down = (1.0, 1 / ratio) if ratio > 1 else (ratio, 1.0)
    return max(1, round(longest * across)), max(1, round(longest * down))


@lru_cache(maxsize=1)
def _font() -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(_TEXT)


def _fitted(text: str, width: float) -> str:
    """Shorten a text to a line of so many pixels."""
    line = " ".join(text.split())
    if _font().getlength(line) <= width:
        return line
    while line and _font().getlength(f"{line}…") > width:
        line = line[: -max(1, len(line) // 10)]
    return f"{line}…"
