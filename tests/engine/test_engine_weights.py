"""The engine paints each job with its own weights: LoRAs, VAE, refiner, embeddings, and files that are fetched first."""

import io
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engine import Event, Failed, Finished, ImageReady, Plan, Progress, TextRequest, plan
from engine.catalog import Source, Weights
from engine.conditioning.fused_attention import is_fused
from engine.engine import Engine, create
from engine.models.expander import ModelExpander
from engine.models.hashes import FileHashes
from engine.models.levers import Levers
from engine.places import Places, read_catalog
from engine.stages.metadata import read_plan
from tests.libraries import library_of
from tests.tiny_language import write_model
from tests.tiny_model import WIDTH_1, WIDTH_2, write_tiny_model

pytestmark = pytest.mark.torch

ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0"
STEPS = 3


def write_lora(path: Path, *, seed: int, text: bool = False) -> None:
    """A kohya LoRA for the tiny model: one layer of the UNet, or one of the first text encoder."""
    generator = torch.Generator().manual_seed(seed)
    name, width = f"lora_unet_{ATTENTION}_attn2_to_k", WIDTH_1 + WIDTH_2
    out = 64
    if text:
        name, width, out = "lora_te1_text_model_encoder_layers_0_mlp_fc1", WIDTH_1, 64
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            f"{name}.lora_down.weight": torch.randn(4, width, generator=generator),
            f"{name}.lora_up.weight": torch.randn(out, 4, generator=generator),
            f"{name}.alpha": torch.tensor(4.0),
        },
        path,
    )


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "checkpoints" / "tiny")
    write_tiny_model(folder / "checkpoints" / "other", seed=1)
    write_lora(folder / "loras" / "one.safetensors", seed=1)
    write_lora(folder / "loras" / "sub" / "two.safetensors", seed=2)
    write_lora(folder / "loras" / "words.safetensors", seed=3, text=True)
    save_file(
        {"lora_unet_elsewhere.lora_up.weight": torch.zeros(2, 2)}
        | {f"lora_unet_elsewhere_{n}.lora_down.weight": torch.zeros(2, 2) for n in range(20)},
        folder / "loras" / "foreign.safetensors",
    )
    (folder / "embeddings").mkdir()
    save_file(
        {"clip_l": torch.ones(2, WIDTH_1), "clip_g": torch.ones(2, WIDTH_2)},
        folder / "embeddings" / "thing.safetensors",
    )
    torch.save({"clip_l": torch.ones(2, WIDTH_1)}, folder / "embeddings" / "old.pt")
    vae = folder / "checkpoints" / "other" / "vae" / "diffusion_pytorch_model.safetensors"
    (folder / "vae").mkdir()
    (folder / "vae" / "soft.safetensors").write_bytes(vae.read_bytes())
    return folder


@pytest.fixture
def engine(models_dir: Path) -> Engine:
    made = create(str(models_dir), model="tiny", device="cpu")
    torch.set_num_threads(1)
    return made


def ask(engine: Engine, prompt: str = "a star", **fields: Any) -> Plan:
    advanced = {"num_inference_steps": STEPS, "previews": False, **fields.pop("advanced", {})}
    request = {
        "prompt": prompt,
        "styles": (),
        "aspect_ratio": "64x64",
        "num_images": 1,
        "advanced": advanced,
        **fields,
    }
    return plan(TextRequest.parse(request), library_of(engine._palette.catalog), seed=5)


def run(engine: Engine, plans: Mapping[str, Plan]) -> dict[str, list[Event]]:
    for job_id, item in plans.items():
        engine.admit(job_id, item, {})
    events: dict[str, list[Event]] = {job_id: [] for job_id in plans}
    while not engine.idle():
        for job_id, event in engine.step():
            events[job_id].append(event)
    return events


def pixels(events: list[Event]) -> Any:
    (ready,) = (event for event in events if isinstance(event, ImageReady))
    return np.asarray(Image.open(io.BytesIO(ready.data)))


def paint(engine: Engine, item: Plan) -> Any:
    return pixels(run(engine, {"job": item})["job"])


def lora(name: str, scale: float = 1.0) -> dict[str, Any]:
    return {"loras": [{"path": name, "scale": scale}]}


def test_a_lora_changes_the_picture_and_weight_0_changes_no_bit(engine: Engine) -> None:
    plain = paint(engine, ask(engine))
    assert not np.array_equal(paint(engine, ask(engine, **lora("one.safetensors"))), plain)
    assert np.array_equal(paint(engine, ask(engine, **lora("one.safetensors", 0))), plain)
    assert np.array_equal(paint(engine, ask(engine)), plain)


