"""Networks that put pictures into words: a captioner, a tagger, and a base model's own encoders.

The captioner is a BLIP as a folder of transformers, the tagger a WD14 as an ONNX file with its list of tags, run by onnxruntime
where it is installed. A base model that knows a small world says what it sees by its image encoder and its text encoder.
"""

import csv
import importlib
import importlib.util
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.devices import quiet_libraries
from engine.models.image_encoders import ImageEncoder
from engine.models.segmenters import running
from engine.partners import ONNX_LIBRARY, ONNX_MISSING

BEGINNING = "a picture of "
"""What a caption goes on from."""
LONGEST, SHORTEST = 75, 10
"""Tokens of a caption."""
TOP_P = 0.9
"""Words are drawn from the likeliest that have this share together."""
AGAIN = 1.1
"""By how much less likely a word is that was said before."""
GENERAL, CHARACTER = 0.35, 0.85
"""What a tag's answer must be above, by its kind."""
_GENERAL, _CHARACTER = "0", "4"
_UNREADABLE = (ValueError, KeyError, RuntimeError, AttributeError, TypeError, SafetensorError)
_MANY = 256


@dataclass(frozen=True, eq=False)
class Captioner:
    """A BLIP, in float32."""

    name: str
    network: Any
    tokenizer: Any
    device: torch.device

    @property
    def side(self) -> int:
        """Pixels along each side of the square that it sees."""
        return int(self.network.config.vision_config.image_size)

    def run(self, values: Tensor, seed: int) -> str:
        """Write a caption.

        Args:
            values: (1, 3, side, side), with the mean and deviation of CLIP's colours taken out.
            seed: The same picture and seed give the same words on one device.
        """
        start = self.tokenizer(BEGINNING, return_tensors="pt", return_token_type_ids=False)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed % 2**63)
            answer = self.network.generate(
                pixel_values=values.to(self.device),
                input_ids=start["input_ids"].to(self.device),
                attention_mask=start["attention_mask"].to(self.device),
                do_sample=True,
                top_p=TOP_P,
                top_k=0,
                max_length=LONGEST,
                min_length=SHORTEST,
                repetition_penalty=AGAIN,
            )
        text: str = self.tokenizer.decode(answer[0], skip_special_tokens=True)
        return text.strip().removeprefix(BEGINNING.strip()).strip()


@dataclass(frozen=True, eq=False)
class Tagger:
    """A WD14 tagger."""

    name: str
    session: Any
    """Of onnxruntime."""
    tags: Sequence[tuple[str, str]]
    """Each tag and its category, in the order of the answers."""

    @property
    def side(self) -> int:
        """Pixels along each side of the square that it sees."""
        return int(self.session.get_inputs()[0].shape[1])

    def run(self, values: NDArray[np.float32]) -> list[str]:
        """List the tags of a picture: characters first, then the others, in the order of the list.

        Args:
            values: (1, side, side, 3), blue first, 0 to 255.

        Raises:
            ModelIncompatible: it cannot take or give that.
        """
        with running(self.name):
            first = self.session.get_inputs()[0].name
            answer = np.asarray(self.session.run(None, {first: values})[0], np.float32)
        if answer.shape != (1, len(self.tags)):
            problem = f"expected {len(self.tags)} answers, one a tag, got {answer.shape}"
            raise ModelIncompatible(f"{self.name}: {problem}")
        sure = [
            (kind, tag)
            for (tag, kind), share in zip(self.tags, answer[0], strict=True)
            if share > {_GENERAL: GENERAL, _CHARACTER: CHARACTER}.get(kind, np.inf)
        ]
        return [tag for wanted in (_CHARACTER, _GENERAL) for kind, tag in sure if kind == wanted]


