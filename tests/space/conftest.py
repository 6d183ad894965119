"""Two Spaces for all tests: one that paints by itself, and one that ZeroGPU lends a card to."""

from collections.abc import Iterator

import pytest

from tests.space.fake_zero_gpu import Scheduler, fake_zero_gpu
from tests.space.living_space import LivingSpace, living_space


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingSpace]:
    with living_space(tmp_path_factory.mktemp("space")) as living:
        yield living


@pytest.fixture(scope="session")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LivingSpace, Scheduler]]:
    with fake_zero_gpu() as scheduler:
        more = {
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": scheduler.address,
            "POCHADE_DEVICE": "cpu",
            "SPACE_WITHOUT_CUDA": "1",
        }
        with living_space(tmp_path_factory.mktemp("zero"), more) as living:
            yield living, scheduler