def test_a_tag_in_the_prompt_equals_a_row(engine: Engine) -> None:
    row = paint(engine, ask(engine, **lora("sub/two.safetensors", 0.7)))
    assert np.array_equal(paint(engine, ask(engine, "a star <lora:two:0.7>")), row)


def test_a_lora_on_the_text_encoder_is_felt_at_once(engine: Engine) -> None:
    plain = paint(engine, ask(engine))
    changed = paint(engine, ask(engine, **lora("words.safetensors")))
    assert not np.array_equal(changed, plain)
    assert np.array_equal(paint(engine, ask(engine)), plain)


def test_jobs_with_other_loras_do_not_touch_each_other(engine: Engine) -> None:
    plans = {
        "plain": ask(engine),
        "one": ask(engine, **lora("one.safetensors")),
        "two": ask(engine, **lora("sub/two.safetensors")),
        "other": ask(engine, advanced={"base_model": "other"}),
    }
    alone = {job_id: paint(engine, item) for job_id, item in plans.items()}
    together = run(engine, plans)
    for job_id, picture in alone.items():
        assert np.array_equal(pixels(together[job_id]), picture), job_id


def test_changing_a_lora_does_not_load_the_checkpoint_again(engine: Engine) -> None:
    paint(engine, ask(engine))
    model, unet = engine._palette.model, engine._palette.model.loaded.unet
    paint(engine, ask(engine, **lora("one.safetensors", 0.3)))
    assert engine._palette.model is model
    assert engine._palette.model.loaded.unet is unet


def test_a_lora_for_another_model_is_refused_and_the_next_job_is_right(engine: Engine) -> None:
    plain = paint(engine, ask(engine))
    end = run(engine, {"a": ask(engine, **lora("foreign.safetensors"))})["a"][-1]
    assert isinstance(end, Failed)
    assert end.kind == "model_incompatible"
    assert "foreign.safetensors" in end.message
    assert np.array_equal(paint(engine, ask(engine)), plain)


def test_a_lora_that_came_later_is_found(engine: Engine, models_dir: Path) -> None:
    write_lora(models_dir / "loras" / "late.safetensors", seed=9)
    late = read_catalog(models_dir, "tiny")
    request = TextRequest.parse(
        {"styles": (), "aspect_ratio": "64x64", "num_images": 1, **lora("late.safetensors")}
    )
    item = plan(request, library_of(late), seed=5)
    item = replace(item, sampling=replace(item.sampling, num_inference_steps=2))
    assert isinstance(run(engine, {"a": item})["a"][-1], Finished)
    (models_dir / "loras" / "late.safetensors").unlink()


def test_a_vae_of_its_own_decodes(engine: Engine) -> None:
    plain = paint(engine, ask(engine))
    other = paint(engine, ask(engine, advanced={"vae": "soft.safetensors"}))
    assert not np.array_equal(other, plain)
    assert np.array_equal(paint(engine, ask(engine)), plain)


@pytest.mark.parametrize("method", ["joint", "separate", "vae"])
def test_a_refiner_takes_over(engine: Engine, method: str) -> None:
    def refined(switch: float) -> Any:
        more = {"refiner_swap_method": method, "num_inference_steps": 4}
        return paint(
            engine, ask(engine, refiner_model="other", refiner_switch=switch, advanced=more)
        )

    plain = paint(engine, ask(engine, advanced={"num_inference_steps": 4}))
    assert np.array_equal(refined(1.0), plain)
    assert not np.array_equal(refined(0.5), plain)


def test_a_refiner_wears_the_loras_too(engine: Engine) -> None:
    def refined(**more: Any) -> Any:
        return paint(engine, ask(engine, refiner_model="other", refiner_switch=0.34, **more))

    with_lora = refined(**lora("one.safetensors"))
    refiner = engine._palette.model.refiner
    assert refiner is not None
    assert refiner.patcher.key
    assert not np.array_equal(with_lora, refined())
    assert not refiner.patcher.key


