"""Files that lie: every reader refuses them with a sentence, nothing of them runs, and the next file and the next job work."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from engine import Failed, Finished, ModelIncompatible, TextRequest, plan
from engine.catalog import Checkpoint
from engine.conditioning.embeddings import read_embedding
from engine.conditioning.image_attention import image_layers
from engine.engine import Engine, create
from engine.models.checkpoints import load_checkpoint
from engine.models.controlnets import load_controlnet
from engine.models.image_encoders import load_image_encoder
from engine.models.interposer import Interposer, load_interposer
from engine.models.ip_adapters import load_ip_adapter
from engine.models.patches import Patch, WeightPatcher
from engine.models.safety import load_safety_checker
from engine.models.upscalers import load_upscaler
from engine.models.vaes import load_vae
from tests.libraries import library_of
from tests.loopback_hub import Hub, open_hub
from tests.tiny_adapters import (
    EMBED_WIDTH,
    adapter_shapes,
    base_shapes,
    encoder_shapes,
    random_tensors,
)
from tests.tiny_checker import NONE, tiny_checker
from tests.tiny_model import WIDTH_1, WIDTH_2
from tests.toy_controls import toy_controlnet

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT_WIDTH = WIDTH_1 + WIDTH_2
Tensors = dict[str, Tensor]


def lora_tensors(width: int = TEXT_WIDTH) -> Tensors:
    return {
        f"{LAYER}.lora_down.weight": torch.ones(4, width),
        f"{LAYER}.lora_up.weight": torch.ones(64, 4),
    }


@dataclass(frozen=True)
class Parts:
    """Networks of the tiny model, for files that go with them."""

    unet: Any
    vae: Any


@pytest.fixture(scope="module")
def parts(models_dir: Path) -> Parts:
    folder = models_dir / "checkpoints" / "tiny"
    loaded = load_checkpoint(Checkpoint(name="tiny", path=folder), CPU)
    return Parts(loaded.unet, loaded.vae)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is read, and how a good one looks."""

    read: Callable[[Path, Parts], object]
    good: Callable[[Parts], Mapping[str, Tensor]]
    changed: str
    """Name of a tensor whose shape matters."""


def upscaler_tensors() -> Tensors:
    """The weights of the smallest Compact network: two layers, 2 times as large."""
    return {
        "body.0.weight": torch.zeros(8, 3, 3, 3),
        "body.0.bias": torch.zeros(8),
        "body.1.weight": torch.zeros(8),
        "body.2.weight": torch.zeros(12, 8, 3, 3),
        "body.2.bias": torch.zeros(12),
    }


KINDS: Mapping[str, Kind] = {
    "lora": Kind(
        lambda path, parts: WeightPatcher({"unet": parts.unet}).use([Patch(path, 0.0), Patch(path, 1.0)]),
        lambda parts: lora_tensors(),
        f"{LAYER}.lora_down.weight",
    ),
    "vae": Kind(
        lambda path, parts: load_vae(path, parts.vae, CPU), lambda parts: parts.vae.state_dict(),
        "decoder.conv_in.weight",
    ),
    "embedding": Kind(
        lambda path, parts: read_embedding(path, (WIDTH_1, WIDTH_2)),
        lambda parts: {"clip_l": torch.ones(2, WIDTH_1)},
        "clip_l",
    ),
    "controlnet": Kind(
        lambda path, parts: load_controlnet(path, parts.unet, allow_pickle=True),
        lambda parts: toy_controlnet(parts.unet).state_dict(),
        "mid_block.resnets.0.conv1.weight",
    ),
    "ip_adapter": Kind(
        lambda path, parts: load_ip_adapter(path, parts.unet, allow_pickle=True),
        lambda parts: random_tensors(
            adapter_shapes(
                base_shapes(EMBED_WIDTH, TEXT_WIDTH), list(image_layers(parts.unet).values()), TEXT_WIDTH
            )
        ),
        "ip_adapter.1.to_k_ip.weight",
    ),
    "clip_vision": Kind(
        lambda path, parts: load_image_encoder(path, CPU, allow_pickle=True),
        lambda parts: random_tensors(encoder_shapes(768, 32, 2, 16, side=28)),
        "vision_model.encoder.layers.1.mlp.fc1.weight",
    ),
    "safety_checker": Kind(
        lambda path, parts: load_safety_checker(path, CPU, allow_pickle=True),
        lambda parts: tiny_checker(NONE).state_dict(),
        "visual_projection.weight",
    ),
    "upscaler": Kind(
        lambda path, parts: load_upscaler(path, CPU, allow_pickle=True),
        lambda parts: upscaler_tensors(),
        "body.2.weight",
    ),
    "vae_approx": Kind(
        lambda path, parts: load_interposer(path), lambda parts: Interposer().state_dict(),
        "tail.weight",
    ),
}  # fmt: skip


