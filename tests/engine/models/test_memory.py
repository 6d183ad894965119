"""Tiers follow from free memory and the sizes of a model's parts; what is out of memory is told from other errors."""

from pathlib import Path

import pytest
import torch

from engine import InvalidRequest
from engine.geometry import Size
from engine.models.checkpoints import SDXL_CONFIG
from engine.models.devices import free_bytes, host_bytes
from engine.models.memory import (
    SDXL,
    Memory,
    Parts,
    Tier,
    aside,
    choose_tier,
    decoding_bytes,
    has_room_for_whole,
    is_out_of_memory,
    needed,
)

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
GB = 10**9
TAKEN = 0.6 * GB
"""What a desktop and CUDA itself take of a card before anything is loaded."""
RAM = 32 * GB
LITTLE_RAM = 8 * GB


def sdxl(**more: int) -> Parts:
    """SDXL's parts, with something else beside them."""
    return Parts(
        unet=SDXL.unet,
        text=SDXL.text,
        vae=SDXL.vae + more.get("beside", 0),
        painting=SDXL.painting,
        decoding=SDXL.decoding,
    )


@pytest.mark.parametrize(
    ("gib", "host", "tier"),
    [
        (4, RAM, "streamed"),
        (6, RAM, "streamed"),
        (8, RAM, "text-off"),
        (10, RAM, "resident"),
        (12, RAM, "resident"),
        (16, RAM, "resident"),
        (24, RAM, "resident"),
        (80, RAM, "resident"),
        (4, LITTLE_RAM, "streamed"),  # not even the UNet in 8 bits fits
        (6, LITTLE_RAM, "fp8"),
        (8, LITTLE_RAM, "text-off"),
        (12, LITTLE_RAM, "resident"),
    ],
)
def test_sdxl_on_cards(gib, host, tier):
    assert choose_tier(SDXL, free=int(gib * 2**30 - TAKEN), host=host) == tier


def test_an_sd15_model_stays_on_a_card_where_sdxl_does_not():
    parts = Parts(
        unet=1_720_000_000,
        text=246_000_000,
        vae=167_000_000,
        painting=671_000_000 // 4,
        decoding=SDXL.decoding // 4,
    )
    assert choose_tier(parts, free=4 * GB, host=RAM) is Tier.RESIDENT
    assert choose_tier(SDXL, free=4 * GB, host=RAM) is Tier.STREAMED


def test_each_tier_takes_less_than_the_one_before():
    sizes = [needed(tier, SDXL) for tier in Tier]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_what_lies_beside_counts():
    free = needed(Tier.RESIDENT, SDXL)
    assert choose_tier(SDXL, free=free, host=RAM) is Tier.RESIDENT
    assert choose_tier(sdxl(beside=1), free=free, host=RAM) is Tier.TEXT_OFF


def test_the_numbers_of_sdxl_are_those_of_its_networks():
    from diffusers import AutoencoderKL, UNet2DConditionModel

    class Pipeline:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(
                UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
            )
            vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SDXL_CONFIG / "vae"))

    Pipeline.unet.half(), Pipeline.vae.half()
    parts = Parts.of(Pipeline, [], 1024)
    for name in ("unet", "vae", "painting", "decoding"):
        assert getattr(parts, name) == pytest.approx(getattr(SDXL, name), rel=0.005), name
    assert decoding_bytes(Pipeline.vae, Size(2048, 1024)) == 2 * parts.decoding


def test_a_picture_beyond_all_memory_is_not_decoded_as_a_whole():
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=32)
    assert has_room_for_whole(vae, Size(64, 64))
    assert not has_room_for_whole(vae, Size(2**20, 2**20))


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_where_memory_is_shared_everything_stays(kind):
    memory = Memory(torch.device(kind))
    assert memory.tier_for(SDXL) is Tier.RESIDENT
    assert memory.step_down(Tier.RESIDENT) is None
    assert "--memory" not in memory.remedy(Tier.RESIDENT)


@pytest.mark.parametrize("tier", list(Tier))
def test_a_tier_that_is_asked_for_is_taken(tier):
    assert Memory(CPU, str(tier)).tier_for(SDXL) is tier


def test_other_tiers_are_refused():
    with pytest.raises(
        InvalidRequest,
        match=r"^memory: expected one of auto, resident, text-off, fp8, streamed, got 'x'$",
    ):
        Memory(CPU, "x")
    with pytest.raises(InvalidRequest, match=r"^memory: expected another tier than fp8, .* mps"):
        Memory(torch.device("mps"), "fp8")


def test_a_card_steps_down_to_the_last_tier_and_recovers():
    memory = Memory(CUDA, "resident")
    assert memory.step_down(Tier.RESIDENT) is Tier.TEXT_OFF
    assert memory.tier_for(SDXL) is Tier.TEXT_OFF
    assert memory.step_down(Tier.TEXT_OFF) in (Tier.STREAMED, Tier.FP8)  # by the machine's memory
    assert memory.step_down(Tier.FP8) is Tier.STREAMED
    assert memory.tier_for(SDXL) is Tier.STREAMED
    assert memory.step_down(Tier.STREAMED) is None
    memory.recover()
    assert memory.tier_for(SDXL) is Tier.RESIDENT


def test_a_lower_tier_that_is_asked_for_is_not_raised():
    memory = Memory(CUDA, "streamed")
    memory.step_down(Tier.RESIDENT)
    assert memory.tier_for(SDXL) is Tier.STREAMED


def test_what_can_be_done_names_the_flag_while_it_helps():
    memory = Memory(CUDA, "resident")
    told = "ask for a smaller size, choose a smaller base model"
    assert memory.remedy(Tier.RESIDENT) == f"{told} or start with --memory streamed"
    assert memory.remedy(Tier.STREAMED) == "ask for a smaller size or choose a smaller base model"


def test_networks_that_were_aside_have_ordinary_weights_also_while_others_infer():
    network = torch.nn.Linear(2, 2)
    with torch.inference_mode(), aside([network], torch.device("meta")):
        assert network.weight.device == CPU
    assert network.weight.device.type == "meta"
    assert not network.weight.is_inference()


def test_a_containers_share_of_memory_counts(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    cgroup.mkdir()
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable: 3000 kB\nHugePages_Total: 0\n")
    assert host_bytes(meminfo, cgroup) == 3000 * 1024
    (cgroup / "memory.max").write_text("max\n")
    assert host_bytes(meminfo, cgroup) == 3000 * 1024
    (cgroup / "memory.max").write_text(f"{2000 * 1024}\n")
    (cgroup / "memory.current").write_text(f"{1500 * 1024}\n")
    (cgroup / "memory.stat").write_text(f"anon 5\ninactive_file {500 * 1024}\n")
    assert host_bytes(meminfo, cgroup) == 1000 * 1024
    assert 0 < host_bytes(tmp_path / "none", cgroup) <= 1000 * 1024
    assert free_bytes(CPU) > 0


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_errors_that_say_that_memory_is_out(error, is_it):
    assert is_out_of_memory(error) == is_it
