"""Which ControlNet steers by what controlnet-aux draws: one of that name, else a Union, else the one that can be fetched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Checkpoint
from engine.catalog import Weights
from engine.image_inputs import FURTHER, FurtherType
from engine.partners import UNION, partner, partner_offers
from engine.places import read_catalog
from tests.real_layout import header

HINT = "controlnet_cond_embedding.conv_in.weight"
TEXT = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
NET = {HINT: (16, 3, 3, 3), TEXT: (640, 2048)}
A_UNION = NET | {"task_embedding": (8, 320)}
CONTROL_LORA = {"lora_controlnet": (0,), f"input_blocks.4.1.{TEXT[14:-6]}down": (64, 2048)}
SMALL = {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}
FOR_SD15 = NET | {TEXT: (640, 768)}
ADAPTER = {"adapter.body.0.block1.weight": (320, 320, 3, 3)}

Write = Callable[[str, dict[str, tuple[int, ...]]], None]
Find = Callable[[FurtherType], Weights]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of no weights, by its name in the folder."""

    def written(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
        path = tmp_path / "controlnet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header(shapes, "F16")[0])

    return written


@pytest.fixture
def find(tmp_path: Path) -> Find:
    def found(kind: FurtherType) -> Weights:
        catalog = read_catalog(tmp_path, offers=partner_offers())
        return partner(kind, Checkpoint(name="base", path=Path()), catalog, "field")

    return found


def test_without_any_the_union_is_fetched(find: Find) -> None:
    for kind in FURTHER:
        assert (find(kind).name, find(kind).source) == (UNION.file, UNION.source)


def test_a_union_of_any_name_serves_all(find: Find, write: Write) -> None:
    write("another.safetensors", NET)
    write("union/config.json", {})
    write("union/diffusion_pytorch_model.safetensors", A_UNION)
    assert {find(kind).name for kind in FURTHER} == {"union"}


@pytest.mark.parametrize("shapes", [NET, CONTROL_LORA, SMALL])
def test_a_net_that_is_named_for_the_type_comes_first(
    shapes: dict[str, tuple[int, ...]], find: Find, write: Write
) -> None:
    write("a_union_with_soft_edge.safetensors", A_UNION)
    write("SDXL_soft-edge.safetensors", shapes)
    assert find("SoftEdge").name == "SDXL_soft-edge.safetensors"
    assert find("Depth").name == "a_union_with_soft_edge.safetensors"


def test_others_of_that_name_are_passed_over(find: Find, write: Write, tmp_path: Path) -> None:
    write("depth_sd15.safetensors", FOR_SD15)
    write("depth_adapter.safetensors", ADAPTER)
    (tmp_path / "controlnet" / "depth_broken.safetensors").write_bytes(b"no header")
    (tmp_path / "controlnet" / "depth.pth").touch()
    assert find("Depth").name == UNION.file
