"""What is taken of a repository, by diffusers' habits of naming, and what it is called here."""

import json
from dataclasses import replace

import pytest

from engine.catalog import Wanted
from engine.errors import ModelIncompatible
from engine.models.repositories import (
    OnlyPickled,
    choose_file,
    choose_network,
    choose_pipeline,
    plain_config,
    plain_index,
    plain_shards,
)

LORA = Wanted(form="file", usual="pytorch_lora_weights")
WORD = Wanted(form="file", usual="learned_embeds", endings=(".safetensors", ".pt", ".bin"))
ADAPTER = Wanted(
    form="file", endings=(".safetensors", ".bin"), folders=("sdxl_models",), file="ip.bin"
)
NET = Wanted(form="network", usual="diffusion_pytorch_model")
UNET = Wanted(form="network", usual="diffusion_pytorch_model", folders=("", "unet"))
PIPELINE = Wanted(form="pipeline")
PLAIN, HALF = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        (LORA, ["a.safetensors", "pytorch_lora_weights.safetensors"], "pytorch_lora_weights.safetensors"),
        (LORA, ["README.md", "pixel.safetensors", "checkpoint-5/pixel.safetensors"], "pixel.safetensors"),
        (WORD, ["learned_embeds.bin"], "learned_embeds.bin"),
        (WORD, ["learned_embeds.bin", "learned_embeds.safetensors"], "learned_embeds.safetensors"),
        (WORD, ["word.pt", "optimizer.bin"], "word.pt"),
        (ADAPTER, ["sdxl_models/ip.bin", "ip.bin"], "sdxl_models/ip.bin"),
        (ADAPTER, ["sdxl_models/ip.bin", "sdxl_models/ip.safetensors"], "sdxl_models/ip.safetensors"),
    ],
)  # fmt: skip
def test_one_file_is_chosen(wanted: Wanted, names: list[str], found: str) -> None:
    assert choose_file(names, "a/b", wanted) == found


@pytest.mark.parametrize(
    ("wanted", "names", "problem"),
    [
        (LORA, ["a.safetensors", "b.safetensors"], "expected the name of one of its files of weights: a.safetensors, b.safetensors"),
        (LORA, ["a.bin"], r"expected a file of weights that ends in .safetensors in the repository, got none"),
        (ADAPTER, ["ip.bin"], r"expected ip.bin in sdxl_models, got ip.bin"),
    ],
)  # fmt: skip
def test_where_it_is_not_clear_the_files_are_named(
    wanted: Wanted, names: list[str], problem: str
) -> None:
    with pytest.raises(ModelIncompatible, match=f"^a/b: {problem}$"):
        choose_file(names, "a/b", wanted)


def variant(wanted: Wanted, name: str | None) -> Wanted:
    return replace(wanted, variant=name)


@pytest.mark.parametrize(
    ("wanted", "names", "chosen"),
    [
        (NET, [PLAIN, "config.json", "x.bin"], {PLAIN: PLAIN, "config.json": "config.json"}),
        (NET, [PLAIN, HALF, "config.json"], {HALF: PLAIN, "config.json": "config.json"}),
        (variant(NET, "fp16"), [PLAIN, HALF, "config.json"], {HALF: PLAIN, "config.json": "config.json"}),
        (variant(NET, "ema"), [PLAIN, "diffusion_pytorch_model.ema.safetensors", "config.json"],
         {"diffusion_pytorch_model.ema.safetensors": PLAIN, "config.json": "config.json"}),
        (NET, ["net.safetensors", "config.json"], {"net.safetensors": PLAIN, "config.json": "config.json"}),
        (UNET, ["model.safetensors", f"unet/{PLAIN}", "unet/config.json", "vae/config.json"],
         {f"unet/{PLAIN}": PLAIN, "unet/config.json": "config.json"}),
        (NET, [
            "config.json",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        ], {
            "config.json": "config.json",
            "diffusion_pytorch_model.safetensors.index.fp16.json": "diffusion_pytorch_model.safetensors.index.json",
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors": "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16-00002-of-00002.safetensors": "diffusion_pytorch_model-00002-of-00002.safetensors",
        }),
    ],
)  # fmt: skip
def test_a_network_is_chosen(wanted: Wanted, names: list[str], chosen: dict[str, str]) -> None:
    assert choose_network(names, "a/b", wanted) == chosen


def test_a_configuration_from_elsewhere_replaces_the_repositorys() -> None:
    wanted = replace(NET, config_url="https://a.org/config.json")
    assert choose_network([PLAIN, "config.json"], "a/b", wanted) == {PLAIN: PLAIN}
    assert choose_network([PLAIN], "a/b", wanted) == {PLAIN: PLAIN}


