"""Finding a face in a picture: RetinaFace on a ResNet-50, whose weights are one file of facexlib.

Source: Deng et al. 2019, "RetinaFace: Single-stage Dense Face Localisation in the Wild", https://arxiv.org/abs/1905.00641.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import ModelIncompatible
from engine.models.tensors import read_tensors

LONGEST_SIDE = 2048
"""Pixels; larger pictures are looked at smaller, so that memory is bounded."""
_SURE = 0.97
"""How sure the network must be that there is a face, of 0 to 1."""
_MEAN = (104, 117, 123)
"""Blue, green and red of the pictures that it was trained on."""
_LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""Pixels between anchors, and the sides of the two anchors at each place, from fine to coarse."""
_SPREAD = 0.1
"""Share of an anchor's side that one unit of a landmark's offset stands for."""
_POINTS = 5
_COUNTER = "num_batches_tracked"
"""Of training only; some files leave it out."""

Landmarks = NDArray[np.float32]
"""(5, 2): x and y in pixels of the eyes, the nose and the ends of the mouth, those on the left of the picture first."""


class FaceDetector:
    """Finds the landmarks of the clearest face in a picture. It works on the CPU in float32, as Fooocus' does."""

    def __init__(self, network: "RetinaFace") -> None:
        """Look with a loaded network."""
        self._network = network

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Landmarks | None:
        """Give the landmarks of the face that the network is surest of; None where there is none.

        Args:
            image: (H, W, 3) RGB.
        """
        seen, scale = _within_bounds(image)
        pixels = torch.from_numpy(np.ascontiguousarray(seen[..., ::-1])).float()
        values = (pixels - torch.tensor(_MEAN)).permute(2, 0, 1)[None]
        scores, points = _decode(self._network(values))
        best = int(scores.argmax())
        return (points[best] * scale).numpy() if scores[best] > _SURE else None


class RetinaFace(nn.Module):
    """The network. Its parts are named as in the file of weights."""

    def __init__(self, width: int = 64) -> None:
        """Build it without weights.

        Args:
            width: Channels after the first convolution; all others are multiples of it.
        """
        super().__init__()
        out = 4 * width
        self.body = _ResNet50(width)
        self.fpn = _Pyramid((8 * width, 16 * width, 32 * width), out)
        self.ssh1, self.ssh2, self.ssh3 = (_Context(out) for _ in _LEVELS)
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(_Head(out, count) for _ in _LEVELS) for count in (2, 4, 2 * _POINTS)
        )

    def forward(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Look at (1, 3, H, W) values of blue, green and red less their mean.

        Returns:
            For each of three levels the chances (h, w, 2 anchors, 2) of no face and a face before softmax, and the offsets
            (h, w, 2 anchors, 10) of landmarks from the anchors' middles, in tenths of their sides.
        """
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        features = [
            see(level) for see, level in zip(contexts, self.fpn(self.body(values)), strict=True)
        ]
        return [
            (score(feature), place(feature))
            for score, place, feature in zip(
                self.ClassHead, self.LandmarkHead, features, strict=True
            )
        ]


def load_face_detector(
    path: Path, *, allow_pickle: bool = False, known_sha256: Collection[str] = ()
) -> FaceDetector:
    """Read the weights of a detector.

    Args:
        path: facexlib's file.
        allow_pickle: Whether any pickled file may be read.
        known_sha256: Pickled files that may be read in any case.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it holds another network, is broken, or pickled and neither known nor allowed.
    """
    found = read_tensors(path, allow_pickle=allow_pickle, known_sha256=known_sha256)
    weights = {key.removeprefix("module."): value for key, value in found.items()}
    with torch.device("meta"):
        network = RetinaFace()
    own = network.state_dict()
    _require_same(path.name, weights, own)
    network.to_empty(device="cpu")
    network.load_state_dict(
        {key: value for key, value in weights.items() if key in own}, strict=False
    )
    return FaceDetector(network.float().eval().requires_grad_(requires_grad=False))


def _require_same(name: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Make sure that all weights are there, in the right shapes, and no others."""
    for key in sorted({*weights, *own}):
        found, wanted = (tuple(it[key].shape) if key in it else None for it in (weights, own))
        if found != wanted and not key.endswith(_COUNTER):
            problem = f"expected RetinaFace's {key} of shape {wanted}, got {found}"
            raise ModelIncompatible(f"{name}: {problem}")


def _within_bounds(image: NDArray[np.uint8]) -> tuple[NDArray[Any], float]:
    """Make a picture that is too large smaller; gives it and how many of its pixels one now stands for."""
    height, width = image.shape[:2]
    scale = max(1.0, max(height, width) / LONGEST_SIDE)
    if scale == 1:
        return image, scale
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _decode(levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Turn the network's answer into the chance of a face at each anchor, (N,), and its landmarks, (N, 5, 2)."""
    scores, points = [], []
    for (chances, offsets), (step, sides) in zip(levels, _LEVELS, strict=True):
        height, width = chances.shape[:2]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        middles = (torch.stack((columns, rows), dim=-1) + 0.5) * step
        reach = torch.tensor(sides) * _SPREAD
        moved = offsets.reshape(height, width, 2, _POINTS, 2) * reach[:, None, None]
        scores.append(chances.softmax(dim=-1)[..., 1].flatten())
        points.append((moved + middles[:, :, None, None]).flatten(0, 2))
    return torch.cat(scores), torch.cat(points)


class _ResNet50(nn.Module):
    """Features at an eighth, a sixteenth and a thirty-second of the size.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks=3, stride=1)
        self.layer2 = _stage(4 * width, 2 * width, blocks=4, stride=2)
        self.layer3 = _stage(8 * width, 4 * width, blocks=6, stride=2)
        self.layer4 = _stage(16 * width, 8 * width, blocks=3, stride=2)

    def forward(self, values: Tensor) -> Iterator[Tensor]:
        start = self.bn1(self.conv1(values)).relu()
        features = self.layer1(nn.functional.max_pool2d(start, 3, stride=2, padding=1))
        for stage in (self.layer2, self.layer3, self.layer4):
            features = stage(features)
            yield features


class _Bottleneck(nn.Module):
    """Three convolutions around which the input goes on, brought to their shape where it has another."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * inner)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(channels, 4 * inner, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * inner),
            )
            if channels != 4 * inner
            else nn.Identity()
        )

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(values)).relu()
        hidden = self.bn2(self.conv2(hidden)).relu()
        changed: Tensor = self.bn3(self.conv3(hidden)) + self.downsample(values)
        return changed.relu()


