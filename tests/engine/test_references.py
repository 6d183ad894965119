"""Weights are found by name, address or hub id; what could lead elsewhere is refused on its field; no network is touched."""

import re
from pathlib import Path

import pytest

from engine.catalog import Catalog, Checkpoint, Source, Wanted
from engine.errors import InvalidRequest, ModelNotFound
from engine.places import read_catalog
from engine.references import AddOn, Reference, Use, find_weights

HUB = "https://huggingface.co"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    for name in (
        "checkpoints/own.safetensors",
        "loras/ink/red.safetensors",
        "controlnet/edges.safetensors",
        "unet/other/diffusion_pytorch_model.safetensors",
        "unet/other/config.json",
        "ic_light/fc.safetensors",
        "insightface/models/buffalo_l/det.onnx",
        "insightface/models/buffalo_l/rec.onnx",
        "clip_vision/sight.safetensors",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return read_catalog(tmp_path)


def source_of(catalog: Catalog, use: Use, **asked: str) -> Source:
    source = find_weights(catalog, use, Reference(**asked), "field").source
    assert source is not None
    return source


@pytest.mark.parametrize(
    ("use", "name", "found"),
    [
        ("checkpoint", "own.safetensors", "own.safetensors"),
        ("lora", "ink/red.safetensors", "ink/red.safetensors"),
        ("lora", "red", "ink/red.safetensors"),
        ("controlnet", "edges", "edges.safetensors"),
        ("ip_adapter", "edges", "edges.safetensors"),
        ("unet", "other", "other"),
        ("ic_light", "fc.safetensors", "fc.safetensors"),
        ("clip_vision", "sight", "sight.safetensors"),
    ],
)
def test_names_of_the_catalog_come_first(catalog: Catalog, use: Use, name: str, found: str) -> None:
    reference = Reference(path=name, weight_name="pytorch_model.bin", variant="fp16")
    entry = find_weights(catalog, use, reference, "field", lambda _: False)
    assert (entry.name, entry.source) == (found, None)
    assert entry.path.exists()


def test_a_face_pack_is_a_folder_of_the_catalog(catalog: Catalog) -> None:
    pack = catalog.weights("insightface", "buffalo_l", "field")
    assert (pack.name, pack.path.name) == ("models/buffalo_l", "buffalo_l")
    with pytest.raises(ModelNotFound, match="^field: no face recognition pack named 'a/b'$"):
        catalog.weights("insightface", "a/b", "field")


def test_what_requests_had_fetched_is_never_the_default(tmp_path: Path) -> None:
    for name in ("fetched/0-a", "later"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "model_index.json").write_text("{}")
    (tmp_path / "pocket").mkdir()
    card = '{"native_size": 128, "buckets": [[128, 128]], "summary": "", "examples": []}'
    (tmp_path / "pocket" / "pochade.json").write_text(card)
    names = [item.name for item in read_catalog(tmp_path).checkpoints]
    assert names == ["later", "pocket", "fetched/0-a"]


@pytest.mark.parametrize(
    ("use", "asked", "url", "wanted"),
    [
        ("checkpoint", {"path": SDXL, "variant": "fp16"}, f"{HUB}/{SDXL}",
         Wanted(form="pipeline", variant="fp16")),
        ("checkpoint", {"path": "a/b@v1.0"}, f"{HUB}/a/b",
         Wanted(form="pipeline", revision="v1.0")),
        ("checkpoint", {"path": f"{HUB}/a/b/"}, f"{HUB}/a/b", Wanted(form="pipeline")),
        ("unet", {"path": "a/b"}, f"{HUB}/a/b",
         Wanted(form="network", usual="diffusion_pytorch_model", folders=("", "unet"))),
        ("lora", {"path": "a/b", "weight_name": "x.safetensors"}, f"{HUB}/a/b",
         Wanted(form="file", usual="pytorch_lora_weights", file="x.safetensors")),
        ("ip_adapter", {"path": "h94/IP-Adapter", "subfolder": "sdxl_models", "weight_name": "x.bin"},
         f"{HUB}/h94/IP-Adapter",
         Wanted(form="file", endings=(".safetensors", ".bin"), folders=("sdxl_models",), file="x.bin")),
        ("controlnet", {"path": f"{HUB}/a/b/tree/refs%2Fpr%2F3/sub/dir", "variant": "fp16"},
         f"{HUB}/a/b",
         Wanted(form="network", usual="diffusion_pytorch_model", folders=("sub/dir",),
                revision="refs%2Fpr%2F3", variant="fp16")),
        ("clip_vision", {"path": "a/b", "weight_name": "pytorch_model.bin", "subfolder": "enc"},
         f"{HUB}/a/b",
         Wanted(form="network", usual="model", endings=(".safetensors", ".bin"), folders=("enc",))),
    ],
)  # fmt: skip
def test_hub_ids_and_pages_of_the_hub(
    catalog: Catalog, use: Use, asked: dict[str, str], url: str, wanted: Wanted
) -> None:
    hub_id = url.removeprefix(f"{HUB}/")
    expected = Source(url=url, is_asked=True, hub_id=hub_id, wanted=wanted)
    assert source_of(catalog, use, **asked) == expected


@pytest.mark.parametrize(
    ("use", "path", "url", "ending"),
    [
        ("lora", "https://a.org/x.safetensors?token=1", None, ".safetensors"),
        ("lora", "https://a.org/api/download/models/128713", None, ".safetensors"),
        ("lora", f"{HUB}/a/b/blob/main/x.safetensors", f"{HUB}/a/b/resolve/main/x.safetensors", ".safetensors"),
        ("lora", f"{HUB}/a/b/resolve/main/x.safetensors", None, ".safetensors"),
        ("embedding", "http://a.org/x.pt", None, ".pt"),
        ("controlnet", "https://a.org/x.pth", None, ".pth"),
        ("checkpoint", "https://a.org/x.safetensors", None, ".safetensors"),
        ("clip_vision", "https://a.org/x.bin", None, ".bin"),
    ],
)  # fmt: skip
def test_addresses_of_files(
    catalog: Catalog, use: Use, path: str, url: str | None, ending: str
) -> None:
    entry = find_weights(catalog, use, Reference(path=path), "field")
    assert entry.source == Source(url=url or path, is_asked=True)
    assert re.fullmatch(rf"fetched/[0-9a-f]{{12}}-(x|128713){re.escape(ending)}", entry.name)
    assert entry.path.name == Path(entry.name).name
    assert entry.path.parent.name == "fetched"


def test_equal_references_have_equal_names_and_others_have_others(catalog: Catalog) -> None:
    references = [
        Reference(path="a/b"),
        Reference(path="a/b", variant="fp16"),
        Reference(path="a/b", subfolder="c"),
        Reference(path="a/b@c"),
        Reference(path="a/b", config_url="https://a.org/config.json"),
        Reference(path="https://a.org/b.safetensors"),
        Reference(path="https://a.org/b.safetensors", config_url="https://a.org/config.json"),
    ]
    names = [find_weights(catalog, "controlnet", item, "f").name for item in references]
    assert len(set(names)) == len(names)
    same = [Reference(path=path) for path in ("a/b", f"{HUB}/a/b", f"{HUB}/a/b/tree/main")]
    assert len({find_weights(catalog, "controlnet", item, "f").name for item in same}) == 1


def test_what_was_fetched_is_found_again_without_asking(tmp_path: Path) -> None:
    catalog = Catalog([], models_dir=tmp_path)
    uses: dict[AddOn, Reference] = {
        "lora": Reference(path="a/b"),
        "embedding": Reference(path="a/b"),
        "ip_adapter": Reference(path="a/b", weight_name="x.bin"),
        "clip_vision": Reference(path="a/b"),
    }
    for use, reference in uses.items():
        before = find_weights(catalog, use, reference, "field")
        assert before.source is not None
        arrived = before.path
        if use != "lora":  # pickled files take their own ending along
            arrived = before.path.with_name(before.path.name.removesuffix(".safetensors") + ".bin")
        arrived.parent.mkdir(parents=True, exist_ok=True)
        arrived.touch()
        for known in (catalog, read_catalog(tmp_path)):
            after = find_weights(known, use, reference, "field")
            assert (after.path, after.source) == (arrived, None)
    model = find_weights(catalog, "checkpoint", Reference(path="a/b"), "model_name")
    model.path.mkdir(parents=True)
    (model.path / "model_index.json").write_text("{}")
    again = find_weights(read_catalog(tmp_path), "checkpoint", Reference(path="a/b"), "model_name")
    assert again == Checkpoint(name=model.name, path=model.path)
    assert read_catalog(tmp_path).checkpoint(model.name) == again


def test_only_allowed_hosts_are_fetched_from(catalog: Catalog) -> None:
    asked: list[str] = []

    def may_fetch(url: str) -> bool:
        asked.append(url)
        return "good" in url

    for path in ("a/b", f"{HUB}/a/b", "https://bad.org/x.safetensors"):
        with pytest.raises(
            InvalidRequest, match=r"^field: expected a name of .*--allow-downloads, got '"
        ):
            find_weights(catalog, "controlnet", Reference(path=path), "field", may_fetch)
    assert asked == [f"{HUB}/a/b", f"{HUB}/a/b", "https://bad.org/x.safetensors"]
    config = "https://bad.org/config.json"
    reference = Reference(path="https://good.org/x.safetensors", config_url=config)
    with pytest.raises(InvalidRequest, match=re.escape(config)):
        find_weights(catalog, "controlnet", reference, "field", may_fetch)
    good = Reference(path="https://good.org/x.safetensors")
    assert find_weights(catalog, "controlnet", good, "field", may_fetch).source is not None


@pytest.mark.parametrize(
    "path",
    [
        "../secret", "/etc/passwd", "~/x", "a/../b", "a\\b", "C:\\x.safetensors", "a\nb", "a/b\x00",
        "file:///etc/passwd", "ftp://a.org/x.safetensors", "data:application/octet-stream;base64,AA",
        "https://user:word@a.org/x.safetensors", "https://a.org\\@b.org/x.safetensors",
        "https://a.org/x.ckpt", "https://a.org/", "https://a.org/..safetensors", "a/b@../c", "a/b@",
        f"{HUB}/a/b/tree/main/../../c", f"{HUB}/a/b/tree/main/%2e%2e/c", f"{HUB}/a/b/tree/..",
        "https://" + "a" * 9000, "x" * 9000, "//host/share", "a..b/../c",
    ],
)  # fmt: skip
def test_what_could_lead_elsewhere_is_refused_on_its_field(catalog: Catalog, path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^loras\.0\.path: expected .+, got ") as caught:
        find_weights(catalog, "lora", Reference(path=path), "loras.0.path")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("use", "asked"),
    [
        ("ip_adapter", {"subfolder": "../x"}),
        ("ip_adapter", {"subfolder": "/x"}),
        ("ip_adapter", {"subfolder": "x\\y"}),
        ("ip_adapter", {"subfolder": "x//y"}),
        ("ip_adapter", {"weight_name": "../x.safetensors"}),
        ("ip_adapter", {"weight_name": "x.ckpt"}),
        ("lora", {"weight_name": "x.bin"}),
        ("lora", {"weight_name": ".safetensors"}),
        ("checkpoint", {"variant": "../fp16"}),
        ("controlnet", {"variant": "a.b"}),
        ("controlnet", {"config_url": "file:///etc/config.json"}),
        ("controlnet", {"config_url": "https://a.org/config.py"}),
        ("controlnet", {"config_url": "https://me@a.org/config.json"}),
    ],
)
def test_parts_of_a_reference_have_their_rules(
    catalog: Catalog, use: Use, asked: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match=r"^field: expected .+, got '"):
        find_weights(catalog, use, Reference(path="a/b", **asked), "field")


@pytest.mark.parametrize("path", ["nothing", "photo/nothing.safetensors", "a/b/c", "", "a b/c"])
def test_other_names_are_looked_up_and_not_found(catalog: Catalog, path: str) -> None:
    with pytest.raises(ModelNotFound, match="^field: no LoRA named "):
        find_weights(catalog, "lora", Reference(path=path), "field")


def test_a_pickled_file_has_no_configuration(catalog: Catalog) -> None:
    reference = Reference(path="https://a.org/x.pth", config_url="https://a.org/config.json")
    with pytest.raises(InvalidRequest, match="^field: expected weights in safetensors, which"):
        find_weights(catalog, "controlnet", reference, "field")
