"""Plans of jobs with pictures, and what these start from, equal Fooocus' (golden/image_requests)."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from engine import Catalog, Checkpoint, Library, Plan, TextRequest, plan
from engine.catalog import Weights
from engine.loop import Denoiser
from engine.models.upscale_nets import Compact
from engine.partners import COMMON
from engine.plan import FromNoise, Repainting
from engine.records.record import log_rows
from engine.sampling.prediction import model_sampling
from engine.stages.hints import draw, own_preprocessor
from engine.stages.masks import is_hole_in, read_mask, union
from engine.stages.metadata import record_of
from engine.stages.pixels import Pixels, size_of, stretch, to_rgb
from engine.starts import Beginning, Starts
from tests.engine.test_plan_golden import (
    GOLDEN,
    diffusion,
    encoded,
    request_of_case,
    write_header,
)
from tests.golden_data import golden_arrays, golden_json
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

REQUESTS = golden_json("image_requests.json")
INPUTS = golden_arrays("image_requests_inputs.npz")
HINTS = golden_arrays("image_requests_hints.npz")
SIDE = 224
"""Of the squares that image encoders see."""


def array_of(spec: Mapping[str, Any]) -> Pixels:
    """Read a picture of the golden data: packed, of one level, or by its formula."""
    if "array" in spec:
        return np.array(Image.open(io.BytesIO(INPUTS[spec["array"]].tobytes())))
    if "constant" in spec:
        return np.full(spec["shape"], spec["constant"], np.uint8)
    (height, width, _), k = spec["shape"], spec["k"]
    y, x = np.mgrid[:height, :width]
    colours = (3 * x + 40 * k, 2 * y + 17 * k, x + y + 5 * k)
    return (np.stack(colours, axis=2) % 256).astype(np.uint8)


class Asked:
    """A golden request in our fields, and the files that it sends along."""

    def __init__(self, case: Mapping[str, Any], folder: Path) -> None:
        self.asked = {**REQUESTS["defaults"], **case["request"]}
        self.pictures: dict[str, Path] = {}
        self._folder = folder
        with_tab = {tab: self._has(tab) for tab in ("inpaint", "uov", "ip")}
        fields: dict[str, Any] = {}
        if with_tab["inpaint"] and (inpaint := self._inpaint()):
            fields["inpaint"] = inpaint
        if with_tab["uov"] and self.asked["uov_method"] != "Disabled":
            fields["upscale_or_vary"] = self._upscale_or_vary()
        if with_tab["ip"]:
            fields["image_prompts"] = [
                {"image": self._sent(array_of(picture)), "type": kind, "stop_at": stop}
                | {"weight": weight}
                for picture, stop, weight, kind in self.asked["cn"]
            ]
        text = request_of_case({"request": {**REQUESTS["defaults"], **case["request"]}})
        values = text.model_dump()
        values["advanced"] |= {
            "skip_preprocessors": self.asked["skip_cn"],
            "canny_low_threshold": self.asked["canny_low"],
            "canny_high_threshold": self.asked["canny_high"],
            "controlnet_softness": self.asked["softness"],
        }
        self.request = TextRequest.parse({**values, **fields})

    def _has(self, tab: str) -> bool:
        """Whether a tab acts: it is in front, or mixed into image prompts."""
        front = self.asked["tab"]
        is_mixed = front == "ip" and self.asked.get(f"mix_{tab}", False)
        return bool(self.asked["input_image"]) and (front == tab or is_mixed)

    def _sent(self, pixels: Pixels) -> str:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG", compress_level=1)
        name = hashlib.sha256(data.getvalue()).hexdigest()
        self.pictures[name] = self._folder / name
        self.pictures[name].write_bytes(data.getvalue())
        return name

    def _inpaint(self) -> dict[str, Any] | None:
        """Write the tab's settings; None where Fooocus sees nothing to paint, which is an error here."""
        asked = self.asked
        image = array_of(asked["inpaint_image"]["image"])
        mask = array_of(asked["inpaint_image"]["mask"])[..., 0]
        if asked["adv_mask"]:
            mask = union([mask, _uploaded(asked["inpaint_mask_upload"], image)])
        if not asked["outpaint"] and not is_hole_in(mask):
            return None
        return {
            "image": self._sent(image),
            "mask": self._sent(mask),
            "additional_prompt": asked["inpaint_prompt"],
            "outpaint": asked["outpaint"],
            "disable_initial_latent": asked["disable_initial_latent"],
            "engine": asked["engine"],
            "strength": asked["strength"],
            "respective_field": asked["field"],
            "erode_or_dilate": asked["erode"],
            "invert_mask": asked["invert"],
        }

    def _upscale_or_vary(self) -> dict[str, Any]:
        method = self.asked["uov_method"]
        strength = self.asked["ow_vary" if method.startswith("Vary") else "ow_upscale"]
        return {
            "image": self._sent(array_of(self.asked["uov_image"])),
            "method": method,
            "strength": strength if strength > 0 else None,
        }