def _stage(channels: int, inner: int, *, blocks: int, stride: int) -> nn.Sequential:
    rest = (_Bottleneck(4 * inner, inner, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Bottleneck(channels, inner, stride), *rest)


class _Pyramid(nn.Module):
    """Adds what coarse levels saw to the finer ones."""

    def __init__(self, widths: tuple[int, int, int], out: int) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (
            nn.Sequential(*_convolution(width, out, 1), nn.ReLU()) for width in widths
        )
        self.merge1, self.merge2 = (
            nn.Sequential(*_convolution(out, out, 3), nn.ReLU()) for _ in "12"
        )

    def forward(self, levels: Iterator[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = (
            bring(level)
            for bring, level in zip((self.output1, self.output2, self.output3), levels, strict=True)
        )
        middle = self.merge2(middle + _enlarged(coarse, middle))
        return self.merge1(fine + _enlarged(middle, fine)), middle, coarse


class _Context(nn.Module):
    """Looks at 3, 5 and 7 pixels around each place.

    Source: Najibi et al. 2017, "SSH: Single Stage Headless Face Detector", https://arxiv.org/abs/1708.03979.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.conv3X3 = nn.Sequential(*_convolution(width, half, 3))
        self.conv5X5_1 = nn.Sequential(*_convolution(width, quarter, 3), nn.ReLU())
        self.conv5X5_2 = nn.Sequential(*_convolution(quarter, quarter, 3))
        self.conv7X7_2 = nn.Sequential(*_convolution(quarter, quarter, 3), nn.ReLU())
        self.conv7x7_3 = nn.Sequential(*_convolution(quarter, quarter, 3))

    def forward(self, values: Tensor) -> Tensor:
        wider = self.conv5X5_1(values)
        widest = self.conv7x7_3(self.conv7X7_2(wider))
        return torch.cat((self.conv3X3(values), self.conv5X5_2(wider), widest), dim=1).relu()


class _Head(nn.Module):
    """Some numbers for each of the two anchors at each place."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, 2 * count, 1)

    def forward(self, values: Tensor) -> Tensor:
        numbers: Tensor = self.conv1x1(values)[0].permute(1, 2, 0)
        return numbers.reshape(*numbers.shape[:2], 2, -1)


def _convolution(channels: int, out: int, side: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out, side, padding=side // 2, bias=False), nn.BatchNorm2d(out)


def _enlarged(values: Tensor, like: Tensor) -> Tensor:
    return nn.functional.interpolate(values, like.shape[-2:], mode="nearest")
