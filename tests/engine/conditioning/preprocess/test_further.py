"""Further drawings: what is missing is named; with the library there, each detector draws."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.conditioning.preprocess.further import DETECTORS, load_preprocessor
from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.controlnets import UNION_MODES

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def some_weights(kind: str, folder: Path) -> None:
    for name in DETECTORS[kind].files:
        torch.save({"weight": torch.zeros(1)}, folder / name)


def test_every_kind_is_one_that_a_union_knows() -> None:
    assert DETECTORS.keys() <= UNION_MODES.keys()


@pytest.mark.parametrize("kind", DETECTORS)
def test_weights_that_are_missing_are_named(kind: str, tmp_path: Path) -> None:
    first = next(iter(DETECTORS[kind].files))
    with pytest.raises(ModelNotFound, match=f"^{kind}: expected {first} in .+; fetch it from http"):
        load_preprocessor(kind, tmp_path, CPU)


@pytest.mark.parametrize("kind", DETECTORS)
def test_weights_that_are_not_known_are_refused(kind: str, tmp_path: Path) -> None:
    some_weights(kind, tmp_path)
    with pytest.raises(ModelIncompatible, match="--allow-pickle"):
        load_preprocessor(kind, tmp_path, CPU)


@pytest.mark.skipif(
    importlib.util.find_spec("controlnet_aux") is not None, reason="controlnet-aux is there"
)
def test_where_the_library_is_missing_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    some_weights("depth", tmp_path)
    with pytest.raises(ModelNotFound, match="pip install 'controlnet-aux"):
        load_preprocessor("depth", tmp_path, CPU, allow_pickle=True)


@pytest.mark.filterwarnings("ignore")  # the library warns at every import
@pytest.mark.skipif(
    importlib.util.find_spec("controlnet_aux") is None, reason="controlnet-aux is not there"
)
class TestWithTheLibrary:
    """The same, where controlnet-aux is installed."""

    def test_soft_edges_are_drawn_at_the_size_of_the_picture(self, tmp_path: Path) -> None:
        from controlnet_aux.hed import ControlNetHED_Apache2

        torch.save(ControlNetHED_Apache2().state_dict(), tmp_path / "ControlNetHED.pth")
        draw = load_preprocessor("soft_edge", tmp_path, CPU, allow_pickle=True)
        drawn = draw(np.zeros((70, 133, 3), np.uint8))
        assert drawn.shape == (70, 133, 3)
        assert drawn.dtype == np.uint8

    def test_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        some_weights("soft_edge", tmp_path)
        with pytest.raises(ModelIncompatible, match="^ControlNetHED.pth: expected the weights of"):
            load_preprocessor("soft_edge", tmp_path, CPU, allow_pickle=True)