def test_a_refiner_has_the_levers_of_the_base_model(engine: Engine, models_dir: Path) -> None:
    asked = {"refiner_model": "other", "refiner_switch": 0.34}
    off = Levers(fused_qkv=False, cached_text=False)
    plain = create(str(models_dir), model="tiny", device="cpu", levers=off)
    torch.set_num_threads(1)
    pictures = [paint(it, ask(it, **asked)).astype(int) for it in (engine, plain)]
    assert abs(pictures[0] - pictures[1]).max() <= 2
    fast, slow = engine._palette.model.refiner, plain._palette.model.refiner
    assert fast is not None
    assert slow is not None
    assert is_fused(fast.loaded.unet)
    assert fast.texts is not None
    assert fast.texts.nbytes > 0
    assert not is_fused(slow.loaded.unet)
    assert slow.texts is None
    with_lora = paint(engine, ask(engine, **asked, **lora("one.safetensors")))
    wanted = paint(plain, ask(plain, **asked, **lora("one.safetensors"))).astype(int)
    assert abs(with_lora - wanted).max() <= 2  # also where the texts are the same
    assert abs(with_lora - pictures[0]).max() > 2


def test_a_refiner_of_another_width_is_refused_by_its_field(
    engine: Engine, models_dir: Path
) -> None:
    from diffusers import UNet2DConditionModel

    folder = models_dir / "checkpoints" / "other" / "unet"
    config = UNet2DConditionModel.load_config(folder)
    wide = models_dir / "checkpoints" / "wide"
    if not wide.exists():
        shutil.copytree(folder.parent, wide)
        UNet2DConditionModel.from_config({**config, "cross_attention_dim": 96}).save_pretrained(
            wide / "unet"
        )
    engine._palette.catalog = read_catalog(models_dir, "tiny")
    end = run(engine, {"a": ask(engine, refiner_model="wide")})["a"][-1]
    assert isinstance(end, Failed)
    assert end.field == "refiner_model"
    assert end.message == (
        "refiner_model: wide: expected to read text of width 80, as tiny gives, got 96"
    )
    assert isinstance(run(engine, {"a": ask(engine)})["a"][-1], Finished)


def test_an_embedding_is_more_than_its_name(engine: Engine) -> None:
    named = paint(engine, ask(engine, "a star embedding:thing"))
    assert not np.array_equal(named, paint(engine, ask(engine)))
    unknown = paint(engine, ask(engine, "a star embedding:nothing"))
    assert np.array_equal(unknown, paint(engine, ask(engine)))


def test_a_pickled_embedding_is_read_only_where_it_is_allowed(
    engine: Engine, models_dir: Path
) -> None:
    plain = paint(engine, ask(engine))
    item = ask(engine, "a star embedding:old")
    assert np.array_equal(paint(engine, item), plain)
    trusting = create(str(models_dir), model="tiny", device="cpu", allow_pickle=True)
    torch.set_num_threads(1)
    assert not np.array_equal(paint(trusting, item), plain)


def test_the_record_names_the_hashes_of_all_weights(engine: Engine) -> None:
    item = ask(engine, **lora("one.safetensors"), advanced={"vae": "soft.safetensors"})
    events = run(engine, {"a": item})["a"]
    (ready,) = (event for event in events if isinstance(event, ImageReady))
    painted = read_plan(Image.open(io.BytesIO(ready.data)))
    assert painted is not None
    hashes = dict(painted.hashes)
    assert set(hashes) == {"tiny", "soft.safetensors", "one.safetensors"}
    assert all(len(digest) == 64 for digest in hashes.values())


