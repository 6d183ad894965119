"""SDXL at full size, once for real: a file is written, loaded, patched by a LoRA, restored, makes a step, and follows a picture.

    python -m bench.real_size --dir FOLDER [--dtype bfloat16] [--size 1024] [--write]

The weights are random, but of the real names, shapes and spread; the files are removed at the end. Takes 8 GB of FOLDER and
14 GB of memory (28 GB in float32). ``--write`` keeps the table in docs/real_size.md. Reads /proc, so it runs on Linux only.
"""

import argparse
import datetime
import hashlib
import math
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from bench.real_adapter import (
    TOKENS,
    attach_library,
    layer_errors,
    our_kwargs,
    projection_error,
    shapes_for,
    some_picture,
)
from engine.catalog import Checkpoint
from engine.models.checkpoints import LoadedModel, load_checkpoint
from engine.models.ip_adapters import load_ip_adapter
from engine.models.patches import Patch, WeightPatcher
from engine.models.tensors import read_tensors
from tests.real_layout import SDXL, Shape, base_shapes, header, number_format, unet_shapes

RESULTS = Path(__file__).parent.parent / "docs" / "real_size.md"
RANK = 16
EXACT, CLOSE = 1e-4, 0.1
"""Greatest differences from diffusers, over the spread of its answer: of one layer in float32, of a whole step in half precision."""
STORED = {"F16": torch.float16, "I64": torch.int64}
CPU = torch.device("cpu")
_PATCHED = re.compile(r"(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)$")
_NOISE = 2**22
_EMBEDDING_SPREAD = 0.02


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    names = ("random_sdxl", "random_lora", "random_adapter")
    base, lora, adapter = (options.dir / f"{name}.safetensors" for name in names)
    table = Table()
    try:
        model = measure(table, base, lora, getattr(torch, options.dtype), options.size)
        measure_adapter(table, adapter, model, options.size)
    finally:
        for file in (base, lora, adapter):
            file.unlink(missing_ok=True)
    if options.write:
        RESULTS.write_text(heading(options.dtype) + table.text(), encoding="utf-8")


def heading(dtype: str) -> str:
    """Say when, where and how the table was made."""
    return (
        "# SDXL at full size\n\n"
        f"Made by `python -m bench.real_size --write` on {datetime.date.today()}: a single file of SDXL's real layout with random "
        f"weights (float16), loaded on the CPU as {dtype}; a kohya LoRA of rank {RANK} on every attention and feed-forward "
        f"layer of the UNet and on both text encoders; an IP-Adapter plus of ViT-H, {TOKENS} tokens. {torch.get_num_threads()} thread(s) of {platform.machine()}, "
        f"torch {torch.__version__}, other programs at work beside it.\n\n"
        "Memory is the process's own at its peak; pages of the mapped file come on top, but the system takes them back when it "
        "needs them. In float32, the engine's own choice on the CPU, loading takes 15 GB and the LoRA 12 more.\n\n"
    )


def measure(table: "Table", base: Path, lora: Path, dtype: torch.dtype, size: int) -> LoadedModel:
    """Go through the life of a checkpoint and a LoRA, one table row each; gives the model as it was at first.

    Raises:
        RuntimeError: the weights are not what they were once the LoRA is out, or a step's result is not finite.
    """
    shapes, lora_shapes = base_shapes(), dict(kohya_shapes())
    table.time(f"write the checkpoint ({gigabytes(shapes)} GB)", lambda: write_file(base, shapes))
    table.time(
        f"write the LoRA ({gigabytes(lora_shapes)} GB)", lambda: write_file(lora, lora_shapes)
    )
    model: LoadedModel = table.time("load the checkpoint", lambda: load(base, dtype))
    networks = networks_of(model)
    pristine = table.time("checksum of all weights", lambda: checksum(networks))
    patcher = WeightPatcher(networks)
    report = table.time("apply the LoRA at 0.8", lambda: patcher.use([Patch(lora, 0.8)]))
    file = report.files[0]
    table.note(f"{file.matched} keys of the LoRA matched, {file.unmatched + file.skipped} did not")
    patched = checksum(networks)
    table.time("change its weight to 0.4", lambda: patcher.use([Patch(lora, 0.4)]))
    changed = checksum(networks)
    table.time("take it out", lambda: patcher.use([]))
    if checksum(networks) != pristine or len({pristine, patched, changed}) != 3:
        raise RuntimeError("expected the pristine weights once the LoRA is out, got others")
    table.note(f"sha256 of all weights before and after: {pristine[:16]}…, equal")
    return model


