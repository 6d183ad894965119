"""The part of a request that puts a picture into words, and the styles that go with them."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from engine.image_inputs import Picture
from engine.knobs import Knob, RequestPart

DescribeKind = Literal["Photograph", "Art/Anime", "Base model"]
"""The last one names what the base model itself knows to paint; only models that come with such words have it."""

STYLES: Mapping[DescribeKind, tuple[str, ...]] = {
    "Photograph": ("Fooocus V2", "Fooocus Enhance", "Fooocus Sharp"),
    "Art/Anime": ("Fooocus V2", "Fooocus Masterpiece"),
    "Base model": (),
}
"""What Fooocus chooses beside the words."""


class Describe(RequestPart):
    """A picture that is put into words; nothing is painted."""

    image: Annotated[Picture, Knob("Picture", "What is put into words.")]
    kinds: Annotated[
        tuple[DescribeKind, ...],
        Field(max_length=3),
        Knob("Content", "What it is taken for; of several, their words are joined."),
    ] = ()
    """None is the base model's own words where it has some, else a photograph."""


def suggested_styles(kinds: Iterable[DescribeKind]) -> tuple[str, ...]:
    """List the styles that go with some kinds, in their order and each once."""
    return tuple(dict.fromkeys(style for kind in kinds for style in STYLES[kind]))
