"""A LoRA's file tells its title, its words and what it fits; whatever a stranger wrote into it is only text."""

import base64
import json
from pathlib import Path

import pytest

from engine import Checkpoint, ModelIncompatible, check_asked, check_lora
from engine.catalog import Source, Weights
from engine.lora_facts import (
    FOREIGN,
    MAX_WORDS,
    TAGS,
    base_width,
    clean_words,
    header_thumbnail,
    lora_facts,
    split_words,
)
from tests.lora_files import KEY, hostile_files, lora_bytes, weights_bytes, write_lora

POCKET = Path(__file__).parent.parent.parent / "models" / "pocket"
TRAINED = {
    "modelspec.title": "Ink\nand wash",
    "modelspec.author": "Somebody",
    "modelspec.trigger_phrase": "inkwash, (soft, wet:1.2), inkwash",
    "ss_sd_model_name": "sd_xl_base_1.0.safetensors",
    "ss_resolution": "(1024, 1024)",
    "ss_tag_frequency": json.dumps(
        {"10_ink": {"inkwash": 40, "tree": 7, "bad": "many"}, "2_more": {"tree": 3}, "x": 3}
    ),
}


def test_the_header_tells_title_words_tags_and_model(tmp_path: Path) -> None:
    told = lora_facts(write_lora(tmp_path / "ink.safetensors", TRAINED))
    assert (told.title, told.author) == ("Ink and wash", "Somebody")
    assert told.words == ("inkwash", "(soft, wet:1.2)")
    assert told.tags == (("inkwash", 40), ("tree", 10))
    assert (told.width, told.made_for) == (2048, "SDXL")
    assert (told.trained_on, told.resolution) == ("sd_xl_base_1.0.safetensors", "(1024, 1024)")
    assert told.is_lora
    assert not told.has_thumbnail


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "ink.safetensors")
    assert lora_facts(path).title == ""
    write_lora(path, {"modelspec.title": "Ink"})
    assert lora_facts(path).title == "Ink"