class _Files(BaseHTTPRequestHandler):
    """Serves the bytes that the server holds, by path."""

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)  # type: ignore[attr-defined]
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    made.files = {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def with_offer(engine: Engine, models_dir: Path, name: str, url: str) -> None:
    """Let the engine's catalog offer a LoRA that can be fetched."""
    catalog = read_catalog(Places(models_dir=models_dir), "tiny")
    offer = Weights(
        name=name, path=models_dir / "loras" / name, kind="lora", source=Source(url=url)
    )
    catalog._offers["lora"][name] = offer
    engine._palette.catalog = catalog


def test_a_missing_file_is_fetched_while_others_paint(
    engine: Engine, models_dir: Path, server: ThreadingHTTPServer
) -> None:
    path = models_dir / "loras" / "far.safetensors"
    write_lora(path, seed=7)
    expected = paint(engine, ask(engine, **lora("one.safetensors")))
    server.files = {"/far": path.read_bytes()}  # type: ignore[attr-defined]
    path.unlink()
    with_offer(engine, models_dir, path.name, f"http://127.0.0.1:{server.server_address[1]}/far")
    plans = {"far": ask(engine, **lora(path.name)), "near": ask(engine, **lora("one.safetensors"))}
    events = run(engine, plans)
    stages = [event.stage for event in events["far"] if isinstance(event, Progress)]
    assert stages[0] == "fetching" or stages[0] == "loading"
    assert isinstance(events["far"][-1], Finished)
    assert np.array_equal(pixels(events["near"]), expected)
    assert path.exists()
    path.unlink()
    path.with_name(path.name + ".sha256").unlink()


def test_a_file_that_a_request_names_is_not_fetched_from_a_private_address(
    engine: Engine, models_dir: Path, server: ThreadingHTTPServer
) -> None:
    write_lora(models_dir / "near.safetensors", seed=7)
    server.files = {"/near.safetensors": (models_dir / "near.safetensors").read_bytes()}  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{server.server_address[1]}/near.safetensors"

    def job(painter: Engine) -> Plan:
        library = replace(library_of(painter._palette.catalog), may_fetch=lambda address: True)
        fields = {"styles": (), "aspect_ratio": "64x64", "num_images": 1, **lora(url)}
        return plan(TextRequest.parse(fields), library, seed=5)

    end = run(engine, {"a": job(engine)})["a"][-1]
    assert isinstance(end, Failed)
    assert "near.safetensors" in end.message
    trusting = create(str(models_dir), model="tiny", device="cpu", allow_private_urls=True)
    torch.set_num_threads(1)
    item = job(trusting)
    item = replace(item, sampling=replace(item.sampling, num_inference_steps=2))
    assert isinstance(run(trusting, {"a": item})["a"][-1], Finished)


def test_a_file_that_cannot_be_fetched_fails_its_job_alone(
    engine: Engine, models_dir: Path, server: ThreadingHTTPServer
) -> None:
    with_offer(
        engine, models_dir, "gone.safetensors", f"http://127.0.0.1:{server.server_address[1]}/gone"
    )
    plans = {"gone": ask(engine, **lora("gone.safetensors")), "plain": ask(engine)}
    events = run(engine, plans)
    end = events["gone"][-1]
    assert isinstance(end, Failed)
    assert "gone.safetensors" in end.message
    assert isinstance(events["plain"][-1], Finished)


def test_an_expansion_model_adds_its_words_and_they_are_recorded(
    models_dir: Path, tmp_path: Path
) -> None:
    language = write_model(tmp_path / "language")
    engine = create(str(models_dir), model="tiny", device="cpu", expansion_model=language)
    torch.set_num_threads(1)
    request = TextRequest.parse(
        {
            "prompt": "a star\nred",
            "styles": ["Fooocus V2"],
            "aspect_ratio": "64x64",
            "num_images": 2,
            "advanced": {"num_inference_steps": 2},
        }
    )
    library = replace(library_of(engine._palette.catalog), expand=None)
    events = run(engine, {"a": plan(request, library, seed=5)})["a"]
    ready = [event for event in events if isinstance(event, ImageReady)]
    records = [read_plan(Image.open(io.BytesIO(event.data))) for event in ready]
    images = [record.images[0] for record in records if record]
    expander = ModelExpander(language)
    assert [image.expansion for image in images] == [expander.expand("a star", n) for n in (5, 6)]
    assert [image.positive for image in images] == [
        ("a star", "red", image.expansion) for image in images
    ]


def test_hashes_are_remembered_beside_the_weights(models_dir: Path, engine: Engine) -> None:
    paint(engine, ask(engine))
    remembered = FileHashes(models_dir / ".hashes.json")
    unet = models_dir / "checkpoints" / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
    assert remembered.peek(unet) is not None


def test_a_weight_file_that_goes_while_it_is_painted_with_costs_no_picture(
    engine: Engine, models_dir: Path
) -> None:
    path = models_dir / "loras" / "brief.safetensors"
    write_lora(path, seed=4)
    engine._palette.catalog = read_catalog(models_dir, "tiny")
    item = ask(engine, **lora("brief.safetensors"))
    engine.admit("a", item, {})
    events: list[Event] = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
        if any(isinstance(event, Progress) and event.stage == "sampling" for event in events):
            path.unlink(missing_ok=True)
    assert isinstance(events[-1], Finished)
    (ready,) = (event for event in events if isinstance(event, ImageReady))
    record = read_plan(Image.open(io.BytesIO(ready.data)))
    assert record is not None
    assert [name for name, _ in record.hashes] in (["tiny"], ["tiny", "brief.safetensors"])
