"""The face detector answers as facexlib's does, and reads its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.conditioning.retinaface import (
    LONGEST_SIDE,
    FaceDetector,
    RetinaFace,
    load_face_detector,
)
from engine.errors import ModelIncompatible, ModelNotFound
from tests.golden_weights import formula_weights

pytestmark = pytest.mark.torch

FACEXLIB = [
    (156.79387, -0.13188),
    (145.19724, 27.29651),
    (142.77919, 7.5686),
    (139.15247, 22.59837),
    (154.62260, 16.26143),
]
"""What facexlib 0.3.0 finds with the weights of the formula in `pattern`, at a score of 0.9996."""


def weights(network: RetinaFace) -> dict[str, torch.Tensor]:
    shapes = {
        key: tuple(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    return formula_weights({"prefix": "retinaface.", "gain": 0.8, "shapes": shapes})


def pattern(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (np.stack([3 * columns, 2 * rows, rows + columns], axis=2) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pickled file of the real layout; some hold what training of several devices puts before the names."""
    with torch.device("meta"):
        network = RetinaFace()
    path = tmp_path_factory.mktemp("faces") / "detection_Resnet50_Final.pth"
    torch.save({f"module.{key}": value for key, value in weights(network).items()}, path)
    return path


def sure_of(place: tuple[float, float], side_index: int) -> FaceDetector:
    """A detector that sees its landmarks at one offset from every coarse anchor, and no face elsewhere."""
    network = RetinaFace(width=4).eval()
    values = network.state_dict()
    for key in values:
        if "Head" in key:
            values[key].zero_()
    for level in range(3):
        values[f"ClassHead.{level}.conv1x1.bias"][:] = torch.tensor([9.0, -9, 9, -9])
    values["ClassHead.2.conv1x1.bias"][2 * side_index : 2 * side_index + 2] = torch.tensor([-9, 9])
    values["LandmarkHead.2.conv1x1.bias"][:] = torch.tensor(place * 10)
    return FaceDetector(network)


def test_a_file_of_the_real_layout_finds_what_facexlib_finds(file: Path) -> None:
    landmarks = load_face_detector(file, allow_pickle=True)(pattern(160, 120))
    assert landmarks is not None
    np.testing.assert_allclose(landmarks, FACEXLIB, atol=0.01)


def test_landmarks_lie_in_tenths_of_the_anchor_from_its_middle() -> None:
    small = sure_of((1, -2), 0)(np.zeros((32, 32, 3), np.uint8))
    large = sure_of((1, -2), 1)(np.zeros((32, 32, 3), np.uint8))
    np.testing.assert_allclose(small, [(16 + 25.6, 16 - 51.2)] * 5, rtol=1e-6)
    np.testing.assert_allclose(large, [(16 + 51.2, 16 - 102.4)] * 5, rtol=1e-6)


def test_landmarks_of_a_picture_that_is_too_large_are_its_own() -> None:
    image = np.zeros((48, 3 * LONGEST_SIDE, 3), np.uint8)
    landmarks = sure_of((0, 0), 0)(image)
    assert landmarks is not None
    assert (landmarks[:, 0] - 3 * 16).min() % (3 * 32) == 0
    np.testing.assert_allclose(landmarks[:, 1], 3 * 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (70, 3)])
def test_pictures_of_any_size_are_looked_at(size: tuple[int, int]) -> None:
    assert sure_of((0, 0), 0)(pattern(*size)) is not None


def test_where_nothing_is_sure_there_is_no_face() -> None:
    network = RetinaFace(width=4).eval()
    for level in range(3):
        network.state_dict()[f"ClassHead.{level}.conv1x1.weight"].zero_()
        network.state_dict()[f"ClassHead.{level}.conv1x1.bias"][:] = torch.tensor([0.0, 3, 0, 3])
    assert FaceDetector(network)(pattern(64, 64)) is None


def test_a_pickled_file_that_is_not_known_is_refused(file: Path) -> None:
    with pytest.raises(ModelIncompatible, match="--allow-pickle"):
        load_face_detector(file)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="^detection_Resnet50_Final.pth: expected"):
        load_face_detector(tmp_path / "detection_Resnet50_Final.pth")


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"body.conv1.weight": torch.zeros(8, 3, 7, 7)}, path)
    with pytest.raises(ModelIncompatible, match="^other.pth: expected RetinaFace's .+, got None"):
        load_face_detector(path, allow_pickle=True)