class Bomb:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def lying_header(header: object, size: int = 16) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(size)


LIES: Mapping[str, bytes] = {
    "cut": save({"a": torch.zeros(100)})[:-8],
    "long header": (2**60).to_bytes(8, "little") + b"{}" + bytes(64),
    "no header": b"\xff" * 64,
    "empty": b"",
    "larger than it is": lying_header(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
    "overlap": lying_header(
        {key: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for key in "ab"}
    ),
    "backwards": lying_header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}),
    "shape of other size": lying_header(
        {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 16]}}
    ),
    "no JSON": (4).to_bytes(8, "little") + b"{]]]" + bytes(16),
}


def written(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, path)
    return path


def refused(kind: str, path: Path, parts: Parts) -> str:
    with pytest.raises(ModelIncompatible) as caught:
        KINDS[kind].read(path, parts)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name}: "), sentence
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lies_is_refused_and_the_next_is_read(
    kind: str, parts: Parts, tmp_path: Path
) -> None:
    for name, data in LIES.items():
        path = tmp_path / f"{name.replace(' ', '_')}.safetensors"
        path.write_bytes(data)
        refused(kind, path, parts)
    for shape in ((8,), (2, 3), ()):
        other = written(tmp_path / "other.safetensors", {"a": torch.zeros(shape)})
        refused(kind, other, parts)
    KINDS[kind].read(written(tmp_path / "good.safetensors", KINDS[kind].good(parts)), parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_of_another_shape_is_refused(kind: str, parts: Parts, tmp_path: Path) -> None:
    tensors = {key: value.detach().clone() for key, value in KINDS[kind].good(parts).items()}
    value = tensors[KINDS[kind].changed]
    for shape in ((*value.shape[:-1], value.shape[-1] + 1), ()):
        wrong = tensors | {KINDS[kind].changed: value.new_zeros(shape)}
        refused(kind, written(tmp_path / "wrong.safetensors", wrong), parts)


@pytest.mark.parametrize(
    "dump", [partial(pickle.dump, protocol=2), torch.save], ids=["pickle", "torch"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_under_a_false_name_does_not_run(
    kind: str, dump: Callable[..., None], parts: Parts, tmp_path: Path
) -> None:
    for name in ("bomb.safetensors", "bomb.bin"):
        path, target = tmp_path / name, tmp_path / "ran"
        with path.open("wb") as file:
            dump({"clip_l": Bomb(target)}, file)
        refused(kind, path, parts)
        assert not target.exists()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with open_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


@pytest.fixture
def folder(models_dir: Path, tmp_path: Path) -> Path:
    """A models folder of its own, around the tiny model."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "checkpoints").symlink_to(models_dir / "checkpoints")
    return tmp_path / "models"


@pytest.fixture
def engine(folder: Path) -> Engine:
    made = create(str(folder), model="tiny", device="cpu", allow_private_urls=True)
    torch.set_num_threads(1)
    return made


def paint(engine: Engine, **fields: Any) -> list[Any]:
    asked = {"prompt": "a star", "styles": (), "aspect_ratio": "64x64", "num_images": 1, **fields}
    advanced = {"num_inference_steps": 2, "previews": False}
    library = replace(library_of(engine._palette.catalog), may_fetch=lambda _: True)
    request = TextRequest.parse({**asked, "advanced": advanced})
    engine.admit("job", plan(request, library, seed=5), {})
    events: list[Any] = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    return events


def test_a_job_with_a_file_that_lies_fails_alone(
    engine: Engine, folder: Path, hub: Hub, tmp_path: Path
) -> None:
    target = tmp_path / "ran"
    lies = {**LIES, "pickle": pickle.dumps({"a": Bomb(target)}), "empty": b"\x00"}
    for data in lies.values():
        hub.contents.files["ink.safetensors"] = data
        end = paint(engine, **ink(hub))[-1]
        assert isinstance(end, Failed)
        assert end.kind == "model_incompatible"
        assert "ink.safetensors: expected a safetensors file, got" in end.message
        assert not target.exists()
        assert not list((folder / "loras").rglob("*ink*"))
    hub.contents.files["ink.safetensors"] = save(lora_tensors())
    assert isinstance(paint(engine, **ink(hub))[-1], Finished)


def ink(hub: Hub) -> dict[str, Any]:
    return {"loras": [{"path": f"{hub.address}/ink.safetensors", "scale": 1}]}


def test_a_job_with_wrong_shapes_leaves_the_weights_as_they_were(engine: Engine, hub: Hub) -> None:
    plain = paint(engine)[-2].data
    hub.contents.files["ink.safetensors"] = save(lora_tensors(TEXT_WIDTH + 1))
    assert isinstance(paint(engine, **ink(hub))[-1], Failed)
    assert paint(engine)[-2].data == plain