def measure_adapter(table: "Table", path: Path, model: LoadedModel, size: int) -> None:
    """Make a step without and with an IP-Adapter, and with diffusers' own, one table row each.

    Raises:
        RuntimeError: a result is not finite, the adapter changes nothing, or diffusers says something else.
    """
    unet: Any = model.unet
    what = f"one UNet step, one row, {size}x{size}"
    alone = table.time(what, lambda: step(unet, size))
    _require(bool(alone.isfinite().all()), "a finite result", alone)
    table.note(f"its result is finite; standard deviation {float(alone.std()):.2f}")
    shapes = shapes_for(unet)
    table.time(f"write the IP-Adapter ({gigabytes(shapes)} GB)", lambda: write_file(path, shapes))
    adapter = table.time("load it", lambda: load_ip_adapter(path, unet))
    image = table.time(
        "encode a picture for it", lambda: adapter.attend(adapter.project(some_picture()))
    )
    tensors = read_tensors(path)
    tokens = projection_error(unet, adapter, tensors)
    layers = table.time(
        "compare its layers one by one, float32", lambda: layer_errors(unet, adapter)
    )
    worst = max(layers)
    _require(max(tokens, worst) < EXACT, f"diffusers' answers within {EXACT}", (tokens, worst))
    table.note(
        f"its tokens differ from diffusers' by {tokens:.1g} of their spread at most, its {len(layers)} layers from "
        f"diffusers' IPAdapterAttnProcessor2_0 on the same weights by {worst:.1g} (float32)"
    )
    kwargs = our_kwargs(unet, image)
    ours = table.time(f"{what}, with a picture", lambda: step(unet, size, kwargs=kwargs))
    effect = float((ours - alone).std() / alone.std())
    _require(bool(ours.isfinite().all()), "a finite result", ours)
    added = attach_library(unet, tensors)
    wanted = table.time(f"{what}, with diffusers' own", lambda: step(unet, size, added=added))
    apart = float((ours - wanted).std() / wanted.std())
    _require(apart < CLOSE, f"diffusers' step within {CLOSE}", apart)
    _require(effect > 10 * apart, "a result that differs from that without a picture", effect)
    table.note(
        f"a picture of weight 1 changes the step by {effect:.1%} of its spread; ours, whose keys and values are worked out in "
        f"float32, and diffusers' own, all in {str(unet.dtype).removeprefix('torch.')}, then differ by {apart:.2%}"
    )


def _require(is_so: bool, wanted: str, got: object) -> None:
    if not is_so:
        raise RuntimeError(f"expected {wanted}, got {got}")


def load(path: Path, dtype: torch.dtype) -> LoadedModel:
    """Read the checkpoint as the engine does."""
    return load_checkpoint(Checkpoint(name=path.name, path=path), CPU, dtype=dtype)


def networks_of(model: LoadedModel) -> dict[str, nn.Module]:
    """Name the networks that LoRAs change."""
    parts = ("unet", "text_encoder", "text_encoder_2")
    return {part: getattr(model.pipeline, part) for part in parts}


