"""A model is fetched from a hub once, resumed and checked; a hub that lies or is away gives a sentence."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine import ModelIncompatible, ModelNotFound
from engine.models.files import fetch_pipeline, variant_of, wanted_files

COMMIT = "a" * 40
REPO = "someone/model"
FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"x": 1}',
    "unet/diffusion_pytorch_model.safetensors": b"plain",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half" * 1000,
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "vae/diffusion_pytorch_model.bin": b"pickle",
    "tokenizer/vocab.json": b"{}",
    "README.md": b"hello",
}


class Hub(ThreadingHTTPServer):
    """A hub on loopback with one repository; counts what is asked, and can announce a wrong hash."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.lies = False
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
    fetch_pipeline(REPO, tmp_path, endpoint=hub.address)
    assert (
        tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors"
    ).read_bytes() == b"half" * 1000
    assert not (tmp_path / "unet/diffusion_pytorch_model.safetensors").exists()
    assert not (tmp_path / "vae/diffusion_pytorch_model.bin").exists()
    assert variant_of(tmp_path) == "fp16"
    assert hub.sent[-1] == "model_index.json"
    before = len(hub.sent)
    fetch_pipeline(REPO, tmp_path, endpoint=hub.address)
    assert len(hub.sent) == before


def test_a_file_with_another_hash_is_removed(hub: Hub, tmp_path: Path) -> None:
    hub.lies = True
    with pytest.raises(
        ModelIncompatible, match=r"^diffusion_pytorch_model\.fp16\.safetensors: sha256 .*removed$"
    ):
        fetch_pipeline(REPO, tmp_path, endpoint=hub.address)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not (tmp_path / "model_index.json").exists()


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
