"""Scenes to words: a small grammar with synonyms, distractors and short captions.

A caption names what is on the picture; what it leaves out is as the world's defaults say (centre,
flat) in a full sentence, and anything at all in a short one. Knows nothing of pixels or tokens.
"""

from dataclasses import dataclass

import numpy as np

from pocket.world import Scene

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "circle", "disc"),
        "square": ("square", "square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "heart": ("heart",),
        "cross": ("cross", "cross", "plus sign"),
    },
    "colour": {"purple": ("purple", "purple", "violet")},
    "size": {
        "large": ("large", "large", "big", "huge"),
        "medium": ("medium", "medium-sized", "medium"),
        "small": ("small", "small", "little", "tiny"),
    },
    "place": {
        "centre": ("in the centre", "in the center", "in the middle"),
        "left": ("on the left", "on the left", "on the left side"),
        "right": ("on the right", "on the right", "on the right side"),
        "top": ("at the top", "at the top", "on top"),
        "bottom": ("at the bottom", "at the bottom", "below"),
    },
    "style": {
        "flat": ("flat", "flat", "plain flat"),
        "outlined": ("outlined", "outlined", "with a thick outline"),
        "striped": ("striped", "striped", "with stripes"),
        "shaded": ("shaded", "3d", "with shading"),
    },
    "ground": {"plain": ("", "", "plain "), "gradient": ("gradient ",)},
}
"""Ways to say each value; a value that is missing says itself. Repeated words are more frequent."""

ART_WORDS = (
    "cinematic still", "highly detailed", "masterpiece", "best quality", "sharp focus", "dramatic light",
    "film grain", "intricate", "elegant", "vivid", "beautiful", "professional", "award winning", "poster",
    "illustration", "concept art", "digital painting", "photograph", "oil painting", "pencil sketch",
    "soft light", "8k", "ultra quality", "trending", "minimalist", "moody", "epic composition", "bokeh",
    "shallow depth of field", "anime", "studio", "vintage", "cute", "modern", "dynamic", "atmosphere",
    "perfect", "stunning", "creative", "inspired", "symmetry", "cool", "great", "background", "colors",
    "thought", "full", "still", "deep", "light", "fine detail", "very coherent", "ambient", "winning",
)  # fmt: skip
"""Words from other people's prompts, which say nothing about the scene."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Caption:
    """A text and how it leaves the scene open."""

    text: str
    named: frozenset[str]
    """The scene's fields that the text settles, by word or by a full sentence's default."""


def _say(rng: np.random.Generator, field: str, value: str) -> str:
    ways = WORDS[field].get(value, (value,))
    return ways[rng.integers(len(ways))]


def _pseudo_word(rng: np.random.Generator) -> str:
    letters = [_LETTERS[i] for i in rng.integers(26, size=rng.integers(2, 9))]
    return "".join(letters) + (str(rng.integers(100)) if rng.random() < 0.15 else "")


def distractors(rng: np.random.Generator) -> str:
    """A comma-separated run of words that mean nothing here."""
    words = []
    for _ in range(rng.integers(1, 8)):
        known = rng.random() < 0.7
        words.append(ART_WORDS[rng.integers(len(ART_WORDS))] if known else _pseudo_word(rng))
    return (", " if rng.random() < 0.7 else " ").join(words)


def surround(rng: np.random.Generator, text: str) -> str:
    """Put distractors before the text, behind it, or both."""
    side = rng.integers(3)
    before = f"{distractors(rng)}, " if side != 1 else ""
    behind = f", {distractors(rng)}" if side != 0 else ""
    return before + text + behind


def _object(rng: np.random.Generator, scene: Scene, *, style: str, size: str) -> str:
    adjective, behind = (style, "") if not style.startswith("with") else ("", f" {style}")
    if adjective and rng.random() < 0.3:
        adjective, behind = "", f" {adjective}"
    words = [size, adjective, _say(rng, "colour", scene.colour), _say(rng, "shape", scene.shape)]
    phrase = " ".join(word for word in words if word)
    article = "an" if phrase[0] in "aeo" else "a"
    return f"{article} {phrase}{behind}"


def full_caption(rng: np.random.Generator, scene: Scene, *, complete: bool = False) -> Caption:
    """A sentence that settles shape, colour, background, place and style; the size may be left out.

    Args:
        rng: Source of the choices.
        scene: What to describe.
        complete: Whether to say everything, also what is the world's default.
    """
    style_said = complete or scene.style != "flat" or rng.random() < 0.5
    place_said = complete or scene.place != "centre" or rng.random() < 0.5
    size_said = complete or scene.size == "small" or rng.random() < 0.85
    style = _say(rng, "style", scene.style) if style_said else ""
    behind = bool(style) and rng.random() < 0.5
    thing = _object(
        rng,
        scene,
        style="" if behind else style,
        size=_say(rng, "size", scene.size) if size_said else "",
    )
    place = f" {_say(rng, 'place', scene.place)}" if place_said else ""
    ground = f"{_say(rng, 'ground', scene.ground)}"
    background = f"{_say(rng, 'colour', scene.background)} {ground}background"
    article = "an" if background[0] in "aeo" else "a"
    order = rng.random()
    if order < 0.75:
        text = f"{thing}{place} on {article} {background}"
    elif order < 0.9:
        text = f"{article} {background} with {thing}{place}"
    else:
        text = f"{thing[2:].strip()}{place}, {background}"
    text += f", {style}" if behind else ""
    named = {"shape", "colour", "background", "place", "style", "ground"}
    return Caption(text, frozenset(named | ({"size"} if size_said else set())))


def short_caption(rng: np.random.Generator, scene: Scene) -> Caption:
    """A word or two; all that they leave out is open."""
    colour, shape = _say(rng, "colour", scene.colour), _say(rng, "shape", scene.shape)
    forms = (
        (colour, {"colour"}),
        (shape, {"shape"}),
        (f"a {shape}", {"shape"}),
        (f"{colour} {shape}", {"colour", "shape"}),
        (f"a {colour} {shape}", {"colour", "shape"}),
        (f"{_say(rng, 'colour', scene.background)} background", {"background"}),
        (_say(rng, "style", scene.style), {"style"}),
        (_say(rng, "place", scene.place), {"place"}),
        (f"{_say(rng, 'size', scene.size)} {shape}", {"size", "shape"}),
    )
    text, named = forms[rng.integers(len(forms))]
    return Caption(text, frozenset(named))


def random_caption(rng: np.random.Generator, scene: Scene) -> Caption:
    """A caption as training sees it: mostly full sentences, some short, some empty, some crowded."""
    kind = rng.random()
    if kind < 0.04:
        return Caption("", frozenset())
    short = kind < 0.12
    caption = short_caption(rng, scene) if short else full_caption(rng, scene)
    if rng.random() < (0.1 if short else 0.2):
        return Caption(surround(rng, caption.text), caption.named)
    return caption
