"""The pocket model's inpaint partners: files of Fooocus' layout that let the engine repaint, paint beyond and vary."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from engine.models.inpaint_head import head_addition, load_inpaint_head
from engine.models.patches import Patch, WeightPatcher
from pocket.draw import draw
from pocket.holes import Holes, anywhere, fill_holes, ground_beyond, half, make_hole
from pocket.measure_inpaint import (
    distances,
    is_kept,
    judge_outpainted,
    make_cases,
    outpaint,
    repaint,
    varied,
)
from pocket.measure_modes import HERE, open_studio
from pocket.parts import library, make_unet
from pocket.score import read
from pocket.train_inpaint import (
    FOLDER,
    HEAD_FILE,
    MODEL,
    PARTNERS,
    PATCH_FILE,
    Repainter,
    load_repainter,
    name_partners,
    quantise,
    write_inpaint,
)
from pocket.world import Scene, seen_scenes

pytestmark = pytest.mark.torch

COUNT = 4
FEW_STEPS = {"num_inference_steps": 12}


@pytest.fixture(scope="module")
def studio():
    return open_studio(HERE.parent / "models")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return make_cases(COUNT, tmp_path_factory.mktemp("cases"), seed=4)


def test_the_masked_object_becomes_what_the_prompt_names(studio, cases):
    made = repaint(studio, cases, {}, advanced=FEW_STEPS)
    seen = [read(picture) for picture in made]
    assert [each.background for each in seen] == [scene.background for scene in cases.wanted]
    right = [
        (each.colour, each.shape) == (scene.colour, scene.shape)
        for each, scene in zip(seen, cases.wanted, strict=True)
    ]
    assert sum(right) >= COUNT - 1
    assert all(is_kept(*it) for it in zip(cases.drawings, made, cases.masks, strict=True))


def test_beyond_the_sides_the_background_goes_on(studio, cases):
    sides = [("Right",), ("Left", "Top")] * (COUNT // 2)
    made = outpaint(studio, cases, sides, advanced=FEW_STEPS)
    assert [picture.shape for picture in made[:2]] == [(128, 166, 3), (166, 166, 3)]
    told = zip(cases.scenes, cases.drawings, made, sides, strict=True)
    seen = [judge_outpainted(*each) for each in told]
    assert all(each.is_kept for each in seen)
    assert np.median([each.difference for each in seen]) < 12


def test_subtle_is_nearer_than_strong_and_strong_nearer_than_another_seed(studio, cases):
    subtle, strong, anew = (
        distances(studio, cases, [{**each, "advanced": FEW_STEPS} for each in fields]).mean()
        for fields in (
            varied(cases, "Vary (Subtle)"),
            varied(cases, "Vary (Strong)"),
            [{}] * COUNT,
        )
    )
    assert subtle < strong < anew


def test_the_files_have_the_layout_of_fooocus_files():
    with safe_open(MODEL / FOLDER / HEAD_FILE, framework="pt") as file:
        assert list(file.keys()) == ["head"]
    assert load_inpaint_head(MODEL / FOLDER / HEAD_FILE, 64).shape == (64, 5, 3, 3)
    path = MODEL / FOLDER / PATCH_FILE
    assert path.stat().st_size < 10 * 2**20
    tensors = load_file(path)
    levels = {key for key in tensors if key.endswith("|q")}
    assert len(tensors) == 3 * len(levels)
    assert "diffusion_model.input_blocks.1.0.in_layers.2.weight|q" in levels
    assert all(tensors[key].dtype == torch.uint8 for key in levels)
    unet = library.UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
    report = WeightPatcher({"unet": unet}).use([Patch(path, 1.0, unet_only=True)])
    assert (report.files[0].matched, report.files[0].unmatched) == (len(tensors), 0)


def test_a_written_patch_makes_the_trained_weights_of_the_base(tmp_path):
    torch.manual_seed(0)
    base, other = make_unet(), make_unet()
    other.load_state_dict(base.state_dict())
    repainter = Repainter(other)
    weight = other.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q.weight
    with torch.no_grad():
        weight += 0.01 * torch.randn_like(weight)
        other.mid_block.resnets[0].conv1.bias += 0.5
    write_inpaint(repainter, base, tmp_path)
    assert len(load_file(tmp_path / PATCH_FILE)) == 6
    WeightPatcher({"unet": base}).use([Patch(tmp_path / PATCH_FILE, 1.0, unet_only=True)])
    theirs = dict(other.named_parameters())
    for name, mine in base.named_parameters():
        torch.testing.assert_close(mine, theirs[name], rtol=0, atol=2e-4)


def test_the_card_names_the_files_and_keeps_what_else_it_says(tmp_path):
    card = tmp_path / "pochade.json"
    card.write_text('{"name": "pocket", "partners": {"upscaler": "pocket_2x.safetensors"}}')
    name_partners(card)
    said = json.loads(card.read_text())
    assert said["name"] == "pocket"
    assert said["partners"] == {"upscaler": "pocket_2x.safetensors", **PARTNERS}
    shipped = json.loads((MODEL / "pochade.json").read_text())["partners"]
    assert dict(PARTNERS).items() <= shipped.items()


def test_levels_reach_from_the_lowest_to_the_highest():
    difference = torch.tensor([[-0.5, 0.0], [0.25, 1.0]])
    levels, low, high = quantise(difference)
    assert (float(low), float(high)) == (-0.5, 1.0)
    assert (int(levels[0, 0]), int(levels[1, 1])) == (0, 255)
    torch.testing.assert_close(
        levels / 255 * (high - low) + low, difference, rtol=0, atol=1.5 / 255
    )
    assert quantise(torch.zeros(3))[0].tolist() == [0, 0, 0]


def test_training_shows_the_unet_what_the_engine_shows_it():
    torch.manual_seed(0)
    repainter = Repainter(make_unet())
    with torch.no_grad():
        repainter.slow_head.normal_()
    seen = []
    repainter.unet.conv_in.register_forward_pre_hook(lambda _, told: seen.append(told[0]))
    mask, masked = torch.ones(1, 1, 16, 16), torch.randn(1, 4, 16, 16)
    told = (torch.tensor([500]), torch.zeros(1, 77, 160), torch.zeros(1, 96), torch.zeros(1, 6))
    loss = repainter(torch.randn(1, 4, 16, 16), masked, mask, *told)
    assert loss.isfinite()
    expected = head_addition(repainter.head.detach(), mask, masked)
    torch.testing.assert_close(seen[0][:, 4:], expected, rtol=0, atol=1e-4)


def test_holes_hide_what_they_should():
    rng = np.random.default_rng(3)
    for _ in range(40):
        assert 0.04 < anywhere(rng, (128, 160)).mean() <= 0.62
        assert 0.2 < half(rng, (128, 160)).mean() <= 0.62
    source = seen_scenes(rng)
    for _ in range(24):
        _, canvas = make_hole(rng, source)
        assert 0 < (canvas.hole > 0).mean() < 1
        assert canvas.hole.shape == canvas.image.shape[:2]
        assert not any(side % 8 for side in canvas.size)


def test_a_ground_goes_on_as_steeply_as_it_comes():
    scene = Scene("star", "red", "blue", ground="gradient")
    drawing = draw([scene], np.random.default_rng(1))[0]
    ground = ground_beyond(scene, drawing, ("Left", "Top")).astype(int)
    assert ground.shape == (166, 166, 3)
    assert (ground[:, :38] == ground[:, 38:39]).all()
    assert np.abs(ground[38:, -1] - drawing[:, -1]).max() <= 1
    assert (np.diff(ground[:80, 0].sum(axis=1)) <= 0).all()
    assert ground[0].sum() > ground[38].sum()


def test_lessons_are_drawn_once_and_sampled_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr("pocket.holes._FEWEST", 1)
    library.AutoencoderKL.from_pretrained(MODEL / "vae").save_pretrained(tmp_path / "vae")
    fill_holes(tmp_path, 12)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "holes").iterdir()}
    fill_holes(tmp_path, 12)
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "holes").iterdir()}
    batch = Holes(tmp_path).sample(np.random.default_rng(1), 3)
    assert batch.latents.shape == batch.masked.shape == (3, 4, *batch.masks.shape[2:])
    assert set(batch.masks.unique().tolist()) <= {0.0, 1.0}
    assert len(batch.scenes) == 3
    hole = batch.masks.expand_as(batch.latents) > 0
    assert (batch.latents - batch.masked).abs()[hole].mean() > 0.1


def test_no_lessons_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no drawings with holes"):
        Holes(tmp_path)


def test_only_some_of_the_unet_learns(tmp_path):
    library.UNet2DConditionModel.from_pretrained(MODEL / "unet").save_pretrained(tmp_path / "unet")
    repainter = load_repainter(tmp_path)
    learning = {name for name, it in repainter.named_parameters() if it.requires_grad}
    assert "slow_head" in learning
    assert "unet.mid_block.resnets.0.conv1.weight" in learning
    assert not any("embed" in name or ".ff." in name for name in learning)
