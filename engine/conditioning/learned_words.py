"""Words of a person's own choice, such as ``<s0>``, for the vectors of textual inversions, as diffusers has them.

Each becomes an ``embedding:`` word, so that everything else of `engine.conditioning.embeddings` holds for it too.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from engine.conditioning.embeddings import PREFIX, EmbeddingLookup, Vectors, read_embedding
from engine.errors import InvalidRequest, ModelIncompatible
from engine.studio_plan import WordVectors

FIELD = "studio.embeddings"


class LearnedWords:
    """The words of one plan, and what they stand for."""

    def __init__(
        self,
        asked: Iterable[WordVectors],
        find: Callable[[str], Path | None],
        widths: Sequence[int],
    ) -> None:
        """Read the files.

        Args:
            asked: The embeddings of the plan.
            find: The file of an embedding by name; None when there is none that may be read.
            widths: Numbers in a vector of each encoder.

        Raises:
            ModelIncompatible: a file has no vectors of these widths, or may not be read.
            InvalidRequest: it has fewer vectors than there are words.
        """
        self._names: dict[str, str] = {}
        self._vectors: dict[str, Vectors] = {}
        for place, item in enumerate(asked):
            path = find(item.weights.name)
            if path is None:
                problem = "expected a safetensors file; pickled ones need --allow-pickle"
                raise ModelIncompatible(f"{FIELD}.{place}.path: {problem}, got {item.weights.name}")
            for number, (token, vectors) in enumerate(
                _shared_out(read_embedding(path, tuple(widths)), item.tokens, place)
            ):
                name = f"{place}#{number}"
                self._names[token], self._vectors[name] = name, vectors

    def named(self, text: str) -> str:
        """Write a text with ``embedding:`` words in the place of the learned ones."""
        if not self._names:
            return text
        longest_first = sorted(self._names, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        return re.sub(pattern, lambda match: f" {PREFIX}{self._names[match[0]]} ", text)

    def lookup(self, otherwise: EmbeddingLookup) -> EmbeddingLookup:
        """Give the vectors of the learned words, and those of other names from elsewhere."""
        return lambda name: self._vectors.get(name) or otherwise(name)


NO_WORDS = LearnedWords((), lambda name: None, ())


def _shared_out(
    vectors: Vectors, tokens: Sequence[str], place: int
) -> Iterable[tuple[str, Vectors]]:
    """Give each word one vector; a single word stands for all."""
    if len(tokens) == 1:
        return [(tokens[0], vectors)]
    count = max(len(side) for side in vectors if side is not None)
    if len(tokens) > count:
        problem = f"expected at most {count} words, one for each vector, got {len(tokens)}"
        raise InvalidRequest(f"{FIELD}.{place}.tokens", problem)
    return [
        (token, tuple(None if side is None else side[index : index + 1] for side in vectors))
        for index, token in enumerate(tokens)
    ]