def _uploaded(spec: Mapping[str, Any], image: Pixels) -> Pixels:
    """Read a mask that was uploaded, together with what was drawn on it."""
    if "image" in spec:
        drawn = union([array_of(spec["image"]), array_of(spec["mask"])])
        return read_mask(drawn, size_of(image))
    return read_mask(array_of(spec), size_of(image))


CASES = {
    name: case
    for name, case in REQUESTS.get("cases", {}).items()
    if not case["request"].get("enhance")
}


SHAPING = {"performance", "seed", "prompt", "erode", "invert", "adv_mask"}
"""What changes a plan, or a canvas (`test_inpaint_golden`), but not the way that a job begins."""
UNLIKE = {
    json.dumps(
        {
            key: value
            for key, value in case["request"].items()
            if key not in SHAPING and not key.endswith(("_image", "_upload"))
        }
    ): name
    for name, case in CASES.items()
}.values()
"""One case of each way to begin."""
LEVELS_CUT_OFF = 0.3
"""An upscaler's answers are fractions, which are cut off; the recordings' were whole."""


def mean_of(shown: Mapping[str, Any]) -> float:
    """Mean level of a recorded picture."""
    return float(shown["sum"] / np.prod(shown["shape"]))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """What the recordings had: base models of which only the layout is read, and small helpers."""
    folder = tmp_path_factory.mktemp("models")
    names = {REQUESTS["defaults"]["base_model"]} | {
        case["request"].get("refiner", "None") for case in CASES.values()
    }
    loras = GOLDEN.get("lora_files", [])
    files = [Weights(name=name, path=folder / name, kind="lora") for name in loras]
    for offer in COMMON.values():
        path = folder / offer.file
        if offer.kind == "upscaler":
            path = write_upscaler(folder / "repeats.safetensors")
        if offer.file.endswith("head.pth"):
            path = write_head(folder / "head.safetensors")
        files.append(Weights(name=offer.file, path=path, kind=offer.kind))
    return Library(
        catalog=Catalog(
            [Checkpoint(name=name, path=write_header(folder / name)) for name in sorted(names)],
            files,
        )
    )


def write_upscaler(path: Path) -> Path:
    """The upscaler of the recordings repeats pixels; so does a network whose details are all 0."""
    net = Compact(filters=1, layers=1, scale=4)
    save_file({key: torch.zeros_like(value) for key, value in net.state_dict().items()}, path)
    return path


def write_head(path: Path) -> Path:
    save_file({"head": torch.from_numpy(golden_arrays("e2e/inputs.npz")["inpaint_head"])}, path)
    return path


class Averages(torch.nn.Module):
    """The VAE of the recordings: means of 8 x 8 pixels, and the mean of all colours."""

    device = torch.device("cpu")
    dtype = torch.float32
    config = SimpleNamespace(block_out_channels=(4,))

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def encode(self, values: Tensor) -> Any:
        self.seen.append([1, *values.shape[2:], 3])
        means = torch.nn.functional.avg_pool2d(values, 8)
        mean = torch.cat([means, means.mean(1, keepdim=True)], 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean))


Settle = Callable[[str], tuple[Plan, Asked]]
Begin = Callable[[str], tuple[Beginning, Averages]]


