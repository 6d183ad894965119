"""*Describe*: a picture that a visitor brings becomes the words of the prompt, and styles that go with them.

Its parts, the job that does it, and what happens at the button. Knows nothing of how a picture is read.
"""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from engine import EngineError, Failed, Finished, InvalidRequest, ModelNotFound, TextRequest, plan
from engine.describe_inputs import Describe, DescribeKind, suggested_styles
from engine.knobs import knob
from engine.partners import ONNX_LIBRARY, ONNX_MISSING
from ui.form import Form, Part
from ui.helpers import describe_uses
from ui.image_input import MAX_BYTES, MAX_PIXELS, MAX_SIDE
from ui.notations import NOTATIONS
from ui.studio import Studio
from ui.theme import island

KINDS: tuple[DescribeKind, ...] = ("Photograph", "Art/Anime")
"""What a picture may be taken for; none of them leaves it to the base model."""
DONE = "The prompt says what is in the picture"
BASE = NOTATIONS["advanced.base_model"]
"""How the form holds the base model."""
Values = Mapping[Any, Any]
"""What the parts hold."""


@dataclass(frozen=True)
class DescribePanel:
    """The parts that a description is asked for with."""

    picture: gr.HTML
    kinds: gr.CheckboxGroup
    styles: gr.Checkbox
    """Whether the styles are chosen too."""
    button: gr.Button
    needed: gr.HTML
    """Says what has to be fetched first."""
    news: gr.HTML
    """Says how far it is, and what went wrong."""


def describe_panel() -> DescribePanel:
    """Lay out the parts."""
    most = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "side": MAX_SIDE}
    with gr.Row(elem_id="describe_row"):
        picture = island(
            "one_picture.js",
            "describe_picture",
            value="",
            label="Picture",
            classes=("part",),
            facts={"label": "Picture to put into words", "most": most, "kept": "pochade.described"},
        )
        with gr.Column(elem_id="describe_settings", min_width=0):
            kinds = gr.CheckboxGroup(
                list(KINDS),
                label=knob(Describe, "kinds").label,
                info="None is a photograph too, or what the base model itself knows.",
                value=[],
                elem_id="describe_kinds",
            )
            styles = gr.Checkbox(
                value=True, label="Choose styles that go with it", elem_id="describe_styles"
            )
            needed = island(
                "mask_needed.js",
                "describe_needed",
                value={},
                classes=("part", "needed"),
                facts={"first": "words", "to": "describe it"},
            )
            button = gr.Button("Put it into the prompt", elem_id="describe")
            news = island(
                "mask_note.js",
                "describe_news",
                value={},
                classes=("part", "mask_note"),
                facts={"kept": "pochade.words"},
            )
    return DescribePanel(picture, kinds, styles, button, needed, news)


def submit_description(
    studio: Studio,
    picture: object,
    kinds: Sequence[DescribeKind],
    base_model: str | None,
    owner: str,
) -> str:
    """Submit a picture that is to be put into words.

    Args:
        studio: Its queue does it.
        picture: Name of one that the visitor brought.
        kinds: What it is taken for; none leaves it to the base model.
        base_model: Of the form; None is the studio's own.
        owner: Whose picture it is.

    Returns:
        The job's id; its words come with its end.

    Raises:
        EngineError: there is no picture, or what reads it is not to be had.
    """
    field = "describe.image"
    if studio.uploads is None or not picture:
        raise InvalidRequest(field, "choose a picture first")
    image = studio.uploads.find(picture, owner, field)
    described = {"image": image.name, "kinds": list(kinds)}
    asked = TextRequest.parse({"describe": described, "advanced": {"base_model": base_model}})
    if "Art/Anime" in kinds and importlib.util.find_spec(ONNX_LIBRARY) is None:
        raise ModelNotFound(f"Art/Anime: {ONNX_MISSING}")
    wanted = plan(asked, studio.library, seed=0)
    return studio.jobs.submit(wanted, owner=owner, inputs={image.name: image.path.read_bytes()})


async def described(studio: Studio, job: str, owner: str) -> str | None:
    """Wait for the words; None where somebody stopped the job.

    Raises:
        EngineError: it could not be put into words.
    """
    async for _, event in studio.jobs.events(job, owner=owner):
        if isinstance(event, Failed):
            raise EngineError(event.message)
        if isinstance(event, Finished):
            return event.text
    return None


def connect_describe(
    studio: Studio,
    panel: DescribePanel,
    form: Form[TextRequest],
    owner_of: Callable[[gr.Request], str],
) -> None:
    """Let the button fill the prompt, and the styles where that is wanted.

    Args:
        studio: Its queue puts the picture into words.
        panel: The parts that ask for it.
        form: Has the prompt, the styles and the base model.
        owner_of: Names the visitor.
    """
    base = form.fields["advanced.base_model"]

    def need(values: Values) -> dict[Any, Any]:
        return {panel.needed: {"uses": describe_uses(values[panel.kinds])}}

    async def tell(values: Values, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        owner, kinds = owner_of(request), values[panel.kinds]
        shown: dict[Any, Any] = {}
        try:
            job = await asyncio.to_thread(
                submit_description,
                studio,
                values[panel.picture],
                kinds,
                BASE.read(values[base]),
                owner,
            )
            yield {panel.news: {"job": job}, panel.button: gr.update(interactive=False)}
            text = await described(studio, job, owner)
            news: dict[str, Any] = {}
            if text is not None:
                named: dict[str, Any] = {"prompt": text}
                if values[panel.styles] and (styles := suggested_styles(kinds)):
                    named["styles"] = list(styles)
                shown, news = {**form.show(named)}, {"text": DONE}
        except EngineError as error:
            news = {"text": in_words(error), "wrong": True}
        yield {**shown, panel.news: news, panel.button: gr.update(interactive=True)}

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    panel.kinds.change(need, {panel.kinds}, [panel.needed], queue=False, **quiet)
    fields: list[Part] = [form.fields[name] for name in ("prompt", "styles")]
    panel.button.click(
        tell,
        {panel.picture, panel.kinds, panel.styles, base},
        [*fields, panel.news, panel.button],
        concurrency_limit=None,
        **quiet,
    )


def in_words(error: EngineError) -> str:
    """Say what is wrong as the page does."""
    text = str(error)
    for field, name in (("describe.image: ", "Picture: "), ("describe.kinds: ", "Content: ")):
        text = name + text.removeprefix(field) if text.startswith(field) else text
    return text
