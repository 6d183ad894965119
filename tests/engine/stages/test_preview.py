"""Previews are the same beside the steps as between them, and only the latest are made."""

import io
import threading
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.stages.preview import LONG_SIDE, PreviewPrinter, Wanted

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def grey(latents: Tensor) -> Tensor:
    """Eight pixels a cell, all as bright as the first channel's mean."""
    rows, _, height, width = latents.shape
    means = latents[:, :1].mean((1, 2, 3)).view(rows, 1, 1, 1)
    return means.expand(rows, 3, 8 * height, 8 * width)


def wanted(decode: Any = grey, **levels: float) -> list[Wanted[str]]:
    shown = torch.cat([torch.full((1, 4, 8, 12), level) for level in levels.values()])
    return [Wanted(list(levels), decode, shown)]


def brightness(preview: bytes) -> int:
    return Image.open(io.BytesIO(preview)).getpixel((5, 5))[0]


def settled(printer: PreviewPrinter[str]) -> None:
    assert printer._printing is not None
    printer._printing.result()


def test_between_the_steps_they_come_at_once():
    previews = PreviewPrinter[str](CPU).print(wanted(dark=-1.0, bright=1.0))
    assert [brightness(previews[key]) for key in ("dark", "bright")] == [0, 255]
    assert Image.open(io.BytesIO(previews["dark"])).size == (96, 64)


def test_large_ones_are_made_smaller():
    large = [Wanted(["it"], grey, torch.zeros(1, 4, 100, 50))]
    preview = PreviewPrinter[str](CPU).print(large)["it"]
    assert Image.open(io.BytesIO(preview)).size == (LONG_SIDE // 2, LONG_SIDE)


def test_beside_the_steps_they_come_later_and_are_the_same():
    asked = wanted(dark=-0.8, bright=0.4)
    printer = PreviewPrinter[str](CPU, is_apart=True)
    assert printer.print(asked) == {}
    settled(printer)
    assert printer.print(asked) == PreviewPrinter[str](CPU).print(asked)


def test_of_images_that_are_over_nothing_is_shown():
    printer = PreviewPrinter[str](CPU, is_apart=True)
    printer.print(wanted(over=0.0, going=0.0))
    settled(printer)
    assert set(printer.print(wanted(going=0.0, new=0.0))) == {"going"}
    assert printer.print([]) == {}


def test_while_some_are_made_others_are_left_out(monkeypatch):
    go_on, begun = threading.Event(), threading.Event()
    decoded: list[int] = []

    def decode(latents: Tensor) -> Tensor:
        decoded.append(len(latents))
        return grey(latents)

    def slow(self: Image.Image, size: tuple[int, int]) -> None:
        begun.set()
        assert go_on.wait(30)

    monkeypatch.setattr(Image.Image, "thumbnail", slow)
    printer = PreviewPrinter[str](CPU, is_apart=True)
    printer.print(wanted(decode, it=-1.0))
    assert begun.wait(30)
    assert printer.print(wanted(decode, it=0.0)) == {}
    assert len(decoded) == 1
    go_on.set()
    settled(printer)
    assert brightness(printer.print(wanted(decode, it=1.0))["it"]) == 0
    settled(printer)
    assert brightness(printer.print(wanted(decode, it=1.0))["it"]) == 255