@dataclass(frozen=True, eq=False)
class OwnReader:
    """The encoders of a base model that knows a small world, and the words for what is in it."""

    name: str
    encoder: ImageEncoder
    texts: Any
    """Its second text encoder, whose pooled vectors lie where the image encoder's do."""
    tokenizer: Any
    template: str
    """Names the fields in braces."""
    words: Mapping[str, Sequence[str]]
    """Values of each field; the first is what a field is taken for until it is settled."""
    rounds: Sequence[Sequence[str]]
    """Fields that are settled together, by trying all combinations; those of the first round once more at the end."""

    def run(self, picture: NDArray[np.uint8]) -> str:
        """Say what is in a picture, (H, W, 3): the sentence that lies nearest to it."""
        seen = _unit(self.encoder.encode(picture).image_embeds.cpu())[0]
        chosen = {field: values[0] for field, values in self.words.items()}
        for fields in (*self.rounds, *self.rounds):
            choices = itertools.product(*(self.words[field] for field in fields))
            tried = [{**chosen, **dict(zip(fields, it, strict=True))} for it in choices]
            texts = [self.template.format(**it) for it in tried]
            chosen = tried[int((self._embed(texts) @ seen).argmax())]
        return " ".join(self.template.format(**chosen).split())

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Give the pooled vectors of texts, (N, P), each of length 1."""
        parts = []
        for first in range(0, len(texts), _MANY):
            told = [" ".join(text.split()) for text in texts[first : first + _MANY]]
            tokens = self.tokenizer(told, padding=True, truncation=True, return_tensors="pt")
            parts.append(self.texts(**tokens).text_embeds.float())
        return _unit(torch.cat(parts))


def load_captioner(path: Path, device: torch.device) -> Captioner:
    """Read the folder of a BLIP and put it on `device`.

    Raises:
        ModelNotFound: there is no such folder.
        ModelIncompatible: it holds another network, or not all of it.
    """
    quiet_libraries()
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    if not (path / "config.json").is_file():
        raise ModelNotFound(f"{path.name}: expected a folder with config.json at {path}")
    with _reading(path.name):
        read: Any = BlipForConditionalGeneration.from_pretrained
        network, report = read(
            path,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    missing = sorted(report["missing_keys"])
    if missing:
        problem = f"expected all weights of a BLIP, got none for {missing[0]}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    network = network.to(device).eval().requires_grad_(requires_grad=False)
    return Captioner(path.name, network, tokenizer, device)


def load_tagger(path: Path, tags: Path) -> Tagger:
    """Read a tagger and its list; it runs on the CPU.

    Args:
        path: An ONNX file.
        tags: A CSV file with a line of names, in which the second column is a tag's name and the third its category.

    Raises:
        ModelNotFound: one is not there, or nothing that runs it.
        ModelIncompatible: it is no such file.
    """
    for file in (path, tags):
        if not file.is_file():
            raise ModelNotFound(f"{file.name}: expected a file in {file.parent}, found none")
    if importlib.util.find_spec(ONNX_LIBRARY) is None:
        raise ModelNotFound(f"{path.name}: {ONNX_MISSING}")
    library = importlib.import_module(ONNX_LIBRARY)
    with running(path.name):
        options = library.SessionOptions()
        options.log_severity_level = 3
        session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with _reading(tags.name):
        text = tags.read_text(encoding="utf-8")
        rows = [row for row in csv.reader(text.splitlines()[1:]) if row]
        listed = [(row[1], row[2]) for row in rows if len(row) > 2]
    return Tagger(path.name, session, listed)


def load_own_reader(name: str, folder: Path, words: Path, encoder: ImageEncoder) -> OwnReader:
    """Read what a base model says of pictures.

    Args:
        name: Of the base model.
        folder: Of diffusers.
        words: JSON with ``template``, ``words`` and ``rounds``.
        encoder: Its image encoder.

    Raises:
        ModelIncompatible: it has no second text encoder, or the words are not as they should be.
    """
    quiet_libraries()
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    with _reading(name):
        facts = json.loads(words.read_text(encoding="utf-8"))
        read: Any = CLIPTextModelWithProjection.from_pretrained
        texts = read(
            folder / "text_encoder_2",
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer_2", local_files_only=True)
        texts = texts.eval().requires_grad_(requires_grad=False)
        return OwnReader(
            name, encoder, texts, tokenizer, facts["template"], facts["words"], facts["rounds"]
        )


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Tell what is wrong with a file."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, *_UNREADABLE) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"expected a network that puts pictures into words, got: {reason}"
        raise ModelIncompatible(f"{name}: {problem}") from error
