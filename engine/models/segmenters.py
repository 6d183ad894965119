"""Networks that find things in pictures: what stands out, boxes around what words name, outlines in boxes.

The first kind are the ONNX files of rembg, run by onnxruntime where it is installed; the others are GroundingDINO and SAM, as
folders of transformers. Knows tensors, not pictures.
"""

import importlib
import importlib.util
from collections.abc import Iterator
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
from engine.partners import ONNX_LIBRARY, ONNX_MISSING

_UNREADABLE = (ValueError, KeyError, RuntimeError, AttributeError, TypeError, SafetensorError)
_MAX_TOKENS = 256
"""Most tokens that a GroundingDINO reads, where its description doesn't say."""


@dataclass(frozen=True, eq=False)
class OutlineNetwork:
    """A network that finds what stands out."""

    name: str
    session: Any
    """Of onnxruntime."""

    def run(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (1, 3, s, s) to (1, C, s, s).

        Raises:
            ModelIncompatible: it cannot take or give that.
        """
        with running(self.name):
            first = self.session.get_inputs()[0].name
            answer = np.asarray(self.session.run(None, {first: values})[0], np.float32)
        if answer.ndim != values.ndim or answer.shape[2:] != values.shape[2:]:
            problem = f"expected answers of {values.shape[2:]}, got {answer.shape}"
            raise ModelIncompatible(f"{self.name}: {problem}")
        return answer


@dataclass(frozen=True, eq=False)
class Detector:
    """A GroundingDINO, in float32."""

    name: str
    network: Any
    tokenizer: Any
    device: torch.device

    def run(self, values: Tensor, caption: str) -> tuple[Tensor, Tensor]:
        """Look for what a caption names.

        Args:
            values: (1, 3, H, W), with ImageNet's mean and spread taken out.
            caption: In lower case, with a full stop at its end.

        Returns:
            Boxes (N, 4) as middle x, middle y, width and height in shares of the picture, and how certain each is (N,), 0 to 1,
            in the order of the network; on the CPU.
        """
        limit = getattr(self.network.config, "max_text_len", _MAX_TOKENS)
        words = self.tokenizer(
            caption,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        with torch.inference_mode():
            answer = self.network(
                pixel_values=values.to(self.device),
                input_ids=words["input_ids"].to(self.device),
                token_type_ids=words["token_type_ids"].to(self.device),
                attention_mask=words["attention_mask"].to(self.device),
            )
        scores = answer.logits[0].sigmoid().amax(dim=-1)
        return answer.pred_boxes[0].float().cpu(), scores.float().cpu()


@dataclass(frozen=True, eq=False)
class Sam:
    """A Segment Anything Model, in float32."""

    name: str
    network: Any
    device: torch.device

    @property
    def side(self) -> int:
        """Pixels along each side of the square that it sees."""
        return int(self.network.config.vision_config.image_size)

    def run(self, values: Tensor, boxes: Tensor) -> Iterator[Tensor]:
        """Draw the outline of what is in each box.

        Args:
            values: (1, 3, side, side), with ImageNet's mean and spread taken out; below and right of the picture 0.
            boxes: (N, 4), left, top, right and bottom in pixels of `values`.

        Yields:
            (side, side) for each box, above 0 inside of the outline; on its device.
        """
        with torch.inference_mode():
            seen = self.network.get_image_embeddings(values.to(self.device))
            for box in boxes.to(self.device):
                answer = self.network(
                    image_embeddings=seen, input_boxes=box[None, None], multimask_output=False
                )
                yield functional.interpolate(
                    answer.pred_masks[:, 0].float(), (self.side, self.side), mode="bilinear"
                )[0, 0]


def load_outline_network(path: Path) -> OutlineNetwork:
    """Read an ONNX file; it runs on the CPU.

    Raises:
        ModelNotFound: there is no such file, or nothing that runs it.
        ModelIncompatible: it is none that onnxruntime reads.
    """
    if not path.is_file():
        raise ModelNotFound(f"{path.name}: expected an ONNX file in {path.parent}, found none")
    if importlib.util.find_spec(ONNX_LIBRARY) is None:
        raise ModelNotFound(f"{path.name}: {ONNX_MISSING}")
    library = importlib.import_module(ONNX_LIBRARY)
    with running(path.name):
        options = library.SessionOptions()
        options.log_severity_level = 3
        session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return OutlineNetwork(path.name, session)


def load_detector(path: Path, device: torch.device) -> Detector:
    """Read the folder of a GroundingDINO and put it on `device`.

    Raises:
        ModelNotFound: there is no such folder.
        ModelIncompatible: it holds another network, or not all of it.
    """
    quiet_libraries()
    from transformers import AutoTokenizer, GroundingDinoForObjectDetection

    network = _load(GroundingDinoForObjectDetection, path, device)
    with _reading(path):
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return Detector(path.name, network, tokenizer, device)


def load_sam(path: Path, device: torch.device) -> Sam:
    """Read the folder of a SAM and put it on `device`.

    Raises:
        ModelNotFound: there is no such folder.
        ModelIncompatible: it holds another network, or not all of it.
    """
    quiet_libraries()
    from transformers import SamModel

    return Sam(path.name, _load(SamModel, path, device), device)


def _load(kind: Any, path: Path, device: torch.device) -> Any:
    if not (path / "config.json").is_file():
        raise ModelNotFound(f"{path.name}: expected a folder with config.json at {path}")
    with _reading(path):
        network, report = kind.from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        problem = f"expected all weights of a {kind.__name__}, got none for {missing[0]}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    return network.to(device).eval().requires_grad_(requires_grad=False)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what is wrong with a folder of transformers."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, *_UNREADABLE) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"expected a network of transformers in safetensors, got: {reason}"
        raise ModelIncompatible(f"{path.name}: {problem}") from error


@contextmanager
def running(name: str) -> Iterator[None]:
    """Run an ONNX network; tell what onnxruntime stumbles over; its errors have no common type of their own.

    Raises:
        ModelIncompatible: it cannot run the network.
    """
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"expected an ONNX network that onnxruntime runs, got: {reason}"
        raise ModelIncompatible(f"{name}: {problem}") from error
