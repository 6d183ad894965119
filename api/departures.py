"""Where our API is not fal's, each with its reason. ``python -m api.departures`` prints the page of the docs.

A test compares our documents with fal's and finds exactly the differences that are listed here.
"""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Departure:
    """One difference between our OpenAPI documents and fal's."""

    place: str
    """Pattern (as of ``fnmatch``) of the places in the documents where it is seen."""
    what: str
    why: str


DEPARTURES = (
    Departure(
        "components.schemas.*Input.properties.advanced",
        "Every endpoint takes one more object, `advanced`.",
        "It holds what Fooocus can do beyond fal's fields; unknown keys inside it are refused.",
    ),
    Departure(
        "components.schemas.Advanced", "The schema of `advanced`.", "fal has no such object."
    ),
    Departure("components.schemas.FreeU", "A part of `advanced`.", "fal has no such object."),
    Departure(
        "components.schemas.*.properties.styles.items.enum",
        "`styles` takes every style of the studio, your own, Fooocus Pony and Random Style too.",
        "Fooocus has them; fal leaves two of its names out.",
    ),
    Departure(
        "components.schemas.*.uniqueItems",
        "`styles` and `outpaint_selections` may name a thing twice.",
        "Fooocus applies styles in their order, as often as they are named; a side counts once.",
    ),
    Departure(
        "components.schemas.*.multipleOf",
        "Numbers with a step are rounded to it instead of refused.",
        "Few decimal fractions are exact multiples of 0.001 in binary.",
    ),
    Departure(
        "components.schemas.*.exclusiveMinimum",
        "Limits that are not reached themselves are written as in OpenAPI 3.0: a limit and a switch.",
        "fal's documents are of version 3.0, but write them as 3.1 does, which programs refuse.",
    ),
    Departure(
        "components.schemas.*.properties.*.minimum", "The limit of it.", "See the line above."
    ),
    Departure(
        "components.schemas.QueueStatus.properties.logs.*",
        "`logs` is a list or null.",
        "fal's document says an object, its service sends a list or null.",
    ),
    Departure("components.schemas.Error", "The body of every failure.", "fal documents none."),
    Departure("components.schemas.Problem", "A part of it.", "fal documents none."),
    Departure("paths.*.responses.[45]XX", "Failures are documented.", "fal documents none."),
    Departure(
        "paths.*/cancel.put.responses.*",
        "Cancelling answers 202, 400 or 404 and a status text.",
        "So do fal's service and its guides; its document says 200 with `success`.",
    ),
    Departure(
        "paths.*/status.get.responses.202",
        "The status of a request that waits or runs comes with 202.",
        "So does fal's service; its document does not say it.",
    ),
    Departure(
        "paths.*/status/stream",
        "The stream of the status is documented.",
        "fal's clients use it; its document does not have it.",
    ),
)
BEHAVIOURS = (
    "`refiner_model` takes any checkpoint of the studio, and the documents of a studio that has some name them.",
    "null is the same as not given for every optional field; fal's document says so for a few.",
    "`aspect_ratio` takes any size in multiples of 8 with sides from 64 to 4096 and at most 2048 x 2048 pixels.",
    "`seed` is refused below 0 and above 2^63 - 1, as in Fooocus.",
    "The offset LoRA that fal puts on pictures unless others are asked for is left out where the studio does not have it,"
    " or where it does not fit the base model.",
    "`fal-ai/lora` takes sizes in multiples of 8 with sides from 64 to 4096 and at most 2048 x 2048 pixels. `scheduler` is"
    " Euler where none is named; `timesteps` and `sigmas` go with every scheduler, and LCM and TCD make at most 50 steps.",
    "`clip_skip` of `fal-ai/lora` holds for the negative prompt too, and `prediction_type` is the base model's own unless a"
    " call names it.",
    "The latents of `fal-ai/lora` are safetensors files; there are none where a picture was taken for unsafe.",
    "A request id may be chosen by the client: a UUID in `x-fal-request-id`, or any text in `Idempotency-Key`. The same"
    " one again is the same request.",
    "No body at all is the same as `{}`, so that fal's own snippets without `input` paint.",
    "A request takes at most 5 LoRAs, as fal's guides say and its documents do not; 100 requests of one owner may wait.",
    "A body nests at most 64 levels deep and holds at most 50,000 values, and no number that a float cannot hold.",
    "A request that failed for want of memory or because its worker died is a 500, not a 503: clients ask a 503 again, and"
    " the same machine would paint it again to the same end.",
    "Pages of other origins are refused unless `--allow-origin` names them; fal lets every page in.",
    "A request is known for thirty days, a refused one for a day; the addresses of its pictures live seven days, and asking"
    " for the result again makes them anew. The pictures themselves stay until they are deleted.",
)
"""What the documents do not show."""


def page() -> str:
    """Write the page of the docs."""
    rows = [f"| `{item.place}` | {item.what} | {item.why} |" for item in DEPARTURES]
    lines = [f"- {sentence}" for sentence in BEHAVIOURS]
    return "\n".join(
        [
            "# Where the API is not fal's",
            "",
            "Written by `python -m api.departures`; a test finds these differences, and no others, between our OpenAPI",
            "documents and those that fal publishes. Titles, descriptions, examples and the order of fields are our own.",
            "",
            "| place | what | why |",
            "|---|---|---|",
            *rows,
            "",
            "What the documents do not show:",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page())
