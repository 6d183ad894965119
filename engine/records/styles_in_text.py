"""Which styles a finished prompt was made with: Fooocus' A1111 texts have the styles' words, but not their names."""

from collections.abc import Mapping

from engine.prompt.syntax import clean

StyleTexts = Mapping[str, tuple[str, str]]
"""Positive and negative template by style name, ``{prompt}`` where the person's words go."""
EXPANSION = "Fooocus V2"
_PROMPT = "{prompt}"
_JOINT = ", "
_TAKEN = "\0"


def styles_in_text(
    texts: tuple[str, str], prompts: tuple[str, str], styles: StyleTexts
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
    for name, template in sorted(styles.items(), key=lambda item: -len("".join(item[1]))):
        taken = _take(left, template, lines[0])
        if taken is not None:
            found.append((*taken[0], name))
            left = taken[1]
            wraps = wraps or _PROMPT in template[0]
    names = [name for *_, name in sorted(found)]
    rest = left[0]
    for line in lines[1:] if wraps else lines:
        rest = _without(rest, line)[1]
    has_more = bool(rest.replace(_TAKEN, "").strip(_JOINT)) and bool(prompts[0].strip())
    return [EXPANSION, *names] if has_more else names


def _take(
    left: tuple[str, str], template: tuple[str, str], prompt: str
) -> tuple[tuple[int, int], tuple[str, str]] | None:
    """Take one style's texts out of both prompts; None when they are not all there."""
    if not any(template):
        return None
    positive = _JOINT.join(template[0].replace(_PROMPT, prompt).splitlines())
    negative = _JOINT.join(template[1].splitlines())
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
