"""Textual inversion: a word ``embedding:NAME`` in a prompt stands for vectors that were learned beside the vocabulary.

Files hold vectors for both text encoders of SDXL or for one of them; the first is also that of SD 1.5. Knows nothing of
chunks: `engine.conditioning.text` cuts prompts into rows, in which `VirtualTokens` gives the vectors their places.
"""

import hashlib
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from engine.errors import ModelIncompatible
from engine.prompt.syntax import split_words

PREFIX = "embedding:"
SDXL_WIDTHS = (768, 1280)
"""Numbers in a vector of SDXL's two text encoders."""
MAX_VECTORS = 256
"""Most vectors of one file; three chunks hold fewer."""
MAX_FILE = 64 * 2**20
"""Largest file in bytes; real ones are below 1 MB."""

Vectors = tuple[Tensor | None, ...]
"""(n, C) for each encoder, float32 on the CPU; None where a file has none for it."""
EmbeddingLookup = Callable[[str], Vectors | None]
"""Gives the vectors of a name, with or without a file's ending; None when there is no such embedding."""

log = logging.getLogger(__name__)

_SIDES = ("clip_l", "clip_g")
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingWord:
    """What a word of a prompt stands for."""

    vectors: Vectors
    """All None: the word is left out."""
    rest: str
    """What follows the name and is read as text, like a comma."""
    key: str
    """Equal for equal vectors only: part of what an encoded text is remembered by."""


class EmbeddingFiles:
    """Looks embeddings up, and remembers what it read until a file changes."""

    def __init__(
        self, find: Callable[[str], Path | None], widths: tuple[int, ...] = SDXL_WIDTHS
    ) -> None:
        """Look names up with `find`, which gives only files that may be read.

        Args:
            find: The file of a name, with or without its ending; None when there is none.
            widths: Numbers in a vector of each encoder.
        """
        self._find = find
        self._widths = widths
        self._known: dict[Path, tuple[tuple[int, int], Vectors]] = {}

    def __call__(self, name: str) -> Vectors | None:
        """Read the vectors of a name; None when there is no such file, or it cannot be used."""
        path = self._find(name)
        if path is None:
            return None
        try:
            facts = path.stat()
            stamp = (facts.st_size, facts.st_mtime_ns)
            if path not in self._known or self._known[path][0] != stamp:
                self._known[path] = stamp, read_embedding(path, self._widths)
        except (OSError, ModelIncompatible) as error:
            log.warning("embedding left out: %s", error)
            return None
        return self._known[path][1]


def read_embedding(path: Path, widths: tuple[int, ...] = SDXL_WIDTHS) -> Vectors:
    """Read the vectors of a file.

    Known are the keys ``clip_l`` and ``clip_g``, A1111's ``string_to_param`` and ``emb_params``, and diffusers' one key
    for each token; without the first, vectors belong to the encoder of their width.

    Args:
        path: A safetensors file, or a pickled one that the caller trusts; pickled ones are read without running code.
        widths: Numbers in a vector of each encoder.

    Returns:
        At least one is not None.

    Raises:
        ModelIncompatible: the file cannot be read, or has no vectors of these widths.
    """
    try:
        found = dict(_tensors(_content(path)))
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelIncompatible(f"{path.name}: expected an embedding, got: {reason}") from error
    by_key = any(side in found for side in _SIDES)
    vectors = tuple(
        _fitting([found[side]] if side in found else [] if by_key else found.values(), width)
        for side, width in zip(_SIDES, widths, strict=False)
    )
    if not _has_any(vectors):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in found.values()) or "nothing"
        wanted = " or ".join(map(str, widths))
        problem = f"expected 1 to {MAX_VECTORS} finite vectors of {wanted} numbers, got {shapes}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    return vectors


def find_embeddings(
    texts: Iterable[str],
    lookup: EmbeddingLookup,
    widths: Sequence[int],
    warn: Callable[[str], None] = log.warning,
) -> dict[str, EmbeddingWord]:
    """Look up every embedding that some texts name.

    Args:
        texts: Prompts with weights.
        lookup: Gives the vectors of a name.
        widths: Numbers in a vector of each encoder; vectors of another width are left out.
        warn: Told once of each word that has no effect, without the word: it goes into the log.

    Returns:
        What the words stand for, by the word as it is written.
    """
    words = dict.fromkeys(word for text in texts for word in _words(text))
    return {word: _look_up(word, lookup, widths, warn) for word in words}