def test_a_network_that_is_not_there_is_named() -> None:
    for wanted, names, problem in (
        (NET, [PLAIN], rf"{PLAIN} and config\.json in the repository, got {PLAIN}"),
        (variant(NET, "fp16"), [PLAIN, "config.json"], rf"diffusion_pytorch_model\.fp16\.safetensors and .+, got {PLAIN}"),
        (UNET, ["README.md"], r".+ in the repository or unet, got none"),
    ):  # fmt: skip
        with pytest.raises(ModelIncompatible, match=f"^a/b: expected {problem}$"):
            choose_network(names, "a/b", wanted)
    with pytest.raises(OnlyPickled, match="got diffusion_pytorch_model.bin$"):
        choose_network(["diffusion_pytorch_model.bin", "config.json"], "a/b", NET)


PARTS = {
    "unet": ("config.json", PLAIN, HALF),
    "vae": ("config.json", PLAIN),
    "text_encoder": ("config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"),
    "tokenizer": ("vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
    "safety_checker": ("config.json", "model.safetensors"),
}  # fmt: skip


def names(**changes: tuple[str, ...]) -> list[str]:
    parts = PARTS | changes
    inside = [f"{part}/{name}" for part, files in parts.items() for name in files]
    return ["README.md", "whole.safetensors", "model_index.json", "code.py", *inside]


def test_a_pipeline_is_of_the_variant_where_it_has_it() -> None:
    mixed = choose_pipeline(names(), "a/b", variant(PIPELINE, "fp16"))
    assert mixed == {
        "unet/config.json": "unet/config.json",
        f"unet/{HALF}": f"unet/{PLAIN}",
        "vae/config.json": "vae/config.json",
        f"vae/{PLAIN}": f"vae/{PLAIN}",
        "text_encoder/config.json": "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors": "text_encoder/model.safetensors",
        "tokenizer/vocab.json": "tokenizer/vocab.json",
        "tokenizer/merges.txt": "tokenizer/merges.txt",
        "scheduler/scheduler_config.json": "scheduler/scheduler_config.json",
        "model_index.json": "model_index.json",
    }
    assert list(mixed)[-1] == "model_index.json"


def test_without_a_variant_all_parts_are_half_or_none() -> None:
    plain = choose_pipeline(names(), "a/b", PIPELINE)
    assert f"unet/{PLAIN}" in plain
    assert f"unet/{HALF}" not in plain
    half = choose_pipeline(names(vae=("config.json", PLAIN, HALF)), "a/b", PIPELINE)
    assert half[f"unet/{HALF}"] == f"unet/{PLAIN}"
    assert half[f"vae/{HALF}"] == f"vae/{PLAIN}"


def test_a_pipeline_in_a_folder() -> None:
    below = [f"sub/{name}" for name in names()]
    chosen = choose_pipeline(below, "a/b", replace(PIPELINE, folders=("sub",)))
    assert chosen[f"sub/unet/{PLAIN}"] == f"unet/{PLAIN}"
    assert chosen["sub/model_index.json"] == "model_index.json"


def test_other_pipelines_are_refused() -> None:
    with pytest.raises(ModelIncompatible, match=r"the variant 'ema', got text_encoder/model.fp16"):
        choose_pipeline(names(), "a/b", variant(PIPELINE, "ema"))
    with pytest.raises(OnlyPickled, match=r"^a/b: expected safetensors in vae, got vae/x\.bin$"):
        choose_pipeline(names(vae=("config.json", "x.bin")), "a/b", PIPELINE)
    with pytest.raises(ModelIncompatible, match=r"^a/b: expected .+ model_index\.json, got x\.md$"):
        choose_pipeline(["x.md"], "a/b", PIPELINE)


def test_an_index_names_no_other_modules() -> None:
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["antigravity", "Popen"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "evil": ["os", "system"],
    }
    assert json.loads(plain_index(json.dumps(index).encode())) == {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "unet": ["diffusers", "UNet2DConditionModel"],
    }


def test_shards_are_those_that_were_taken() -> None:
    data = {"metadata": {}, "weight_map": {"x": "m.fp16-00001-of-00002.safetensors"}}
    here = ["m-00001-of-00002.safetensors"]
    plain = json.loads(plain_shards(json.dumps(data).encode(), here))
    assert plain["weight_map"] == {"x": "m-00001-of-00002.safetensors"}
    for lie in ({"x": "../../secret.safetensors"}, {"x": 1}, ["x"], None):
        with pytest.raises(ValueError, match="weight_map|the file"):
            plain_shards(json.dumps({"weight_map": lie}).encode(), here)


@pytest.mark.parametrize("data", [b"[1]", b"{", b"\xff", b"", b"[" * 100_000])
def test_what_is_no_description_is_refused(data: bytes) -> None:
    for read in (plain_config, plain_index, lambda data: plain_shards(data, [])):
        with pytest.raises(ValueError):  # noqa: PT011  (json's own words)
            read(data)