@pytest.mark.parametrize(
    ("shapes", "known", "expected"),
    [
        ({f"{KEY}.lora_down.weight": (2, 768)}, {}, (768, "Stable Diffusion 1.5")),
        ({f"{KEY}.lora_down.weight": (2, 1024)}, {}, (1024, "Stable Diffusion 2.x")),
        ({"unet.mid.attn2.to_v.lora_A.weight": (2, 2048)}, {}, (2048, "SDXL")),
        ({"unet.mid.attn2.to_v.lora_A.default.weight": (2, 2048)}, {}, (2048, "SDXL")),
        (
            {"mid.attn2.processor.to_k_lora.down.weight": (2, 768)},
            {},
            (768, "Stable Diffusion 1.5"),
        ),
        ({f"{KEY}.hada_w1_b": (2, 2048)}, {}, (2048, "SDXL")),
        ({f"{KEY}.diff": (8, 2048)}, {}, (2048, "SDXL")),
        ({f"{KEY}.lokr_w1": (4, 32), f"{KEY}.lokr_w2": (2, 64)}, {}, (2048, "SDXL")),
        (
            {f"{KEY}.lokr_w1": (4, 16), f"{KEY}.lokr_w2_a": (2, 3), f"{KEY}.lokr_w2_b": (3, 48)},
            {},
            (768, "Stable Diffusion 1.5"),
        ),
        ({f"{KEY}.lora_down.weight": (2, 7)}, {"pochade.base": "pocket"}, (7, "pocket")),
        ({"lora_te2_text_projection.lora_down.weight": (2, 8)}, {}, (2048, "SDXL")),
        (
            {"x.lora_down.weight": (2, 8)},
            {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
            (2048, "SDXL"),
        ),
        (
            {"x.lora_down.weight": (2, 8)},
            {"ss_base_model_version": "sd_v1"},
            (768, "Stable Diffusion 1.5"),
        ),
        (
            {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (2, 8)},
            {},
            (FOREIGN, "Flux"),
        ),
        (
            {"transformer.joint_blocks.0.attn.lora_A.weight": (2, 8)},
            {},
            (FOREIGN, "Stable Diffusion 3"),
        ),
        ({"x.lora_down.weight": (2, 8)}, {}, (None, "")),
    ],
)
def test_what_it_fits_shows_in_its_layers_or_its_header(
    tmp_path: Path, shapes, known, expected
) -> None:
    path = tmp_path / "it.safetensors"
    path.write_bytes(weights_bytes(shapes, known))
    told = lora_facts(path)
    assert (told.width, told.made_for) == expected
    assert told.is_lora


def test_base_models_tell_the_width_that_their_loras_have(tmp_path: Path) -> None:
    pocket = Checkpoint(name="pocket", path=POCKET)
    lora = lora_facts(POCKET / "loras" / "pocket_dots.safetensors")
    assert base_width(pocket) == lora.width == 160
    file = tmp_path / "own.safetensors"
    file.write_bytes(weights_bytes({"a.attn2.to_k.weight": (4, 768)}))
    assert base_width(Checkpoint(name="own.safetensors", path=file)) == 768
    assert base_width(Checkpoint(name="x", path=tmp_path / "gone")) == 2048
    assert base_width(Checkpoint(name="x", path=tmp_path / "gone", paints_as="sd15")) == 768


@pytest.mark.parametrize("data", hostile_files().values(), ids=hostile_files())
def test_what_is_no_lora_is_refused_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "evil.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelIncompatible, match=r"^its\.safetensors: expected .*, got .*"):
        check_lora(path, "its.safetensors")
    lora_facts(path)  # reads what it can, and never fails


def test_the_sentence_says_where_other_weights_belong(tmp_path: Path) -> None:
    control = {"input_hint_block.0.weight": (4, 4), "lora_controlnet": (1,)}
    path = tmp_path / "it.safetensors"
    for shapes, folder in (
        (control, "controlnet"),
        ({"clip_l": (2, 8)}, "embeddings"),
        (
            {
                "model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
                "model.diffusion_model.label_emb.0.0.weight": (4, 2816),
            },
            "checkpoints",
        ),
    ):
        path.write_bytes(weights_bytes(shapes))
        with pytest.raises(ModelIncompatible, match=rf"it belongs into the {folder} folder$"):
            check_lora(path, "it")


@pytest.mark.parametrize(
    "known",
    [
        {"ss_tag_frequency": "[" * 50_000},
        {"ss_tag_frequency": '{"a": [1, 2], "b": {"": 3, "c": -1, "d": true}}'},
        {"ss_tag_frequency": "nonsense", "modelspec.thumbnail": "data:image/png;base64,%%%"},
        {"modelspec.title": "x" * 10**6, "modelspec.trigger_phrase": "(" * 10**6},
    ],
)
def test_a_header_full_of_nonsense_is_only_short_text(tmp_path: Path, known) -> None:
    path = write_lora(tmp_path / "it.safetensors", known)
    told = lora_facts(path)
    assert told.is_lora
    assert told.tags == ()
    assert len(told.title) <= 200
    assert all(len(word) <= 200 for word in told.words)
    assert header_thumbnail(path) is None


def test_the_most_frequent_tags_come_first_and_not_all(tmp_path: Path) -> None:
    tags = {f"tag {number}": number for number in range(1, 40)}
    path = write_lora(tmp_path / "it.safetensors", {"ss_tag_frequency": json.dumps({"1_a": tags})})
    told = lora_facts(path).tags
    assert len(told) == TAGS
    assert told[0] == ("tag 39", 39)


def test_a_thumbnail_in_the_header_is_found(tmp_path: Path) -> None:
    uri = "data:image/jpeg;base64," + base64.b64encode(b"a picture").decode()
    path = write_lora(tmp_path / "it.safetensors", {"modelspec.thumbnail": uri})
    assert lora_facts(path).has_thumbnail
    assert header_thumbnail(path) == b"a picture"
    assert header_thumbnail(write_lora(tmp_path / "plain.safetensors")) is None
    assert header_thumbnail(tmp_path / "gone.safetensors") is None


def test_words_are_split_outside_of_brackets() -> None:
    assert split_words("a b, (c, d:1.1),, e\nf, a b ") == ("a b", "(c, d:1.1)", "e", "f")
    assert split_words("(open\nnext") == ("(open", "next")
    assert clean_words([" x ", 3, None, "x", "", "y\x00z"]) == ("x", "y z")
    assert len(clean_words(map(str, range(100)))) == MAX_WORDS


def test_only_what_was_asked_for_by_address_is_looked_at_and_removed(tmp_path: Path) -> None:
    place = tmp_path / "fetched" / "it.safetensors"
    place.parent.mkdir()
    asked = Source(url="https://example.org/it.safetensors", is_asked=True)
    item = Weights(name="fetched/it.safetensors", path=place, kind="lora", source=asked)
    place.write_bytes(lora_bytes())
    check_asked(item)
    place.write_bytes(weights_bytes({"weight": (2, 2)}))
    offered = Weights(name="it", path=place, kind="lora", source=Source(url="https://x.org/it"))
    check_asked(offered)
    record = place.with_name("it.safetensors.sha256")
    record.write_text("0" * 64)
    with pytest.raises(ModelIncompatible, match=r"expected a LoRA, got other weights$"):
        check_asked(item)
    assert list(place.parent.iterdir()) == []


@pytest.mark.torch
def test_every_key_that_the_patcher_reads_counts() -> None:
    from engine.lora_facts import _LORA_KEY
    from engine.models.patches.keys import _MORE_SLOTS, _SLOTS

    quiet = {"alpha"} | {
        slot for slot in _SLOTS if "|" in slot
    }  # never alone, or of no safetensors
    ends = [slot for slot in _SLOTS | _MORE_SLOTS if slot not in quiet and "magnitude" not in slot]
    missed = [end for end in ends if not _LORA_KEY.search(f"layer.{end}")]
    assert missed == []
