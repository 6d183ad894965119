"""Time of changes between base models and LoRA sets, warm against loaded anew, in the same run.

    python -m bench.model_switch [--switches 40] [--models-dir models] [--write]

Three copies of the pocket model and ten random LoRA sets of rank 16 on all attention layers. ``--write`` adds the table to
RESULTS.md. Memory is this process's own after each switch.
"""

import argparse
import datetime
import itertools
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.lora_switch import networks_of, pocket_pipeline, write_lora
from engine import Library, Plan, TextRequest, plan, read_catalog
from engine.catalog import Catalog
from engine.models.devices import quiet_libraries, use_threads
from engine.palette import Palette

NAMES = ("one", "two", "three")
SETS = 10


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--switches", type=int, default=40)
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    use_threads(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        table = measure(prepared(Path(folder), options.models_dir), options.switches)
    sys.stdout.write(table)
    if options.write:
        results = Path(__file__).parent / "RESULTS.md"
        results.write_text(f"{results.read_text(encoding='utf-8')}\n{table}", encoding="utf-8")


def prepared(folder: Path, models_dir: Path) -> Catalog:
    """Make a models folder."""
    for name in NAMES:
        shutil.copytree(models_dir / "pocket", folder / "checkpoints" / name)
    (folder / "loras").mkdir()
    networks = networks_of(pocket_pipeline(argparse.Namespace(models_dir=models_dir, device="cpu")))
    for number in range(SETS):
        write_lora(folder / "loras" / f"{number}.safetensors", networks, number)
    return read_catalog(folder)


def job(catalog: Catalog, base: str, loras: list[str]) -> Plan:
    """Plan a picture of a base model with LoRAs."""
    asked = {
        "prompt": "a star",
        "advanced": {"base_model": base},
        "studio": {"loras": [{"path": path} for path in loras]},
    }
    return plan(TextRequest.parse(asked), Library(catalog=catalog), seed=1)


def measure(catalog: Catalog, switches: int) -> str:
    """Time the same switches with all models warm and with room for one."""
    both, memory = {}, {}
    for kind, budget in (("warm", 2**40), ("loaded anew", 0)):
        palette = Palette(catalog, torch.device("cpu"), allow_pickle=False, budget=budget)
        for name in NAMES:
            palette.bring(job(catalog, name, []))
        numbers = itertools.cycle(range(SETS))
        seconds, taken = [], []
        for name in itertools.islice(itertools.cycle(NAMES), switches):
            wanted = job(catalog, name, [f"{next(numbers)}.safetensors"])
            started = time.perf_counter()
            palette.bring(wanted)
            seconds.append(time.perf_counter() - started)
            taken.append(resident_mb())
        both[kind], memory[kind] = seconds, taken
    late = memory["warm"][len(NAMES) * SETS :] or memory["warm"]
    median = {kind: statistics.median(times) for kind, times in both.items()}
    head = (
        f"# Base models and LoRA sets\n\nMade by `python -m bench.model_switch --write` on "
        f"{datetime.date.today()}: {switches} switches between {len(NAMES)} copies of the pocket "
        f"model and {SETS} LoRA sets of rank 16, float32, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s) of {platform.machine()}; medians. Once every set was "
        f"seen, memory stayed between {min(late):.0f} and {max(late):.0f} MB.\n\n"
    )
    ratio = median["warm"] / median["loaded anew"]
    return head + (
        "| what | all warm | room for one | ratio |\n|---|---|---|---|\n"
        f"| seconds to another base model with another LoRA set | {median['warm']:.3f} "
        f"| {median['loaded anew']:.3f} | {ratio:.2f} |\n"
    )


def resident_mb() -> float:
    """Read how much memory this process has, in megabytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return float("nan")


if __name__ == "__main__":
    main()
