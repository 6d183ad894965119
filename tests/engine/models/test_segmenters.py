"""rembg's networks: run by onnxruntime where it is installed, and a sentence where it or the file is missing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from engine import ModelIncompatible, ModelNotFound
from engine.models.segmenters import load_outline_network
from engine.stages.find_mask import find_outstanding
from tests.tiny_segmenters import write_onnx

pytestmark = pytest.mark.torch

HAS_ONNX = importlib.util.find_spec("onnxruntime") is not None
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs onnxruntime")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"u2net\.onnx: expected an ONNX file in"):
        load_outline_network(tmp_path / "u2net.onnx")


@pytest.mark.skipif(HAS_ONNX, reason="onnxruntime is installed")
def test_a_missing_library_is_said(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "u2net.onnx", 320)
    with pytest.raises(ModelNotFound, match=r"u2net\.onnx: .*pip install onnxruntime"):
        load_outline_network(path)


@needs_onnx
def test_what_stands_out_becomes_a_soft_mask(tmp_path: Path) -> None:
    network = load_outline_network(write_onnx(tmp_path / "u2net.onnx", 320))
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:40, 30:60] = 255
    picture[20:40, 10:20] = 128
    mask = find_outstanding(network, picture, "u2net")
    assert mask.shape == (60, 80)
    assert mask[30, 45] == 255
    assert mask[50, 5] == 0
    assert 120 <= mask[30, 15] <= 136


@needs_onnx
def test_another_file_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "u2net.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(ModelIncompatible, match=r"u2net\.onnx: expected an ONNX network"):
        load_outline_network(path)
    network = load_outline_network(write_onnx(tmp_path / "small.onnx", 64))
    with pytest.raises(ModelIncompatible, match=r"small\.onnx: expected an ONNX network"):
        find_outstanding(network, np.zeros((8, 8, 3), np.uint8), "u2net")
