"""Faces are turned upright onto the places that adapters expect."""

import math

import numpy as np
import pytest

from engine.conditioning.faces import SIDE, align_face, crop_face

PLACES = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ],
    dtype=np.float32,
)
"""Eyes, nose and ends of the mouth, from facexlib's template of 512 pixels."""


def moved(scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    """The places, turned around the middle, scaled and shifted."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return ((PLACES - SIDE / 2) @ turn * scale + shift).astype(np.float32)


def smooth_picture(side: int = 600) -> np.ndarray:
    """Red is a quarter of the column, green of the row: a pixel tells where it came from."""
    rows, columns = np.mgrid[:side, :side]
    return np.stack([columns / 4, rows / 4, 0 * rows + 200], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("scale", "degrees", "shift"),
    [(0.5, 0, (300, 280)), (0.8, 25, (310, 300)), (1, -70, (300, 300)), (0.3, 180, (200, 400))],
)
def test_landmarks_come_to_lie_in_their_places(
    scale: float, degrees: float, shift: tuple[float, float]
) -> None:
    landmarks = moved(scale, degrees, shift)
    aligned = align_face(smooth_picture(), landmarks)
    assert aligned is not None
    assert aligned.shape == (SIDE, SIDE, 3)
    for (x, y), place in zip(landmarks, PLACES.round().astype(int), strict=True):
        red, green, _ = (int(level) for level in aligned[place[1], place[0]])
        assert abs(4 * red - x) <= 3
        assert abs(4 * green - y) <= 3


def test_outside_of_the_picture_it_is_grey() -> None:
    aligned = align_face(smooth_picture(), moved(1, 0, (100, 100)))
    assert aligned is not None
    assert aligned[5, 5].tolist() == [132, 133, 135]
    assert aligned[-5, -5].tolist() == [88, 88, 200]


def test_one_landmark_that_is_off_does_not_move_the_face() -> None:
    landmarks = moved(0.7, 10, (300, 300))
    expected = align_face(smooth_picture(), landmarks)
    landmarks[2] += 60
    aligned = align_face(smooth_picture(), landmarks)
    assert expected is not None
    assert aligned is not None
    assert np.abs(aligned.astype(int) - expected).max() <= 1


def test_points_that_are_no_face_are_not_aligned() -> None:
    assert align_face(smooth_picture(), np.zeros((5, 2), np.float32)) is None


def test_a_face_is_cut_out_and_said_to_be_found() -> None:
    crop = crop_face(smooth_picture(), lambda image: moved(0.5, 0, (300, 300)))
    assert crop.found
    assert crop.image.shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("landmarks", [None, np.zeros((5, 2), np.float32)])
def test_a_picture_without_a_face_stays_whole(landmarks: np.ndarray | None) -> None:
    image = smooth_picture()
    crop = crop_face(image, lambda image: landmarks)
    assert not crop.found
    assert crop.image is image