def embeddings_key(texts: Iterable[str], embeddings: Mapping[str, EmbeddingWord]) -> str:
    """Tell which vectors some texts stand on; equal texts with unequal keys are encoded anew."""
    named = (word for text in texts for word in _words(text))
    return " ".join(embeddings[word].key for word in named if word in embeddings)


@dataclass(slots=True, eq=False)
class VirtualTokens:
    """Numbers for the vectors of embeddings, below 0 where the vocabulary's begin at 0; for one of the encoders."""

    embeddings: Mapping[str, EmbeddingWord]
    side: int
    """0 for the first encoder, 1 for the second."""
    vectors: list[Tensor] = field(default_factory=list)
    """(C,) each; the first has the number -1."""
    _known: dict[str, range] = field(default_factory=dict)

    def ids(self, word: str) -> tuple[Sequence[int], str]:
        """Number the vectors of a word; what is left of the word is to be read as text."""
        if word not in self.embeddings:
            return (), word
        meaning = self.embeddings[word]
        vectors = meaning.vectors[self.side]
        if word not in self._known:
            first = -1 - len(self.vectors)
            self.vectors += [] if vectors is None else vectors
            self._known[word] = range(first, -1 - len(self.vectors), -1)
        return self._known[word], meaning.rest

    def spliced(
        self, model: Any, rows: Sequence[tuple[int, ...]]
    ) -> tuple[Tensor, AbstractContextManager[object]]:
        """Prepare rows for an encoder.

        Returns:
            (n, 77) ids of the vocabulary on the encoder's device, and what must be open while it reads them: it puts the
            vectors in their places.
        """
        numbers = torch.tensor(rows)
        places = (numbers < 0).nonzero(as_tuple=True)
        ids = numbers.clamp(min=0).to(model.device)
        if not len(places[0]):
            return ids, nullcontext()
        vectors = torch.stack(self.vectors)[-1 - numbers[places]]

        def splice(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            return output.index_put(
                tuple(place.to(output.device) for place in places), vectors.to(output)
            )

        return ids, model.get_input_embeddings().register_forward_hook(splice)


def _words(text: str) -> Iterator[str]:
    if PREFIX in text:
        yield from (word.text for word in split_words(text) if word.text.startswith(PREFIX))


def _look_up(
    word: str, lookup: EmbeddingLookup, widths: Sequence[int], warn: Callable[[str], None]
) -> EmbeddingWord:
    name = word.removeprefix(PREFIX)
    bare = name.rstrip(",.;:!?")
    found, rest = lookup(name), ""
    if found is None and bare != name:
        found, rest = lookup(bare), name[len(bare) :]
    if found is None:
        warn("a prompt names an embedding that is not there; the word is left out")
        return EmbeddingWord((None,) * len(widths), rest, "")
    fitting = tuple(
        vectors if vectors is not None and vectors.shape[-1] == width else None
        for vectors, width in zip(found, widths, strict=True)
    )
    if not _has_any(fitting):
        wanted = " or ".join(map(str, widths))
        warn(f"a prompt's embedding: expected vectors of {wanted} numbers; the word is left out")
    return EmbeddingWord(fitting, rest, _key(fitting))


def _has_any(vectors: Vectors) -> bool:
    return any(side is not None for side in vectors)


def _key(vectors: Vectors) -> str:
    digest = hashlib.sha256()
    for side in vectors:
        digest.update(b"|" if side is None else side.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _content(path: Path) -> Any:
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"{path.stat().st_size} bytes")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Find the vectors in what a file holds; A1111's are one level down."""
    if not isinstance(content, Mapping):
        raise ValueError(f"a {type(content).__name__}")
    inner = content.get("string_to_param", content)
    for key, value in inner.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim in (1, 2):
            yield str(key), value.detach()


def _fitting(candidates: Iterable[Tensor], width: int) -> Tensor | None:
    """Take the first tensor that holds vectors of a width, as (n, C) in float32."""
    for tensor in candidates:
        vectors = tensor.float() if tensor.ndim == 2 else tensor.float().unsqueeze(0)
        if vectors.shape[1] == width and 1 <= len(vectors) <= MAX_VECTORS:
            return vectors if bool(vectors.isfinite().all()) else None
    return None