@torch.inference_mode()
def step(
    unet: Any,
    size: int,
    *,
    kwargs: Mapping[str, Any] | None = None,
    added: Mapping[str, Any] | None = None,
) -> Tensor:
    """Call the UNet on noise with a random text.

    Args:
        unet: SDXL's.
        size: Of the picture in pixels.
        kwargs: What its attention is told.
        added: What it is told besides text and size.

    Returns:
        (1, 4, size / 8, size / 8), float32.
    """
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(unet.dtype)

    sizes = torch.tensor([[size, size, 0, 0, size, size]], dtype=unet.dtype)
    result = unet(
        noise(1, 4, size // 8, size // 8),
        torch.tensor([500]),
        encoder_hidden_states=noise(1, 77, 2048),
        added_cond_kwargs={"text_embeds": noise(1, 1280), "time_ids": sizes, **(added or {})},
        cross_attention_kwargs=kwargs,
    ).sample
    answer: Tensor = result.float()
    return answer


def checksum(networks: Mapping[str, nn.Module]) -> str:
    """Hash every bit of every weight, in order."""
    digest = hashlib.sha256()
    for part, network in sorted(networks.items()):
        for name, weight in network.named_parameters():
            digest.update(f"{part}.{name}".encode())
            digest.update(_bytes(weight.detach()))
    return digest.hexdigest()


def kohya_shapes() -> Iterator[tuple[str, Shape]]:
    """List a LoRA of kohya's naming on all attention and feed-forward layers of SDXL."""
    for key, shape in unet_shapes(SDXL).items():
        module, _, kind = key.rpartition(".")
        if kind == "weight" and _PATCHED.search(module):
            yield from _adapter(f"lora_unet_{module.replace('.', '_')}", *shape)
    for prefix, layers, width in (("lora_te1", 12, 768), ("lora_te2", 32, 1280)):
        for number in range(layers):
            layer = f"{prefix}_text_model_encoder_layers_{number}_"
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield from _adapter(f"{layer}self_attn_{name}", width, width)
            yield from _adapter(f"{layer}mlp_fc1", 4 * width, width)
            yield from _adapter(f"{layer}mlp_fc2", width, 4 * width)


def _adapter(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.alpha", ()
    yield f"{name}.lora_down.weight", (RANK, inputs)
    yield f"{name}.lora_up.weight", (outputs, RANK)


def write_file(path: Path, shapes: Mapping[str, Shape]) -> None:
    """Write random weights in float16, tensor by tensor."""
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))
    with path.open("wb") as file:
        file.write(header(shapes, "F16")[0])
        for key, shape in shapes.items():
            write_tensor(file, key, shape, noise)


def write_tensor(file: BinaryIO, key: str, shape: Shape, noise: Tensor) -> None:
    """Write one tensor: parts of `noise` from a place that the key decides, at the layer's usual spread."""
    count, stored = math.prod(shape), STORED[number_format(key, "F16")]
    if len(shape) < 2:
        value = float(RANK) if key.endswith(".alpha") else float(key.endswith(".weight"))
        file.write(_bytes(torch.full((count,), value, dtype=stored)))
        return
    is_embedding = "embedding" in key or key.endswith("text_projection")
    spread = _EMBEDDING_SPREAD if is_embedding else 1 / math.sqrt(math.prod(shape[1:]))
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") % _NOISE
    while count:
        piece = noise[start : start + count]
        file.write(_bytes((piece * spread).to(stored)))
        count, start = count - len(piece), 0


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.flatten().view(torch.uint8).numpy().data


def gigabytes(shapes: Mapping[str, Shape]) -> str:
    """Say how large a file of these tensors is."""
    start, data = header(shapes, "F16")
    return f"{(len(start) + data) / 1e9:.2f}"


class Table:
    """Rows of what was done, how long it took, and the memory it needed."""

    def __init__(self) -> None:
        self._rows = [
            "| what | seconds | own memory at its peak, GB | after it | peak with the mapped file |",
            "|---|---|---|---|---|",
        ]
        self._notes: list[str] = []

    def time(self, what: str, work: Callable[[], Any]) -> Any:
        """Do `work`, add its row and print it; gives what `work` gave."""
        with _Watch() as watch:
            started = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - started
        peaks = " | ".join(f"{value / 1e9:.1f}" for value in (watch.own, own_memory(), watch.all))
        self._rows.append(f"| {what} | {seconds:.1f} | {peaks} |")
        sys.stdout.write(self._rows[-1] + "\n")
        sys.stdout.flush()
        return result

    def note(self, text: str) -> None:
        """Add a line below the table, and print it."""
        self._notes.append(text)
        sys.stdout.write(text + "\n")

    def text(self) -> str:
        """Give table and notes as Markdown."""
        return "\n".join([*self._rows, "", *(f"- {note}" for note in self._notes), ""])


class _Watch:
    """Looks at the process's memory ten times a second and keeps the peaks, in bytes."""

    def __init__(self) -> None:
        self.own = self.all = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.own = max(self.own, own_memory())
            self.all = max(self.all, memory("VmRSS"))
            if self._done.wait(0.1):
                return


def own_memory() -> int:
    """Read how many bytes the process has that are of no file."""
    return memory("RssAnon")


def memory(kind: str) -> int:
    """Read one of the kernel's counts of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return int(facts[kind].split()[0]) * 1024


if __name__ == "__main__":
    main()
