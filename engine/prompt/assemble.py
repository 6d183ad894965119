"""From what a person wrote and chose to the texts that one image is encoded from.

Wildcards, arrays, styles and expansion meet here, in Fooocus' order, so that one seed makes one choice. Knows nothing of
tokens: each text is encoded on its own by whoever takes them.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.errors import InvalidRequest
from engine.prompt.arrays import fill_arrays
from engine.prompt.lora_tags import drop_tags
from engine.prompt.styles import EXPANSION_STYLE, PLACEHOLDER, RANDOM_STYLE, Style
from engine.prompt.syntax import clean, parse_weights, tidy_commas
from engine.prompt.wildcards import fill_wildcards

MAX_TEXTS = 64
"""Most texts of one branch; each is encoded on its own and takes 77 tokens at least."""
MAX_LETTERS = 40_000
"""Most characters of all texts of one branch together, so that a long prompt in many styles cannot fill the memory."""

Expand = Callable[[str, int], str]
"""Gives the expanded main prompt for a prompt and a seed; an empty text adds nothing."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A prompt taken apart at its line breaks."""

    main: str
    """The first line: what styles, arrays and expansion work on."""
    extras: tuple[str, ...] = ()
    """The others, each a text of its own."""

    def __str__(self) -> str:
        return "\n".join((self.main, *self.extras))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What all images of a job have in common in words."""

    prompt: Lines
    """LoRA tags are taken out of the main line by then."""
    negative_prompt: Lines = Lines("")
    selection: tuple[str, ...] = ()
    """Names of styles in order, repeats allowed, spelled as in `styles` or special ones."""
    styles: Mapping[str, Style]
    """All there are; Random Style draws from them."""
    wildcards: Mapping[str, tuple[str, ...]]
    wildcards_in_order: bool = False
    as_filled: bool = False
    """Leave lines as filling made them, as Fooocus does: doubled blanks and LoRA tags without effect stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts of one image: nothing in them is left to choose."""

    prompt: str
    """All lines, with wildcards and arrays filled; this is what is recorded."""
    negative_prompt: str
    main: str
    """The first line of `prompt`."""
    styles: tuple[str, ...]
    """Those applied, with what Random Style stood for; Fooocus V2 comes first and only where it is asked to expand."""
    expansion: str
    """What `expand` gave, else empty."""
    positive: tuple[str, ...]
    """At least one; encoded one by one."""
    pooled_positive: int
    """How many of them, from the first, add to the pooled vector: all but the expansion."""
    negative: tuple[str, ...]
    pooled_negative: int
    idle_tags: tuple[str, ...]
    """Names in LoRA tags that had no effect: from wildcards, or beyond the first line."""


def read_lines(prompt: str) -> Lines:
    """Take a prompt apart: lines are cleaned, empty ones dropped; without any the main line is empty."""
    main, *extras = [line for line in map(clean, prompt.splitlines()) if line] or [""]
    return Lines(main, tuple(extras))


def assemble(wording: Wording, *, seed: int, index: int, expand: Expand | None = None) -> Texts:
    """Settle the texts of one image.

    One generator, seeded with the image's seed, is drawn from in this order: wildcards of the main line, of the negative
    main line, of the other lines, of the other negative lines, then random styles.

    Args:
        wording: What all images have in common.
        seed: Of this image.
        index: Number of this image, from 0: arrays go by it, and wildcards in order.
        expand: Expands the main prompt where Fooocus V2 is selected; None leaves that to a later stage.

    Raises:
        InvalidRequest: wildcards grow without end, there are too many or too long texts, or a weight in one is not a
            finite number.
    """
    if len(wording.selection) > MAX_TEXTS:
        problem = f"expected at most {MAX_TEXTS} styles, got {len(wording.selection)}"
        raise InvalidRequest("styles", problem)
    rng = random.Random(seed)
    prompt, negative_prompt = _fill(wording, rng, index)
    idle: tuple[str, ...] = ()
    if (
        not wording.as_filled
    ):  # read again, so that what is recorded gives the same texts when it is asked for
        prompt, idle = _drop_tags(prompt)
        prompt = read_lines(str(Lines(tidy_commas(prompt.main), prompt.extras)))
        negative_prompt = read_lines(str(negative_prompt))
    wants_expansion = EXPANSION_STYLE in wording.selection and bool(prompt.main)
    styles = _draw_styles(wording, rng)
    positive = _positive(prompt, styles)
    negative = _negative(negative_prompt, styles)
    expansion = expand(prompt.main, seed) if wants_expansion and expand else ""
    texts = Texts(
        prompt=str(prompt),
        negative_prompt=str(negative_prompt),
        main=prompt.main,
        styles=(*([EXPANSION_STYLE] if wants_expansion else []), *(style.name for style in styles)),
        expansion=expansion,
        positive=(*positive, expansion) if expansion else positive,
        pooled_positive=len(positive),
        negative=negative,
        pooled_negative=len(negative),
        idle_tags=idle,
    )
    _check(texts)
    return texts


def with_expansion(texts: Texts, expansion: str) -> Texts:
    """Add the expansion that a later stage gave; an empty one changes nothing."""
    if not expansion:
        return texts
    base = texts.positive[: texts.pooled_positive]
    return replace(texts, expansion=expansion, positive=(*base, expansion))


def _fill(wording: Wording, rng: random.Random, index: int) -> tuple[Lines, Lines]:
    def fill(line: str, field: str) -> str:
        return fill_wildcards(
            line,
            wording.wildcards,
            rng,
            index=index,
            in_order=wording.wildcards_in_order,
            field=field,
        )

    main = fill_arrays(fill(wording.prompt.main, "prompt"), index)
    negative_main = fill(wording.negative_prompt.main, "negative_prompt")
    extras = tuple(fill(line, "prompt") for line in wording.prompt.extras)
    negative_extras = tuple(
        fill(line, "negative_prompt") for line in wording.negative_prompt.extras
    )
    return Lines(main, extras), Lines(negative_main, negative_extras)


def _drop_tags(prompt: Lines) -> tuple[Lines, tuple[str, ...]]:
    dropped = [drop_tags(line) for line in (prompt.main, *prompt.extras)]
    main, *extras = [line for line, _ in dropped]
    names = dict.fromkeys(name for _, names in dropped for name in names)
    return Lines(main, tuple(extras)), tuple(names)


def _draw_styles(wording: Wording, rng: random.Random) -> list[Style]:
    """Take the selected templates, and draw one for each Random Style; where there are none it is left out."""
    every = list(wording.styles)
    chosen = []
    for name in wording.selection:
        if name == RANDOM_STYLE and every:
            chosen.append(wording.styles[rng.choice(every)])
        elif name not in (RANDOM_STYLE, EXPANSION_STYLE):
            chosen.append(wording.styles[name])
    return chosen


def _positive(prompt: Lines, styles: Sequence[Style]) -> tuple[str, ...]:
    alone = () if any(style.wraps for style in styles) else (prompt.main,)
    styled = [
        line
        for style in styles
        for line in style.prompt.replace(PLACEHOLDER, prompt.main).splitlines()
    ]
    texts = tuple(text for text in (*alone, *styled, *prompt.extras) if text)
    return texts or (prompt.main,)


def _negative(negative_prompt: Lines, styles: Sequence[Style]) -> tuple[str, ...]:
    styled = [line for style in styles for line in style.negative_prompt.splitlines()]
    texts = (*styled, negative_prompt.main, *negative_prompt.extras)
    return tuple(text for text in texts if text) or (negative_prompt.main,)


def _check(texts: Texts) -> None:
    for field, branch in (("prompt", texts.positive), ("negative_prompt", texts.negative)):
        letters = sum(map(len, branch))
        if len(branch) > MAX_TEXTS:
            problem = f"expected at most {MAX_TEXTS} lines and styles, got {len(branch)}"
            raise InvalidRequest(field, problem)
        if letters > MAX_LETTERS:
            problem = (
                f"expected at most {MAX_LETTERS} characters in all lines and styles, got {letters}"
            )
            raise InvalidRequest(field, problem)
        for part in (part for text in dict.fromkeys(branch) for part in parse_weights(text)):
            if not math.isfinite(part.weight):
                problem = f"expected finite weights, got {part.weight} for {part.text[:40]!r}"
                raise InvalidRequest(field, problem)
