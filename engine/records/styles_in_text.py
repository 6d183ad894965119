"""Which styles a finished prompt was made with: Fooocus' A1111 texts have the styles' words, but not their names."""

from collections.abc import Mapping

from engine.prompt.styles import EXPANSION_STYLE, PLACEHOLDER, Style
from engine.prompt.syntax import clean

_JOINT = ", "
_TAKEN = "\0"


def styles_in_text(
    texts: tuple[str, str], prompts: tuple[str, str], styles: Mapping[str, Style]
) -> list[str]:
    """Find the styles whose texts stand in the prompts that were painted.

    Longer templates are looked for first and what they cover is taken away, so that no part of one counts as another.

    Args:
        texts: All that was encoded, positive and negative, joined by comma and blank.
        prompts: What the person wrote, positive and negative.
        styles: The templates.

    Returns:
        Names in the order of their texts. The expansion stands first when words are left over that neither a style nor the
        person wrote.
    """
    lines = [line for line in map(clean, prompts[0].split("\n")) if line] or [""]
    left = (texts[0], texts[1])
    found: list[tuple[int, int, str]] = []
    wraps = False
    for style in sorted(styles.values(), key=lambda style: -_length(style)):
        taken = _take(left, style, lines[0])
        if taken is not None:
            found.append((*taken[0], style.name))
            left = taken[1]
            wraps = wraps or style.wraps
    names = [name for *_, name in sorted(found)]
    rest = left[0]
    for line in lines[1:] if wraps else lines:
        rest = _without(rest, line)[1]
    has_more = bool(rest.replace(_TAKEN, "").strip(_JOINT)) and bool(prompts[0].strip())
    return [EXPANSION_STYLE, *names] if has_more else names


def _length(style: Style) -> int:
    return len(style.prompt) + len(style.negative_prompt)


def _take(
    left: tuple[str, str], style: Style, prompt: str
) -> tuple[tuple[int, int], tuple[str, str]] | None:
    """Take one style's texts out of both prompts; None when they are not all there."""
    if not _length(style):
        return None
    positive = _JOINT.join(style.prompt.replace(PLACEHOLDER, prompt).splitlines())
    negative = _JOINT.join(style.negative_prompt.splitlines())
    at_positive, left_positive = _without(left[0], positive)
    at_negative, left_negative = _without(left[1], negative)
    if at_positive is None or at_negative is None:
        return None
    return (at_positive, at_negative), (left_positive, left_negative)


def _without(text: str, part: str) -> tuple[int | None, str]:
    """Blank out the first place where `part` stands between commas; the text keeps its length.

    Returns:
        The place, or None when there is none; then the text is the same. An empty part is found at the end.
    """
    if not part:
        return len(text), text
    at = text.find(part)
    while at >= 0:
        end = at + len(part)
        starts = at == 0 or text[:at].endswith((_JOINT, _TAKEN))
        ends = end == len(text) or text[end:].startswith((_JOINT, _TAKEN))
        if starts and ends:
            return at, text[:at] + _TAKEN * len(part) + text[end:]
        at = text.find(part, at + 1)
    return None, text