@pytest.fixture(scope="module")
def settle(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Settle:
    """Plan a case; each is read once."""
    folder = tmp_path_factory.mktemp("pictures")

    @cache
    def planned(name: str) -> tuple[Plan, Asked]:
        asked = Asked(CASES[name], folder)
        return plan(asked.request, library, seed=0), asked

    return planned


@pytest.fixture(scope="module")
def begin(settle: Settle, library: Library) -> Begin:
    """Look at what a case starts from; at each once."""
    torch.set_num_threads(1)
    unet = load_toy_unet(Path())
    return cache(lambda name: begun(*settle(name), library, unet))


def begun(made: Plan, asked: Asked, library: Library, unet: Any) -> tuple[Beginning, Averages]:
    """Look at what a plan starts from, with the recordings' VAE."""
    vae = Averages()
    loaded = SimpleNamespace(
        vae=vae, unet=unet, checkpoint=library.catalog.checkpoint(made.base_model)
    )
    model: Any = SimpleNamespace(
        loaded=loaded, vae=vae, denoiser=lambda name: Denoiser(unet, model_sampling(name))
    )
    starts = Starts(torch.device("cpu"), allow_pickle=False)
    work = starts.begin(lambda: model, library.catalog, made, asked.pictures)
    while True:
        try:
            assert 0 <= next(work) <= 1
        except StopIteration as end:
            return end.value, vae


@pytest.mark.parametrize("name", CASES)
def test_plans_with_pictures_equal_fooocus_golden(name: str, settle: Settle) -> None:
    case = CASES[name]
    made, _ = settle(name)
    if case.get("encoded") is not None:
        assert encoded(made) == case["encoded"]
    for image, run in zip(made.images, case.get("diffusion", []), strict=False):
        expected = {**run, **run["settings"]}
        (ours,) = (mine for mine in diffusion(made) if mine["seed"] == image.seed)
        if not isinstance(made.start, FromNoise):
            del ours["width"], ours["height"]  # settled by the worker
        assert ours == {key: expected[key] for key in ours}
        assert (
            bool(made.refiner) == (case["refresh"][0]["refiner"] != "None")
            or (case["refresh"][0]["synthetic_refiner"])
        )
        if made.refiner:
            assert made.refiner.switch == run["switch"]
            assert made.refiner.method == run["swap_method"]
        if made.image_prompts:
            assert made.image_prompts.softness == run["settings"]["softness"]
    for refresh in case.get("refresh") or ():
        assert made.base_model == refresh["base"]
        is_own = made.refiner is not None and made.refiner.model == made.base_model
        assert is_own == refresh["synthetic_refiner"]
        assert is_own or (made.refiner.model if made.refiner else "None") == refresh["refiner"]
        assert [[Path(item.name).name, item.scale] for item in made.loras] == refresh["loras"]
        patch = made.start.patch if isinstance(made.start, Repainting) else None
        assert ([[patch, 1.0]] if patch else []) == refresh["base_only_loras"]


@pytest.mark.parametrize("name", UNLIKE)
def test_beginnings_equal_fooocus_golden(name: str, settle: Settle, begin: Begin) -> None:
    case, (made, _) = CASES[name], settle(name)
    beginning, vae = begin(name)
    runs, shown = case.get("diffusion", []), case["logs"][0]
    assert (beginning.result is None) == bool(runs)
    if beginning.result is not None:
        assert list(beginning.result.shape) == shown["shape"]
        assert abs(beginning.result.mean(dtype=np.float64) - mean_of(shown)) < LEVELS_CUT_OFF
    for run in runs[:1]:
        size = beginning.plan.sample_size
        assert (size.width, size.height) == (run["width"], run["height"])
        assert beginning.plan.size == tuple(shown["shape"][1::-1])
        latents = beginning.latents
        assert (None if latents is None else list(latents.shape)) == run["latent"]
        assert beginning.is_tiled == run["tiled"]
        assert (beginning.addition is not None) == bool(run["input_block_patches"])
        assert bool(beginning.blend(run["seed"])) == run["inpaint_active"]
        if not run["tiled"]:
            encodes = [call["pixels"] for call in case["vae_encodes"]]
            has_grey = run["inpaint_active"] and beginning.addition is None
            assert vae.seen == encodes[has_grey:]  # only the head looks at a grey hole
    if not runs or runs[0]["inpaint_active"] or isinstance(made.start, FromNoise):
        return
    rows = {key: value for _, key, value in shown["metadata"]}
    record = record_of(beginning.plan, made.images[0], version=rows["version"])
    ours = {key: value for _, key, value in log_rows(record)}
    ours["metadata_scheme"] = False
    assert ours == rows


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("control")])
def test_drawings_equal_fooocus_golden(name: str, settle: Settle, begin: Begin) -> None:
    case, (made, asked) = CASES[name], settle(name)
    beginning, _ = begin(name)
    assert made.image_prompts is not None
    slots = {slot.model: slot for slot in made.image_prompts.slots}
    for number, control in enumerate(case["control"]):
        slot = slots[control["net"].removeprefix("net:")]
        assert (slot.weight, slot.stop_at) == (control["strength"], control["end"])
        pixels = np.array(Image.open(asked.pictures[slot.image]))
        preprocess = own_preprocessor(slot.type, made.image_prompts.canny)
        if made.image_prompts.skip_preprocessors:
            preprocess = None
        drawn = draw(pixels, beginning.plan.sample_size, preprocess)
        assert list(drawn.shape) == control["shape"]
        np.testing.assert_array_equal(drawn[::16, ::16], HINTS[f"{name}.hint{number}_sub"])
        assert int(drawn.sum(dtype=np.int64)) == control["sum"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("ip_tasks")])
def test_image_prompts_equal_fooocus_golden(name: str, settle: Settle) -> None:
    case, (made, asked) = CASES[name], settle(name)
    assert made.image_prompts is not None
    slots = [
        slot
        for kind in ("ImagePrompt", "FaceSwap")
        for slot in made.image_prompts.slots
        if slot.type == kind
    ]
    assert [[slot.stop_at, slot.weight] for slot in slots] == case["ip_tasks"][0]
    for slot, seen in zip(slots, case["ip_images"], strict=True):
        pixels = to_rgb(np.array(Image.open(asked.pictures[slot.image])))
        square = stretch(pixels, type(size_of(pixels))(SIDE, SIDE))
        assert slot.model.partition(".")[0] == seen["file"].partition(".")[0]
        assert int(square.sum(dtype=np.int64)) == seen["sum"]
