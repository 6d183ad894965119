"""What a request names comes from a hub or a server on loopback, once and whole, or not at all and with a sentence."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from engine.catalog import Catalog, Weights
from engine.errors import EngineError, ModelIncompatible, ModelNotFound
from engine.fetching import Fetches
from engine.models.asked import MAX_FILES, MAX_TEXT, fetch_asked
from engine.models.fetch import MAX_ASKED
from engine.net import Fetcher
from engine.places import read_catalog
from engine.references import Reference, Use, find_weights
from tests.loopback_hub import COMMIT, Hub, Manners, open_hub, weights

REPO = "someone/model"
PLAIN = "diffusion_pytorch_model.safetensors"
PIPELINE = {
    "unet/config.json": b'{"x": 1}',
    "unet/diffusion_pytorch_model.safetensors": weights(1),
    "unet/diffusion_pytorch_model.fp16.safetensors": weights(2),
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": weights(3),
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": weights(4),
    "tokenizer/vocab.json": b'{"words": 0}',
    "model_index.json": json.dumps(
        {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "U"], "os": ["os", "x"]}
    ).encode(),
    "code.py": b"evil",
}


class Bomb:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with open_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def fetch(
    models: Path, use: Use, reference: Reference, *, allow_pickle: bool = False
) -> list[tuple[int, int | None]]:
    """Fetch what a reference names, and return what was told."""
    entry = find_weights(Catalog([], models_dir=models), use, reference, "field")
    told: list[tuple[int, int | None]] = []
    if entry.source is not None:
        fetch_asked(
            entry.source,
            entry.path,
            tell=lambda done, total: told.append((done, total)),
            fetcher=Fetcher(allow_private=True),
            allow_pickle=allow_pickle,
        )
    return told


def place(models: Path, use: Use, reference: Reference) -> Path:
    """Where it is once it was fetched."""
    entry = find_weights(read_catalog(models), use, reference, "field")
    assert entry.source is None
    return entry.path


def value(path: Path) -> float:
    return float(load_file(path)["a"][0])


def left_over(models: Path) -> set[str]:
    """Files that are no weights and not unfinished."""
    paths = {path for path in models.rglob("*") if path.is_file()}
    return {path.name for path in paths if ".part" not in str(path.relative_to(models))}


def test_a_pipeline_is_fetched_once_under_plain_names(hub: Hub, tmp_path: Path) -> None:
    hub.contents.repositories[REPO] = PIPELINE
    reference = Reference(path=REPO, variant="fp16")
    told = fetch(tmp_path, "checkpoint", reference)
    folder = place(tmp_path, "checkpoint", reference)
    assert folder.parent == tmp_path / "checkpoints" / "fetched"
    assert value(folder / "unet" / PLAIN) == 2
    assert value(folder / "vae" / PLAIN) == 3
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {name for name in files if not name.endswith(".sha256")} == {
        "model_index.json",
        "unet/config.json",
        f"unet/{PLAIN}",
        "vae/config.json",
        f"vae/{PLAIN}",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
    }
    assert "os" not in json.loads((folder / "model_index.json").read_text())
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    total = {total for _, total in told}
    assert len(total) == 1
    assert told[-1][0] <= total.pop()
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.lock"))
    before = len(hub.contents.sent)
    assert fetch(tmp_path, "checkpoint", reference) == []
    assert len(hub.contents.sent) == before
    assert all(name.startswith(f"{REPO}/resolve/{COMMIT}/") for name in hub.contents.sent[1:])


def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.contents.repositories[REPO] = PIPELINE
    hub.contents.manners.broken = "text_encoder/model.safetensors"
    expected = r"^someone/model: model\.safetensors: expected the file at "
    with pytest.raises(ModelNotFound, match=expected):
        fetch(tmp_path, "checkpoint", Reference(path=REPO))
    assert read_catalog(tmp_path).checkpoints == ()
    first = set(hub.contents.sent)
    hub.contents.manners.broken = None
    hub.contents.sent.clear()
    fetch(tmp_path, "checkpoint", Reference(path=REPO))
    assert len(read_catalog(tmp_path).checkpoints) == 1
    again = first & set(hub.contents.sent)
    assert {name.partition(COMMIT)[2] for name in again} <= {"", "/text_encoder/model.safetensors"}


def test_a_repository_that_changed_meanwhile_begins_anew(hub: Hub, tmp_path: Path) -> None:
    hub.contents.repositories[REPO] = PIPELINE
    hub.contents.manners.broken = "text_encoder/model.safetensors"
    with pytest.raises(ModelNotFound):
        fetch(tmp_path, "checkpoint", Reference(path=REPO))
    new = {"unet/diffusion_pytorch_model.safetensors": weights(9), "unet/config.json": b'{"y": 2}'}
    hub.contents.repositories[REPO] = PIPELINE | new
    hub.contents.manners = Manners(commit="b" * 40)
    fetch(tmp_path, "checkpoint", Reference(path=REPO))
    folder = place(tmp_path, "checkpoint", Reference(path=REPO))
    assert value(folder / "unet" / PLAIN) == 9
    assert (folder / "unet" / "config.json").read_bytes() == b'{"y": 2}'


NETWORK = {"config.json": b'{"a": 1}', PLAIN: weights(5), "x.bin": b"pickle"}


Case = tuple[Use, dict[str, bytes], Reference, str]


@pytest.mark.parametrize(
    "case",
    [
        ("unet", {f"unet/{name}": data for name, data in NETWORK.items()},
         Reference(path=REPO), PLAIN),
        ("unet", NETWORK, Reference(path=REPO), PLAIN),
        ("controlnet", NETWORK, Reference(path=REPO), PLAIN),
        ("controlnet", {f"sub/{name}": data for name, data in NETWORK.items()},
         Reference(path=f"https://huggingface.co/{REPO}/tree/main/sub"), PLAIN),
        ("clip_vision", {"enc/config.json": b"{}", "enc/model.safetensors": weights(5)},
         Reference(path=REPO, subfolder="enc", weight_name="pytorch_model.bin"), "model.safetensors"),
        ("lora", {"pytorch_lora_weights.safetensors": weights(5)}, Reference(path=REPO), ""),
        ("lora", {"a.safetensors": weights(), "b.safetensors": weights(5)},
         Reference(path=REPO, weight_name="b.safetensors"), ""),
        ("embedding", {"learned_embeds.safetensors": weights(5), "learned_embeds.bin": b""},
         Reference(path=REPO), ""),
        ("ip_adapter", {"sdxl/ip.safetensors": weights(5), "sdxl/ip.bin": b""},
         Reference(path=REPO, subfolder="sdxl", weight_name="ip.bin"), ""),
        ("ic_light", {"fc.safetensors": weights(5)}, Reference(path=REPO), ""),
    ],
)  # fmt: skip
def test_every_kind_comes_from_the_hub(hub: Hub, tmp_path: Path, case: Case) -> None:
    use, files, reference, found = case
    hub.contents.repositories[REPO] = files
    fetch(tmp_path, use, reference)
    path = place(tmp_path, use, reference)
    assert value(path / found if found else path) == 5
    if found:
        assert (path / "config.json").exists()
    assert not any(name.endswith(".bin") for name in hub.contents.sent)
    assert path.parent == tmp_path / path.parent.parent.name / "fetched"


def test_shards_keep_their_list(hub: Hub, tmp_path: Path) -> None:
    stem = "diffusion_pytorch_model"
    shard = f"{stem}.fp16-00001-of-00002.safetensors"
    listing = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.contents.repositories[REPO] = {
        "config.json": b"{}",
        f"{stem}.safetensors.index.fp16.json": listing,
        shard: weights(1),
    }
    fetch(tmp_path, "unet", Reference(path=REPO))
    folder = place(tmp_path, "unet", Reference(path=REPO))
    written = json.loads((folder / f"{stem}.safetensors.index.json").read_text())
    assert value(folder / written["weight_map"]["a"]) == 1
    assert "fp16" not in written["weight_map"]["a"]


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("lora", "x.safetensors"),
        ("checkpoint", "x.safetensors"),
        ("controlnet", "x.safetensors"),
        ("ip_adapter", "x.safetensors"),
        ("unet", "x.safetensors"),
        ("embedding", "x.safetensors"),
        ("clip_vision", "x.safetensors"),
        ("ic_light", "x.safetensors"),
        ("lora", "api/download/models/128713"),
    ],
)
def test_every_kind_comes_from_an_address(hub: Hub, tmp_path: Path, use: Use, name: str) -> None:
    hub.contents.files[name] = weights(5)
    reference = Reference(path=f"{hub.address}/{name}")
    fetch(tmp_path, use, reference)
    path = place(tmp_path, use, reference)
    assert path.suffix == ".safetensors"
    assert value(path) == 5


def test_a_configuration_is_put_beside_a_controlnet(hub: Hub, tmp_path: Path) -> None:
    hub.contents.files = {"net.safetensors": weights(5), "c/config.json": b'{"b": 2}'}
    hub.contents.repositories[REPO] = NETWORK
    config = f"{hub.address}/c/config.json"
    for path in (f"{hub.address}/net.safetensors", REPO):
        reference = Reference(path=path, config_url=config)
        fetch(tmp_path, "controlnet", reference)
        folder = place(tmp_path, "controlnet", reference)
        assert value(folder / PLAIN) == 5
        assert (folder / "config.json").read_bytes() == b'{"b": 2}'


def test_pickled_files_are_fetched_only_with_leave(hub: Hub, tmp_path: Path) -> None:
    bomb = pickle.dumps({"a": Bomb(tmp_path / "ran")})
    hub.contents.files = {"x.pt": bomb}
    hub.contents.repositories = {
        "a/word": {"learned_embeds.bin": bomb},
        "a/sight": {"config.json": b"{}", "pytorch_model.bin": bomb},
        "a/net": {"config.json": b"{}", "diffusion_pytorch_model.bin": bomb},
    }
    asked: list[tuple[Use, Reference]] = [
        ("embedding", Reference(path=f"{hub.address}/x.pt")),
        ("embedding", Reference(path="a/word")),
        ("clip_vision", Reference(path="a/sight")),
    ]
    for use, reference in asked:
        with pytest.raises(ModelIncompatible, match="got a pickled one, .* --allow-pickle if you"):
            fetch(tmp_path, use, reference)
        assert not any(name.endswith((".pt", ".bin")) for name in hub.contents.sent)
    assert left_over(tmp_path) == set()
    for use, reference in asked:
        fetch(tmp_path, use, reference, allow_pickle=True)
        assert place(tmp_path, use, reference).suffix in (".pt", ".bin")
        hub.contents.sent.clear()
    with pytest.raises(ModelIncompatible, match="got diffusion_pytorch_model.bin"):
        fetch(tmp_path, "controlnet", Reference(path="a/net"), allow_pickle=True)
    assert not (tmp_path / "ran").exists()


HOSTILE = {
    "zip": b"PK\x03\x04" + bytes(200),
    "pickle": pickle.dumps([1, 2, 3], protocol=2),
    "cut": weights()[:-8],
    "lying": (2**40).to_bytes(8, "little") + b"{}" + bytes(64),
    "overlap": b"",
    "page": b"<html>not found</html>",
}
LIE = json.dumps(
    {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
     "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
).encode()  # fmt: skip
HOSTILE["overlap"] = len(LIE).to_bytes(8, "little") + LIE + bytes(16)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("checkpoint", "unet/diffusion_pytorch_model.safetensors"),
        ("unet", PLAIN),
        ("controlnet", PLAIN),
        ("clip_vision", "model.safetensors"),
        ("lora", "pytorch_lora_weights.safetensors"),
        ("embedding", "learned_embeds.safetensors"),
        ("ip_adapter", "ip.safetensors"),
        ("ic_light", "fc.safetensors"),
    ],
)
def test_what_is_no_safetensors_file_takes_no_place(
    hub: Hub, tmp_path: Path, use: Use, name: str, data: bytes
) -> None:
    others = PIPELINE if use == "checkpoint" else {"config.json": b"{}"}
    hub.contents.repositories[REPO] = {**others, name: data}
    hub.contents.files["x.safetensors"] = data
    for reference in (Reference(path=REPO), Reference(path=f"{hub.address}/x.safetensors")):
        with pytest.raises(ModelIncompatible, match=r"\.safetensors: expected a safetensors file"):
            fetch(tmp_path, use, reference)
        assert left_over(tmp_path) == set()
        assert not list(tmp_path.rglob("*.safetensors.part"))
    hub.contents.repositories[REPO] = {**others, name: weights(5)}
    hub.contents.files["x.safetensors"] = weights(5)
    for reference in (Reference(path=REPO), Reference(path=f"{hub.address}/x.safetensors")):
        fetch(tmp_path, use, reference)
        assert place(tmp_path, use, reference).exists()


@pytest.mark.parametrize(
    ("manners", "problem"),
    [
        (Manners(lies=True), r"sha256 .+ does not match the expected 000000000000…; it was removed"),
        (Manners(size=7), r"expected 7 bytes, got \d+; it was removed"),
        (Manners(listing=b"{}"), "expected the hub's list of its files, got something else"),
        (Manners(listing=b"[" * 50_000), "expected the hub's list of its files, got something else"),
        (Manners(commit="main/../.."), "expected the hub's list of its files, got something else"),
        (Manners(listing=b'{"sha": "%s", "siblings": [{"rfilename": 1, "size": 1}]}' % COMMIT.encode()),
         "expected the hub's list of its files, got something else"),
    ],
)  # fmt: skip
def test_a_hub_that_lies_gives_a_sentence(
    hub: Hub, tmp_path: Path, manners: Manners, problem: str
) -> None:
    hub.contents.repositories[REPO] = {"pytorch_lora_weights.safetensors": weights(5)}
    hub.contents.manners = manners
    with pytest.raises(ModelIncompatible, match=problem):
        fetch(tmp_path, "lora", Reference(path=REPO))
    assert left_over(tmp_path) == set()


def test_names_that_climb_out_of_a_repository_are_not_seen(hub: Hub, tmp_path: Path) -> None:
    hub.contents.repositories[REPO] = {
        "../../evil.safetensors": weights(1),
        "unet/../../../evil.safetensors": weights(2),
        "/etc/evil.safetensors": weights(3),
        "c:\\evil.safetensors": weights(4),
        "good.safetensors": weights(5),
    }
    fetch(tmp_path, "lora", Reference(path=REPO))
    assert value(place(tmp_path, "lora", Reference(path=REPO))) == 5
    assert not list(tmp_path.parent.rglob("evil*"))


def test_a_listing_of_too_much_is_refused(hub: Hub, tmp_path: Path) -> None:
    many = {f"tokenizer/{number}.txt": b"x" for number in range(MAX_FILES)}
    hub.contents.repositories[REPO] = {**PIPELINE, **many}
    with pytest.raises(ModelIncompatible, match=rf"^{REPO}: expected at most {MAX_FILES} files"):
        fetch(tmp_path, "checkpoint", Reference(path=REPO))
    hub.contents.repositories[REPO] = NETWORK
    hub.contents.manners = Manners(size=MAX_ASKED)
    with pytest.raises(ModelIncompatible, match=f"expected at most {MAX_ASKED} bytes, got "):
        fetch(tmp_path, "unet", Reference(path=REPO))
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("config", [b"[1]", b"{", b"\x80\x04", b" " * (MAX_TEXT + 1)])
def test_a_description_that_is_none_is_refused(hub: Hub, tmp_path: Path, config: bytes) -> None:
    hub.contents.repositories[REPO] = {**NETWORK, "config.json": config}
    hub.contents.files = {"net.safetensors": weights(5), "config.json": config}
    address = Reference(
        path=f"{hub.address}/net.safetensors", config_url=f"{hub.address}/config.json"
    )
    for reference in (Reference(path=REPO), address):
        with pytest.raises(EngineError, match=r"^\S+: config\.json: expected "):
            fetch(tmp_path, "controlnet", reference)
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("name", ["scheduler/scheduler_config.json", "unet/config.json"])
def test_a_description_leads_to_no_other_repository(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.contents.repositories[REPO] = {**PIPELINE, name: b'"someone/evil"'}
    with pytest.raises(ModelIncompatible, match=r"json: expected a description of .+, got a str$"):
        fetch(tmp_path, "checkpoint", Reference(path=REPO))
    assert left_over(tmp_path) == set()


def test_an_unknown_repository_and_a_hub_that_is_away_give_a_sentence(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = r"^no/body: the Hugging Face hub has no public repository of that name \(.+ 404\)$"
    with pytest.raises(ModelNotFound, match=expected):
        fetch(tmp_path, "lora", Reference(path="no/body"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    away = r"^no/body: the Hugging Face hub cannot be reached from this machine \(.+\); try again later$"
    with pytest.raises(ModelNotFound, match=away):
        fetch(tmp_path, "lora", Reference(path="no/body"))


def test_the_hub_is_asked_through_the_guard(hub: Hub, tmp_path: Path) -> None:
    hub.contents.repositories[REPO] = {"x.safetensors": weights(5)}
    hub.contents.files = {"x.safetensors": weights(5), "config.json": b"{}"}
    address = f"{hub.address}/x.safetensors"
    for reference in (
        Reference(path=REPO),
        Reference(path=address),
        Reference(path=address, config_url=f"{hub.address}/config.json"),
    ):
        entry = find_weights(Catalog([], models_dir=tmp_path), "controlnet", reference, "field")
        assert entry.source is not None
        with pytest.raises(ModelNotFound, match="expected a public address on the web"):
            fetch_asked(entry.source, entry.path, tell=lambda *_: None, fetcher=Fetcher())
    assert hub.contents.sent == []
    assert left_over(tmp_path) == set()


def test_fetches_bring_references_like_all_else(hub: Hub, tmp_path: Path) -> None:
    hub.contents.repositories[REPO] = NETWORK
    fetches = Fetches(Fetcher(allow_private=True))
    catalog = Catalog([], models_dir=tmp_path)
    good = find_weights(catalog, "unet", Reference(path=REPO), "studio.unet_name")
    bad = find_weights(catalog, "lora", Reference(path="no/body"), "studio.loras.0.path")
    for item, error in ((good, None), (bad, ModelNotFound), (good, None)):
        for fetch in fetches.start([item]):
            fetch.wait(30)
            assert fetch.is_over
            assert (type(fetch.error) if fetch.error else None) is error
    assert fetches.start([good]) == []
    again = find_weights(catalog, "unet", Reference(path=REPO), "studio.unet_name")
    assert again == Weights(name=good.name, path=good.path, kind="unet")
