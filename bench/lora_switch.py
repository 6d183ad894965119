"""Time of a change of LoRAs, against diffusers' own `load_lora_weights`, `fuse_lora` and `unfuse_lora` on the same networks in the same run.

    python -m bench.lora_switch [--rounds 9] [--models-dir models] [--device cpu] [--keep-on cuda] [--real] [--write]

The pocket model by default; ``--real`` takes an SDXL UNet of full size with random weights in bfloat16 (5.2 GB, 5 more for pristine copies).
LoRAs are random, of rank 16, on all attention layers. Without `peft` only our side is timed. ``--write`` keeps the table beside
this file: LORA_SWITCH.md, or LORA_SWITCH_REAL.md.
"""

import argparse
import datetime
import importlib.util
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from engine.models.checkpoints import SDXL_CONFIG
from engine.models.devices import quiet_libraries, use_threads
from engine.models.patches import Patch, WeightPatcher

RANK = 16
PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
Scenes = Iterator[tuple[str, Callable[[], object]]]


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--keep-on", type=torch.device, help="where pristine copies lie")
    parser.add_argument("--real", action="store_true", help="an SDXL UNet of full size")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    use_threads(options.device)
    pipeline = real_pipeline(options.device) if options.real else pocket_pipeline(options)
    with tempfile.TemporaryDirectory() as folder:
        table = measure(pipeline, Path(folder), options)
    sys.stdout.write(table)
    if options.write:
        name = "LORA_SWITCH_REAL.md" if options.real else "LORA_SWITCH.md"
        (Path(__file__).parent / name).write_text(table, encoding="utf-8")


def pocket_pipeline(options: argparse.Namespace) -> Any:
    """Load the pocket model in float32."""
    from diffusers import StableDiffusionXLPipeline

    path = options.models_dir / "pocket"
    return StableDiffusionXLPipeline.from_pretrained(
        path, dtype=torch.float32, add_watermarker=False
    ).to(options.device)


def real_pipeline(device: torch.device) -> Any:
    """Build a pipeline of nothing but a UNet of SDXL's size, with random weights in bfloat16."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
        )
    unet = unet.to(torch.bfloat16).to_empty(device=device)
    for weight in unet.parameters():
        nn.init.uniform_(weight, -0.05, 0.05)
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet.requires_grad_(requires_grad=False),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def networks_of(pipeline: Any) -> dict[str, nn.Module]:
    """Name the networks that a LoRA may change."""
    parts = {part: getattr(pipeline, part) for part in PREFIXES}
    return {part: network for part, network in parts.items() if network is not None}


def layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """List the linear layers in attention blocks: what kohya's scripts train."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and ("attentions." in name or "encoder.layers." in name):
            yield name, module


def write_lora(path: Path, networks: Mapping[str, nn.Module], seed: int) -> None:
    """Write a random LoRA in kohya's form."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for part, network in networks.items():
        for name, layer in layers(network):
            in_text = part != "unet" and not name.startswith("text_model.")
            key = f"{PREFIXES[part]}_{'text_model_' * in_text}{name.replace('.', '_')}"
            up = torch.randn(layer.out_features, RANK, generator=draw) * 0.01
            tensors[f"{key}.lora_up.weight"] = up.half()
            down = torch.randn(RANK, layer.in_features, generator=draw)
            tensors[f"{key}.lora_down.weight"] = down.half()
            tensors[f"{key}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, path)


def measure(pipeline: Any, folder: Path, options: argparse.Namespace) -> str:
    """Time both sides in turn; each leaves the networks as they were."""
    networks = networks_of(pipeline)
    first, second = folder / "a.safetensors", folder / "b.safetensors"
    for seed, file in enumerate((first, second)):
        write_lora(file, networks, seed)
    has_rival = importlib.util.find_spec("peft") is not None
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(options.rounds):
        patcher = WeightPatcher(networks, keep_on=options.keep_on)
        mine = {name: seconds(act) for name, act in our_scenes(patcher, first, second)}
        rival = their_scenes(pipeline, first, second) if has_rival else ()
        theirs = {name: seconds(act) for name, act in rival}
        for name, spent in mine.items():
            rows[name].append((spent, theirs.get(name, float("nan"))))
    lines = [heading(networks, first, options)]
    for name, pairs in rows.items():
        ours, stock = (statistics.median(side) for side in zip(*pairs, strict=True))
        lines.append(f"| {name} | {ours:.3f} | {stock:.3f} | {ours / stock:.3f} |")
    return "\n".join(lines) + "\n"


def heading(networks: Mapping[str, nn.Module], file: Path, options: argparse.Namespace) -> str:
    """Say when, where and how the table was made."""
    weights = [weight for network in networks.values() for weight in network.parameters()]
    count = sum(weight.numel() for weight in weights) / 1e6
    return (
        f"# Change of LoRAs\n\nMade by `python -m bench.lora_switch` on {datetime.date.today()}: "
        f"{count:.0f} M parameters in {weights[0].dtype} on {options.device}, pristine copies on "
        f"{options.keep_on or 'cpu'}, LoRAs of rank {RANK} ({file.stat().st_size / 1e6:.0f} MB), "
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s) of {platform.machine()}; "
        f"medians of {options.rounds} rounds, ours and diffusers in turn.\n\n"
        "| seconds to | ours | diffusers | ratio |\n|---|---|---|---|"
    )


def our_scenes(patcher: WeightPatcher, first: Path, second: Path) -> Scenes:
    """Change LoRAs with the weight patcher."""
    yield "the first LoRA", lambda: patcher.use([Patch(first, 1.0)])
    yield "another weight", lambda: patcher.use([Patch(first, 0.5)])
    yield "another LoRA", lambda: patcher.use([Patch(second, 0.5)])
    yield "an earlier one", lambda: patcher.use([Patch(first, 1.0)])
    yield "none", lambda: patcher.use([])
    yield "one again", lambda: patcher.use([Patch(first, 0.7)])
    yield "none again", lambda: patcher.use([])


def their_scenes(pipeline: Any, first: Path, second: Path) -> Scenes:
    """Do the same with diffusers."""
    parts = list(networks_of(pipeline))

    def load(file: Path, scale: float) -> None:
        pipeline.load_lora_weights(file, adapter_name="one")
        pipeline.fuse_lora(components=parts, lora_scale=scale)

    def drop() -> None:
        pipeline.unfuse_lora(components=parts)
        pipeline.unload_lora_weights()

    def weigh(scale: float) -> None:
        pipeline.unfuse_lora(components=parts)
        pipeline.fuse_lora(components=parts, lora_scale=scale)

    def exchange(file: Path, scale: float) -> None:
        drop()
        load(file, scale)

    yield "the first LoRA", lambda: load(first, 1.0)
    yield "another weight", lambda: weigh(0.5)
    yield "another LoRA", lambda: exchange(second, 0.5)
    yield "an earlier one", lambda: exchange(first, 1.0)
    yield "none", drop
    yield "one again", lambda: load(first, 0.7)
    yield "none again", drop


def seconds(action: Callable[[], object]) -> float:
    """Time one call, to the end of its work on the device."""
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
