"""The endpoints there are, by id."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.wire.fields import WireModel
from api.wire.fooocus import (
    FooocusImagePromptInput,
    FooocusInpaintInput,
    FooocusInput,
    FooocusOutput,
    FooocusUpscaleOrVaryInput,
)
from api.wire.lora import LoraInput, LoraOutput

LORA = "fal-ai/lora"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: its id is its path."""

    id: str
    input: type[WireModel]
    output: type[WireModel]

    @property
    def app(self) -> str:
        """The first two segments of the id: what clients ask for status and result under."""
        return "/".join(self.id.split("/")[:2])

    @property
    def output_name(self) -> str:
        """What fal calls the answer: as the input."""
        return self.input.__name__.removesuffix("Input") + "Output"


ENDPOINTS: Mapping[str, Endpoint] = {
    item.id: item
    for item in (
        Endpoint("fal-ai/fooocus", FooocusInput, FooocusOutput),
        Endpoint("fal-ai/fooocus/image-prompt", FooocusImagePromptInput, FooocusOutput),
        Endpoint("fal-ai/fooocus/inpaint", FooocusInpaintInput, FooocusOutput),
        Endpoint("fal-ai/fooocus/upscale-or-vary", FooocusUpscaleOrVaryInput, FooocusOutput),
        Endpoint(LORA, LoraInput, LoraOutput),
    )
}
APPS = frozenset(endpoint.app for endpoint in ENDPOINTS.values())
"""What a request id may be asked for under."""
