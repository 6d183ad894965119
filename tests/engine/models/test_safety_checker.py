"""Safety checkers are read off their weights alone, and judge as diffusers' own do."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.safety import load_safety_checker
from engine.stages.safety import _as_seen, check
from tests.tiny_checker import ALL, NONE, SIDE, old_names, tiny_checker, write_tiny_checker

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def pictures(*sizes, seed=0):
    random = np.random.default_rng(seed)
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


@pytest.mark.parametrize("size", [(40, 64), (65, 40), (64, 64), (28, 28), (20, 33), (1152, 896)])
def test_pictures_are_prepared_as_clip_wants_them(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    (image,) = pictures(size)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    expected = processor(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(_as_seen(image, SIDE), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_file_alone_gives_back_the_network(tmp_path, ending):
    own = tiny_checker(0.0)
    path = tmp_path / f"checker.{ending}"
    weights = old_names(own)
    weights["vision_model.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(weights, path) if ending == "safetensors" else torch.save(weights, path)
    found = load_safety_checker(path, CPU, allow_pickle=True)
    assert found.side == SIDE
    images = pictures(*[(40, 30)] * 6)
    seen = torch.stack([_as_seen(image, SIDE) for image in images])
    ours, theirs = (net.vision_model(seen)[1] for net in (found.network, own))
    assert torch.equal(ours, theirs)
    assert check(found, images) == own(seen, [np.zeros(1)] * 6)[1]


def test_a_file_in_half_precision_is_read_in_full(tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({key: value.half() for key, value in old_names(tiny_checker(ALL)).items()}, path)
    found = load_safety_checker(path, CPU)
    assert {value.dtype for value in found.network.parameters()} == {torch.float32}
    assert check(found, pictures((30, 30))) == [True]


def test_thresholds_decide_and_special_care_lowers_them(tmp_path):
    images = pictures(*[(40, 30)] * 4)
    for threshold, flag in ((ALL, True), (NONE, False)):
        path = write_tiny_checker(tmp_path / f"{threshold}.safetensors", threshold)
        assert check(load_safety_checker(path, CPU), images) == [flag] * 4
    path = tmp_path / "close.safetensors"
    weights = old_names(tiny_checker(NONE))
    network = load_safety_checker(write_tiny_checker(path, NONE), CPU).network
    seen = _as_seen(images[0], SIDE)[None]
    with torch.no_grad():
        embedded = network.visual_projection(network.vision_model(seen)[1])
    nearest = torch.nn.functional.cosine_similarity(embedded, network.concept_embeds).max()
    weights["concept_embeds_weights"] = torch.full((17,), float(nearest) + 0.005)
    for special, flag in ((NONE, False), (ALL, True)):
        weights["special_care_embeds_weights"] = torch.full((3,), special)
        save_file(weights, path.with_name(f"{special}.close.safetensors"))
        found = load_safety_checker(path.with_name(f"{special}.close.safetensors"), CPU)
        assert check(found, images[:1]) == [flag]


def test_no_pictures_have_no_flags(tmp_path):
    path = write_tiny_checker(tmp_path / "all.safetensors", ALL)
    assert check(load_safety_checker(path, CPU), []) == []


def test_what_is_no_safety_checker_is_refused(tmp_path):
    with pytest.raises(ModelNotFound, match=r"none.safetensors"):
        load_safety_checker(tmp_path / "none.safetensors", CPU)
    path = write_tiny_checker(tmp_path / "checker.safetensors", ALL)
    weights = {key: value.clone() for key, value in load_file(path).items()}
    for key, value, reason in (
        ("concept_embeds", None, "got a file without its concept_embeds"),
        ("special_care_embeds", None, r"special_care_embeds of shape \(3, 24\), got None"),
        ("visual_projection.bias", torch.zeros(2), r"of shape None, got \(2,\)"),
        ("vision_model.vision_model.pre_layrnorm.bias", torch.zeros(2), "pre_layrnorm.bias"),
        ("visual_projection.weight", torch.zeros(3), "without its visual_projection.weight"),
        ("concept_embeds", torch.zeros(3, 3), "concept_embeds of shape"),
    ):
        changed = {k: v for k, v in weights.items() if k != key}
        save_file(changed if value is None else {**changed, key: value}, tmp_path / "x.safetensors")
        with pytest.raises(ModelIncompatible, match=reason):
            load_safety_checker(tmp_path / "x.safetensors", CPU)


def test_a_pickled_file_needs_leave(tmp_path):
    torch.save(old_names(tiny_checker(ALL)), tmp_path / "checker.bin")
    with pytest.raises(ModelIncompatible, match="--allow-pickle"):
        load_safety_checker(tmp_path / "checker.bin", CPU)
