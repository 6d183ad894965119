"""Several base models stay in memory within a budget, and LoRA sets come and go without a trace."""

import hashlib
import itertools
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine import Library, ModelIncompatible, TextRequest
from engine.models.unets import load_unet
from engine.palette import Palette
from engine.places import read_catalog
from engine.settle import plan
from engine.warm_models import WarmModels
from tests.tiny_model import WIDTH_1, WIDTH_2, write_tiny_model

pytestmark = pytest.mark.torch

NAMES = ("one", "two", "three")
SETS = 10
LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


class Box:
    """Stands for a model of a known size."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_what_was_used_longest_ago_goes_first():
    models = WarmModels[Box](100)
    for key in "ab":
        models.make_room(40)
        models.keep(key, Box(40))
    assert models.get("a")
    models.make_room(40)
    assert ("a" in models, "b" in models) == (True, False)


def test_there_is_room_for_one_of_any_size():
    models = WarmModels[Box](0)
    models.make_room(1000)
    models.keep("large", Box(1000))
    assert "large" in models
    models.make_room(1)
    assert "large" not in models


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        write_tiny_model(folder / "checkpoints" / name, seed=seed)
    (folder / "loras").mkdir()
    for number in range(SETS):
        generator = torch.Generator().manual_seed(number)
        tensors = {
            f"{LAYER}.lora_down.weight": torch.randn(4, WIDTH_1 + WIDTH_2, generator=generator),
            f"{LAYER}.lora_up.weight": torch.randn(64, 4, generator=generator),
        }
        save_file(tensors, folder / "loras" / f"{number}.safetensors")
    return folder


def job(catalog, base, loras=(), **studio):
    asked = {
        "prompt": "a star",
        "aspect_ratio": "64x64",
        "advanced": {"base_model": base},
        "studio": {"loras": [{"path": path} for path in loras], **studio},
    }
    return plan(TextRequest.parse(asked), Library(catalog=catalog), seed=1)


def checksum(unet) -> str:
    digest = hashlib.sha256()
    for weight in unet.parameters():
        digest.update(weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_forty_switches_leave_no_trace(models_dir):
    catalog = read_catalog(models_dir)
    palette = Palette(catalog, torch.device("cpu"), allow_pickle=False, budget=2**32)
    pristine = {name: checksum(palette.bring(job(catalog, name)).loaded.unet) for name in NAMES}
    loaded = {name: palette.bring(job(catalog, name)) for name in NAMES}
    taken = sum(model.nbytes for model in loaded.values())
    switches = zip(itertools.cycle(NAMES), itertools.islice(itertools.cycle(range(SETS)), 40))
    seen: dict[tuple[str, int], str] = {}
    for name, number in switches:
        model = palette.bring(job(catalog, name, [f"{number}.safetensors"]))
        assert model is loaded[name]  # nothing is loaded twice
        patched = checksum(model.loaded.unet)
        assert patched != pristine[name]
        assert seen.setdefault((name, number), patched) == patched
    assert len(set(seen.values())) == len(seen)
    for name in NAMES:
        assert checksum(palette.bring(job(catalog, name)).loaded.unet) == pristine[name]
    assert sum(model.nbytes for model in loaded.values()) == taken


def test_without_a_budget_one_model_stays(models_dir):
    catalog = read_catalog(models_dir)
    palette = Palette(catalog, torch.device("cpu"), allow_pickle=False)
    first = palette.bring(job(catalog, "one"))
    palette.bring(job(catalog, "two"))
    assert not palette.has_base(job(catalog, "one"))
    assert palette.bring(job(catalog, "one")) is not first


@pytest.fixture(scope="module")
def with_unets(models_dir) -> Path:
    """Another model's UNet as a folder and as a file."""
    folder = models_dir / "unet"
    folder.mkdir()
    shutil.copytree(models_dir / "checkpoints" / "three" / "unet", folder / "other")
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "other", use_safetensors=True)
    save_file(dict(unet.state_dict()), folder / "file.safetensors")
    save_file({"conv_in.weight": torch.zeros(1)}, folder / "broken.safetensors")
    return models_dir


@pytest.mark.parametrize("name", ["other", "file.safetensors"])
def test_another_unet_takes_the_place_of_the_base_models_own(with_unets, name):
    catalog = read_catalog(with_unets)
    palette = Palette(catalog, torch.device("cpu"), allow_pickle=False, budget=2**32)
    own = palette.bring(job(catalog, "one"))
    other = palette.bring(job(catalog, "one", unet_name=name))
    third = palette.bring(job(catalog, "three"))
    assert checksum(other.loaded.unet) == checksum(third.loaded.unet)
    assert checksum(other.loaded.unet) != checksum(own.loaded.unet)
    assert palette.bring(job(catalog, "one")) is own


def test_a_file_that_is_no_unet_is_refused(with_unets):
    catalog = read_catalog(with_unets)
    palette = Palette(catalog, torch.device("cpu"), allow_pickle=False)
    like = palette.bring(job(catalog, "one")).loaded.unet
    with pytest.raises(ModelIncompatible, match=r"broken\.safetensors: expected a UNet with"):
        load_unet(with_unets / "unet" / "broken.safetensors", like)
