"""Arrays: of ``[[red, green]]`` in a prompt each image takes the next word.

Several arrays are gone through like the digits of a number, the first one fastest.
"""

import math
import re

_ARRAY = re.compile(r"\[\[(.*?)\]\]")


def fill_arrays(text: str, index: int) -> str:
    """Put one word in the place of each array.

    Words are what stands between commas, blanks included. Arrays neither nest nor escape commas.

    Args:
        text: One line of a prompt.
        index: Number of the image, from 0; words repeat after `array_period` images.
    """

    def choose(match: re.Match[str]) -> str:
        nonlocal index
        words = match[1].split(",")
        index, place = divmod(index, len(words))
        return words[place]

    end = text.rfind("]]") + 2  # else every unclosed "[[" would be read to the end of the line
    return _ARRAY.sub(choose, text[:end]) + text[end:]


def array_period(text: str) -> int:
    """Count the combinations of all arrays of a line: 1 without any."""
    closed = text[: text.rfind("]]") + 2]
    return math.prod(len(words.split(",")) for words in _ARRAY.findall(closed))
