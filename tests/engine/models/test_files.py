"""A model is fetched from a hub once, resumed and checked; a hub that lies or is away gives a sentence."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine import ModelIncompatible, ModelNotFound, read_catalog
from engine.catalog import Weights
from engine.models.files import (
    fetch_network,
    fetch_pipeline,
    network_files,
    variant_of,
    wanted_files,
)

COMMIT = "a" * 40
REPO = "someone/model"
FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"x": 1}',
    "unet/diffusion_pytorch_model.safetensors": b"plain",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half" * 1000,
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "vae/diffusion_pytorch_model.fp16.safetensors": b"half vae",
    "vae/diffusion_pytorch_model.bin": b"pickle",
    "tokenizer/vocab.json": b"{}",
    "README.md": b"hello",
    "config.json": b'{"model_type": "x"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"whole",
    "pytorch_model.bin": b"pickle",
}


class Enough(Exception):
    """Somebody wants the file no longer."""


class Hub(ThreadingHTTPServer):
    """A hub on loopback with one repository; counts what is asked, and can announce a wrong hash."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.lies = False
        self.broken: str | None = None
        self.sent: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPO}"):
            return self._send(json.dumps(self._info()).encode(), "application/json", body=body)
        name = path.removeprefix(f"/{REPO}/resolve/").partition("/")[2]
        if name not in FILES:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if name == self.server.broken:
            return self.send_error(500)
        if body:
            self.server.sent.append(name)
        return self._send(FILES[name], "application/octet-stream", body=body)

    def _info(self) -> dict[str, object]:
        siblings = []
        for name, data in FILES.items():
            item: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "b" * 40}
            if name.endswith(".safetensors"):
                real = hashlib.sha256(data).hexdigest()
                item["lfs"] = {
                    "sha256": "0" * 64 if self.server.lies else real,
                    "size": len(data),
                    "pointerSize": 1,
                }
            siblings.append(item)
        return {"id": REPO, "sha": COMMIT, "siblings": siblings, "private": False}

    def _send(self, data: bytes, kind: str, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_repository_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    fetch_pipeline(REPO, folder, endpoint=hub.address)
    assert (folder / "unet/diffusion_pytorch_model.fp16.safetensors").read_bytes() == b"half" * 1000
    assert not (folder / "unet/diffusion_pytorch_model.safetensors").exists()
    assert not (folder / "vae/diffusion_pytorch_model.bin").exists()
    assert variant_of(folder) == "fp16"
    assert hub.sent[-1] == "model_index.json"
    before = len(hub.sent)
    fetch_pipeline(REPO, folder, endpoint=hub.address)
    assert len(hub.sent) == before


def test_a_broken_download_goes_on_and_is_no_model_until_it_is_whole(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints" / "someone" / "model"
    hub.broken = "vae/diffusion_pytorch_model.fp16.safetensors"
    with pytest.raises(ModelNotFound):
        fetch_pipeline(REPO, folder, endpoint=hub.address)
    assert not folder.exists()
    assert read_catalog(tmp_path).checkpoints == ()
    before = list(hub.sent)
    hub.broken = None
    fetch_pipeline(REPO, folder, endpoint=hub.address)
    assert not set(before) & set(hub.sent[len(before) :])
    assert [item.name for item in read_catalog(tmp_path).checkpoints] == ["someone/model"]


def test_a_network_is_fetched_as_a_folder_of_its_own(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "segmenters" / "network"
    fetch_network(REPO, folder, endpoint=hub.address)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert not names & {"pytorch_model.bin", "README.md"}
    assert [item.path for item in read_files(tmp_path)] == [folder]
    before = len(hub.sent)
    fetch_network(REPO, folder, endpoint=hub.address)
    assert len(hub.sent) == before
    hub.lies = True
    with pytest.raises(ModelIncompatible, match="sha256"):
        fetch_network(REPO, tmp_path / "other", endpoint=hub.address)
    with pytest.raises(ModelIncompatible, match="in safetensors, got none"):
        network_files(["config.json", "pytorch_model.bin"], REPO)


def test_a_network_tells_how_far_it_is_and_can_be_ended(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "segmenters" / "network"
    total = sum(len(FILES[name]) for name in network_files(FILES, REPO))

    def cancel(done: int, _: int | None) -> None:
        if done > 0:
            raise Enough

    with pytest.raises(Enough):
        fetch_network(REPO, folder, endpoint=hub.address, tell=cancel)
    assert not folder.exists()
    told: list[tuple[int, int | None]] = []
    fetch_network(REPO, folder, endpoint=hub.address, tell=lambda done, of: told.append((done, of)))
    assert (folder / "model.safetensors").read_bytes() == b"whole"
    assert told[-1] == (total, total)
    assert [path.name for path in folder.parent.iterdir()] == ["network"]


def test_two_that_fetch_a_network_fetch_it_once(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "segmenters" / "network"
    threads = [
        threading.Thread(
            target=fetch_network, args=(REPO, folder), kwargs={"endpoint": hub.address}
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / "model.safetensors").read_bytes() == b"whole"
    assert hub.sent.count("model.safetensors") == 1


def read_files(models_dir: Path) -> list[Weights]:
    return [read_catalog(models_dir).weights("segmenter", "network", "mask_from.model")]


def test_weights_are_of_one_variant_throughout() -> None:
    names = [
        "model_index.json",
        "unet/m.safetensors",
        "unet/m.fp16-00001-of-00002.safetensors",
        "vae/m.safetensors",
    ]
    assert wanted_files(names, "a/b") == [
        "unet/m.safetensors",
        "vae/m.safetensors",
        "model_index.json",
    ]
    names.append("vae/m.fp16.safetensors")
    assert wanted_files(names, "a/b") == [
        "unet/m.fp16-00001-of-00002.safetensors",
        "vae/m.fp16.safetensors",
        "model_index.json",
    ]


@pytest.mark.torch
def test_a_half_precision_folder_loads(models_dir: Path, tmp_path: Path) -> None:
    import torch

    from engine.catalog import Checkpoint
    from engine.models.checkpoints import load_checkpoint

    shutil.copytree(models_dir / "checkpoints" / "tiny", tmp_path / "half")
    for path in (tmp_path / "half").rglob("*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    loaded = load_checkpoint(Checkpoint(name="half", path=tmp_path / "half"), torch.device("cpu"))
    assert loaded.unet.dtype == torch.float32


def test_a_file_with_another_hash_is_removed(hub: Hub, tmp_path: Path) -> None:
    hub.lies = True
    with pytest.raises(
        ModelIncompatible, match=r"^diffusion_pytorch_model\.fp16\.safetensors: sha256 .*removed$"
    ):
        fetch_pipeline(REPO, tmp_path / "model", endpoint=hub.address)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not (tmp_path / "model").exists()


def test_an_unknown_repository_and_a_hub_that_is_away_give_a_sentence(
    hub: Hub, tmp_path: Path
) -> None:
    with pytest.raises(
        ModelNotFound, match=r"^someone/else: expected a model on the Hugging Face hub, got: "
    ):
        fetch_pipeline("someone/else", tmp_path, endpoint=hub.address)
    with pytest.raises(ModelNotFound, match=r"; files can also be put into "):
        fetch_pipeline(REPO, tmp_path, endpoint="http://127.0.0.1:9")


def test_pickled_weights_are_refused() -> None:
    names = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin"]
    with pytest.raises(
        ModelIncompatible, match=r"^a/b: expected safetensors in unet, got pickled weights$"
    ):
        wanted_files(names, "a/b")
    with pytest.raises(
        ModelIncompatible,
        match=r"^a/b: expected a diffusers pipeline with model_index\.json, got none$",
    ):
        wanted_files(["README.md"], "a/b")
