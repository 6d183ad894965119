"""Time per picture against diffusers' own pipeline: same weights, steps, size and threads, in turn in one process.

    python -m bench.against_stock [--rounds 9] [--models-dir models] [--write]

Prints a table; ``--write`` keeps it in bench/RESULTS.md with the date and the machine's processor.
"""

import argparse
import datetime
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from engine import Catalog, Library, Plan, TextRequest, plan, read_catalog
from engine.engine import Engine, create

STEPS = 30
GUIDANCE = 4.0
PROMPT = "a large red star on a blue background"
JOBS = 8
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = measure(options.models_dir, options.rounds)
    table = "\n".join(["| what | ours | stock diffusers | ratio |", "|---|---|---|---|", *rows])
    sys.stdout.write(table + "\n")
    if options.write:
        kept = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
        _, start, rest = kept.partition("\n# Start\n")
        RESULTS.write_text(heading(options.rounds) + table + "\n" + start + rest, encoding="utf-8")


def heading(rounds: int) -> str:
    """Say when, where and how the table was made."""
    return (
        "# Against stock diffusers\n\n"
        f"Made by `python -m bench.against_stock --write` on {datetime.date.today()}: pocket model, "
        f"{STEPS} steps, guidance {GUIDANCE}, 128x128, float32, {torch.get_num_threads()} thread(s) of "
        f"{platform.machine()} with {platform.processor() or 'an unnamed processor'}, torch {torch.__version__}; "
        f"medians of {rounds} rounds, ours and stock in turn.\n\n"
    )


def measure(models_dir: Path, rounds: int) -> list[str]:
    """Time each scene in turn with its rival; one table row each."""
    catalog = read_catalog(models_dir, "pocket")
    engine = create(str(models_dir), model="pocket", device="cpu")
    engine.preload("pocket")
    stock = stock_pipeline(catalog)
    plain = [job(catalog, seed=seed) for seed in range(JOBS)]
    dressed = [job(catalog, seed=0, sharpness=2.0, previews=True)]

    def stock_images(count: int) -> Callable[[], object]:
        return lambda: [stock(seed) for seed in range(count)]

    scenes: Mapping[str, tuple[Callable[[], object], Callable[[], object], int]] = {
        "seconds per picture, one job, previews and sharpness off": (
            lambda: paint(engine, plain[:1]),
            stock_images(1),
            1,
        ),
        "seconds per picture, one job, previews and sharpness on": (
            lambda: paint(engine, dressed),
            stock_images(1),
            1,
        ),
        f"seconds per picture, {JOBS} jobs (stock: one by one)": (
            lambda: paint(engine, plain),
            stock_images(JOBS),
            JOBS,
        ),
    }
    rows = []
    for name, (ours, rival, pictures) in scenes.items():
        pairs = [(seconds(ours), seconds(rival)) for _ in range(rounds + 1)][1:]
        mine, theirs = (statistics.median(side) / pictures for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        rows.append(f"| {name} | {mine:.3f} | {theirs:.3f} | {ratio:.2f} |")
        if pictures > 1:
            rows.append(
                f"| pictures per minute, {JOBS} jobs | {60 / mine:.0f} | {60 / theirs:.0f} | {1 / ratio:.2f} |"
            )
    rows.append(preview_row(engine, rounds))
    return rows


def preview_row(engine: Engine, rounds: int) -> str:
    """Compare the preview decoder with one guided step."""
    decode = engine._palette.model.preview
    latents = torch.randn(1, 4, 16, 16)

    @torch.inference_mode()
    def once() -> None:
        decode(latents)

    preview = statistics.median(seconds(once) for _ in range(20 * rounds))
    one = [job(engine._palette.catalog, seed=1)]
    step = statistics.median(seconds(lambda: paint(engine, one)) for _ in range(rounds)) / STEPS
    return f"| preview decoder as share of a step | {preview * 1000:.2f} ms | step {step * 1000:.1f} ms | {preview / step:.3f} |"


def job(catalog: Catalog, *, seed: int, **fields: Any) -> Plan:
    """Plan one picture with the rival's sampler."""
    advanced = {
        "sampler": "euler",
        "scheduler": "normal",
        "num_inference_steps": STEPS,
        "base_model": "pocket",
        "previews": fields.pop("previews", False),
    }
    values = {
        "prompt": PROMPT,
        "guidance_scale": GUIDANCE,
        "sharpness": 0.0,
        "aspect_ratio": "128x128",
        "num_images": 1,
        "styles": (),
        "advanced": advanced,
        **fields,
    }
    return plan(TextRequest.parse(values), Library(catalog=catalog), seed=seed)


def paint(engine: Engine, jobs: list[Plan]) -> None:
    """Run jobs to their end, together."""
    for number, item in enumerate(jobs):
        engine.admit(str(number), item, {})
    while not engine.idle():
        engine.step()


def stock_pipeline(catalog: Catalog) -> Callable[[int], None]:
    """Make a function that paints one picture with diffusers' own pipeline and Euler scheduler."""
    from diffusers import StableDiffusionXLPipeline

    path = catalog.checkpoint("pocket").path
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        path, dtype=torch.float32, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)

    def once(seed: int) -> None:
        pipeline(
            PROMPT,
            height=128,
            width=128,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed),
        )

    return once


def seconds(action: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
