"""The panel *Sheet* of the LoRA studio: two axes, the jobs of all cells, and the picture of them put together.

A sheet lives in the browser, as the ids of its jobs and their labels: it survives a reload, and the server keeps nothing of it.
"""

import contextlib
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import EngineError, InvalidRequest, Plan, TextRequest, plan
from jobs import Jobs
from ui.form import Part
from ui.form_events import RANDOM_SEEDS, visitor
from ui.grid_sheet import (
    CELL,
    MAX_CELLS,
    MAX_VALUES,
    SETTINGS,
    Axis,
    Labels,
    cells,
    draw_sheet,
    labels_of,
    read_axis,
)
from ui.lora_tab import LoraTab
from ui.problems import as_toast
from ui.studio import Studio
from ui.theme import island

if TYPE_CHECKING:
    from PIL import Image

FOR_LORA = "for_lora"
"""CSS class of what only the tab *LoRA* shows."""
MAX_TITLE = 10_000
_ACROSS, _DOWN = "across", "down"
_NOTHING = ("Nothing", "")
_FIRST = ("studio.guidance_scale", "3, 5, 7.5, 10")
"""What the first axis shows at first: a setting, and values that fit it."""


@dataclass(frozen=True)
class SheetPanel:
    """The parts of the panel."""

    settings: Mapping[str, gr.Dropdown]
    """By axis: what it changes."""
    values: Mapping[str, gr.Textbox]
    """By axis: its values, between commas."""
    paint: gr.Button
    result: gr.HTML
    """Shows the sheet as it appears."""


def sheet_panel() -> SheetPanel:
    """Lay out the panel."""
    settings, values = {}, {}
    with gr.Column(elem_id="sheet_panel", min_width=0, elem_classes=[FOR_LORA]):
        with gr.Accordion("Sheet over two settings", open=False, elem_classes=["group"]):
            with gr.Row(elem_id="sheet_axes"):
                for axis, label in ((_ACROSS, "Across"), (_DOWN, "Down")):
                    with gr.Column(min_width=0, elem_classes=["sheet_axis"]):
                        settings[axis], values[axis] = _axis(axis, label)
            paint = gr.Button("Paint the sheet", elem_id="paint_sheet")
        result = island("grid_sheet.js", "grid_sheet", classes=("part",))
    return SheetPanel(settings, values, paint, result)


def connect_sheet(studio: Studio, tab: LoraTab, panel: SheetPanel) -> None:
    """Let the button queue a job for each cell.

    Args:
        studio: Its queue paints them.
        tab: What its form asks for is what all cells have in common.
        panel: The parts.
    """

    parts: tuple[Part, ...] = (*panel.settings.values(), *panel.values.values())

    def check(values: Mapping[Part, Any]) -> dict[Part, Any]:
        verdict = {it: gr.validate(is_valid=True, message="") for it in parts}
        verdict |= tab.check(values)
        if all(said["is_valid"] for said in verdict.values()):
            try:
                _plans(studio, tab.form.read(values), *_axes(panel, values), seed=0)
            except InvalidRequest as error:
                part = panel.values.get(error.field)
                if part is not None:
                    verdict[part] = gr.validate(is_valid=False, message=error.problem)
        return verdict

    def paint(values: Mapping[Part, Any], request: gr.Request) -> dict[str, Any]:
        owner = visitor(studio, request)
        with as_toast(), tab.in_words(values):
            asked, files = tab.read(values, owner)
            across, down = _axes(panel, values)
            seed = secrets.randbelow(RANDOM_SEEDS)
            wanted = _plans(studio, asked, across, down, seed=seed)
            jobs = _submit_all(studio.jobs, wanted, owner, files)
        labels = labels_of(asked, across, down)
        return {
            "title": labels.title,
            "columns": list(labels.columns),
            "rows": list(labels.rows),
            "jobs": jobs,
        }

    panel.paint.click(
        paint,
        {*tab.form.inputs, *parts},
        panel.result,
        validator=check,
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )


def read_sheet(body: bytes) -> tuple[Labels, list[str]]:
    """Read what the page says of a sheet, as ``{"title", "columns", "rows", "jobs"}``.

    Returns:
        Its labels, and the ids of its jobs row by row.

    Raises:
        InvalidRequest: it is no such text, or too large.
    """
    try:
        said = json.loads(body)
        labels = Labels(
            str(said["title"])[:MAX_TITLE],
            tuple(str(it)[:MAX_VALUES] for it in said["columns"]),
            tuple(str(it)[:MAX_VALUES] for it in said["rows"]),
        )
        jobs = [str(it) for it in said["jobs"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidRequest("sheet", "expected labels and jobs") from error
    if not 0 < len(jobs) == len(labels.columns) * len(labels.rows) <= MAX_CELLS:
        raise InvalidRequest("sheet", f"expected 1 to {MAX_CELLS} jobs, one a cell")
    return labels, jobs


def sheet_file(jobs: Jobs, labels: Labels, ids: Sequence[str], owner: str) -> bytes:
    """Put the pictures of jobs together, as a PNG; what is not painted yet is empty.

    Raises:
        InvalidRequest: none of them has a picture.
    """
    pictures = [_picture(jobs, job, owner) for job in ids]
    if not any(pictures):
        raise InvalidRequest("sheet", "none of its pictures is there")
    file = io.BytesIO()
    draw_sheet(labels, pictures).save(file, "PNG")
    return file.getvalue()


def _picture(jobs: Jobs, job: str, owner: str) -> "Image.Image | None":
    """Read the picture of a cell, made small; None where there is none."""
    with contextlib.suppress(EngineError, OSError):
        images = jobs.job(job, owner=owner).images
        return _small(images[0].path) if images else None
    return None


def _small(path: Path) -> "Image.Image":
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        return picture.convert("RGB")


def _axis(axis: str, label: str) -> tuple[gr.Dropdown, gr.Textbox]:
    choices = [(name, setting) for setting, name in SETTINGS.items()]
    first, values = _FIRST if axis == _ACROSS else ("", "")
    setting = gr.Dropdown(
        choices if axis == _ACROSS else [_NOTHING, *choices],
        value=first,
        label=label,
        elem_id=f"sheet_{axis}",
    )
    text = gr.Textbox(
        values,
        label=f"Values {label.lower()}",
        show_label=False,
        placeholder="Values between commas",
        max_length=MAX_VALUES,
        elem_id=f"sheet_{axis}_values",
    )
    return setting, text


def _axes(panel: SheetPanel, values: Mapping[Any, Any]) -> tuple[Axis, Axis | None]:
    across, down = (
        read_axis(axis, values[panel.settings[axis]], values[panel.values[axis]])
        for axis in (_ACROSS, _DOWN)
    )
    if across is None:
        raise InvalidRequest(_ACROSS, "choose a setting")
    return across, down


def _plans(
    studio: Studio, asked: TextRequest, across: Axis, down: Axis | None, *, seed: int
) -> list[Plan]:
    """Settle all cells; a value that names what is not there is told at its axis."""
    if asked.seed is None:
        asked = asked.model_copy(update={"seed": seed})
    settled = []
    for cell in cells(asked, across, down):
        try:
            settled.append(plan(cell, studio.library, seed=seed))
        except EngineError as error:
            field, _, problem = str(error).partition(": ")
            raise InvalidRequest(_changes(field, across, down).field, problem) from error
    return settled


def _changes(field: str, across: Axis, down: Axis | None) -> Axis:
    """Say which axis brought a value that was refused: the one that changes a field of that name."""
    leaf = field.rpartition(".")[2]
    is_downs = down is not None and down.setting.rpartition(".")[2] == leaf
    return down if down is not None and is_downs else across


def _submit_all(
    jobs: Jobs, wanted: Sequence[Plan], owner: str, files: Mapping[str, bytes]
) -> list[str]:
    """Queue a job for each plan, or none at all."""
    submitted: list[str] = []
    try:
        for it in wanted:
            submitted.append(jobs.submit(it, owner=owner, inputs=files))
    except EngineError:
        for job in submitted:
            jobs.cancel(job, owner=owner)
        raise
    return submitted
