"""Time and memory of a picture on a GPU: ours, diffusers' own, and what each lever is worth; all in one run.

    python -m bench.gpu [--minutes 9] [--device auto] [--model real|pocket] [--scenes one together ...] [--write [FILE]]

SDXL of real size with random weights (10 GB, written without network), 1024x1024, 30 steps, guidance 4, bfloat16; where there is no
GPU the pocket model at 128x128 in float32. Scenes go in order of importance; what the time that is left does not cover is left out
with a sentence, and every row is printed, and kept by ``--write``, as soon as it is there. ``--dir`` keeps the weights for the next run.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.gpu_levers import ON_A_GPU, Variant, compiling, lever_variants, tier_variants
from bench.gpu_meter import Budget, Meter, Sample, matmul_rate
from bench.gpu_sides import (
    OURS,
    OURS_COMPILED,
    SIDES,
    STOCK,
    NotThere,
    Ours,
    Paint,
    Scene,
    Stock,
    scenes,
)
from bench.gpu_table import Report
from bench.gpu_weights import BASE, Drawings, Subject, SubjectName, furnish_pocket, furnish_real
from engine.catalog import POCKET
from engine.engine import Engine, create
from engine.errors import EngineError
from engine.models.compiling import CACHE
from engine.models.devices import choose_device, quiet_libraries, weight_dtype

RESULTS = Path(__file__).parent / "GPU.md"
COMPILE_S = {"real": 150.0, "pocket": 90.0}
"""Seconds that a compiler is expected to take for a UNet."""
NATIVE = {"real": 1024, "pocket": 128}
FAILURES = (EngineError, RuntimeError, ImportError, TimeoutError, NotThere)
"""What may keep one side from taking part; the others go on."""


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure, print, and keep the tables where asked."""
    options = read_options(arguments)
    budget = Budget(60 * options.minutes)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder, empty_cache(Path(folder) / "compiled"):
        subject = furnish(options, options.dir or Path(folder) / "models")
        report = Report(subject, options.rounds, path=options.write)
        if subject.device.type == "cuda" and subject.name == "real" and subject.size == 1024:
            report.rate = matmul_rate(subject.device, subject.dtype)
        bench = Bench(options, subject, report, budget, Drawings(Path(folder), subject.size))
        bench.run()
    return report


@contextmanager
def empty_cache(folder: Path) -> Iterator[None]:
    """Have torch keep compiled code in a folder that is empty, so that nothing is compiled before the run."""
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(folder)
    try:
        yield
    finally:
        del os.environ[CACHE]
        if before is not None:
            os.environ[CACHE] = before


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="time it may take in all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", choices=list(NATIVE), help="real where there is a GPU")
    parser.add_argument("--scenes", nargs="+", help="keys of scenes, names of levers, memory")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", nargs="?", type=Path, const=RESULTS)
    parser.add_argument("--dir", type=Path, help="folder that keeps the weights")
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--compile-mode", default="reduce-overhead", help="of diffusers' UNet")
    parser.add_argument("--steps", type=int, default=30, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def furnish(options: argparse.Namespace, folder: Path) -> Subject:
    """Write the weights, and say what is measured."""
    device = choose_device(options.device)
    name: SubjectName = options.model or ("pocket" if device.type == "cpu" else "real")
    is_real = name == "real"
    write = furnish_real if is_real else furnish_pocket
    return Subject(
        name=name,
        models_dir=folder,
        base=BASE if is_real else POCKET,
        size=options.size or NATIVE[name],
        steps=options.steps,
        jobs=options.jobs,
        device=device,
        dtype=weight_dtype(device),
        control="Depth" if is_real else "PyraCanny",
        control_path=write(folder, options.models_dir),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The same pictures in another way than usual."""

    lever: str
    settings: tuple[str, str]
    """What it is set to, and usually."""
    prepare: Callable[[], Paint]
    usual: Paint
    owner: str = OURS
    """Whose memory the other way takes."""
    pictures: int = 1
    set_up_s: float = 0.0
    """Seconds that getting ready is expected to take."""


@dataclass(eq=False)
class Bench:
    """One run: what is measured, with what, and how much time is left."""

    options: argparse.Namespace
    subject: Subject
    report: Report
    budget: Budget
    drawings: Drawings

    def __post_init__(self) -> None:
        self._meter = Meter(self.subject.device)
        self._picture_s = self._load_s = 0.0

    def run(self) -> None:
        """Go through scenes, levers and memory tiers while there is time."""
        ours = self._painter(OURS, {})
        stock = Stock(self.subject, self.drawings, self.options.compile_mode)
        variant = compiling(self.subject.device)
        compiled = partial(self._plain_painter, OURS_COMPILED, variant)
        for scene in scenes(ours, stock, self.subject, compiled):
            if self._has_time(scene.key, scene.title, self._cost(scene)):
                self._play(scene)
        stock.forget()
        self._meter.forget(STOCK)
        if self.subject.device.type != "cuda":
            for lever in filter(self._is_asked, ON_A_GPU):
                self.report.note(f"{lever}: left out, it is for a GPU")
        for contrast in self._contrasts(ours):
            what = f"{contrast.lever} {contrast.settings[0]}"
            cost = contrast.set_up_s + 2 * contrast.pictures * self._rounds_s
            if self._has_time(contrast.lever, what, cost):
                with self._tolerant(what):
                    self._compare(contrast)
                if contrast.owner != OURS:
                    self._meter.forget(contrast.owner)

    def _contrasts(self, ours: Ours) -> Iterator[Contrast]:
        """List what is compared with the usual way: levers of engines, jobs together or in turn, memory tiers."""
        is_gpu = self.subject.device.type == "cuda"
        usual = ours.plain()
        yield Contrast(lever="previews", settings=("on", "off"), prepare=ours.shown, usual=usual)
        for variant in lever_variants(self.subject.device):
            if is_gpu or variant.lever not in ON_A_GPU:
                yield self._contrast(variant, usual)
        yield Contrast(
            lever="batching",
            settings=("off", "on"),
            prepare=ours.in_turn,
            usual=ours.together(),
            pictures=self.subject.jobs,
        )
        for variant in tier_variants():
            yield self._contrast(variant, usual)

    def _contrast(self, variant: Variant, usual: Paint) -> Contrast:
        """Compare an engine that is loaded for it with the usual one."""
        owner = f"{variant.lever} {variant.setting}"
        return Contrast(
            lever=variant.lever,
            settings=(variant.setting, variant.usual),
            prepare=partial(self._plain_painter, owner, variant),
            usual=usual,
            owner=owner,
            set_up_s=self._load_s + self._compile_s * variant.is_compiled,
        )

    def _plain_painter(self, owner: str, variant: Variant) -> Paint:
        """Load an engine that paints in another way, and wait for its compiler.

        Raises:
            TimeoutError: that is not done within the time that is left.
        """
        ours = self._painter(owner, variant.arguments)
        if variant.is_compiled:
            started = time.monotonic()
            self._meter.take(owner, ours.plain())
            if not self._meter.take(owner, partial(ours.settle, max(1.0, self.budget.left)))[1]:
                raise TimeoutError("its compiler is not done in the time that is left")
            self.report.note(f"{owner}: compiled in {time.monotonic() - started:.0f} s")
        return ours.plain()

    def _painter(self, owner: str, arguments: Mapping[str, Any]) -> Ours:
        """Load an engine."""

        def load() -> Engine:
            folder, device = str(self.subject.models_dir), str(self.subject.device)
            engine = create(folder, self.subject.base, device, **arguments)
            engine.preload(self.subject.base)
            return engine

        sample, engine = self._meter.take(owner, load)
        self._load_s = self._load_s or sample.waited
        return Ours(engine, self.subject, self.drawings)

    @property
    def _rounds_s(self) -> float:
        """Seconds that all rounds of a plain picture take, with its first call."""
        return (self.report.rounds + 1) * self._picture_s

    @property
    def _compile_s(self) -> float:
        return COMPILE_S[self.subject.name]

    def _cost(self, scene: Scene) -> float:
        """Expect how many seconds a scene takes."""
        sides = len(set(scene.prepare) & set(self.options.sides))
        painting = self._rounds_s * scene.cost * scene.pictures * sides
        return painting + scene.loads * self._load_s + scene.compiles * self._compile_s

    def _is_asked(self, key: str) -> bool:
        return self.options.scenes is None or key in self.options.scenes

    def _has_time(self, key: str, what: str, cost: float) -> bool:
        """Whether something is asked for and fits into the time that is left; says so where it doesn't."""
        if not self._is_asked(key):
            return False
        refusal = self.budget.refusal(what, cost)
        if refusal:
            self.report.note(refusal)
        return refusal is None

    @contextmanager
    def _tolerant(self, what: str) -> Iterator[None]:
        """Note what fails, and go on."""
        try:
            yield
        except FAILURES as error:
            if isinstance(error, RuntimeError):
                traceback.print_exc(file=sys.stderr)
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            self.report.note(f"{what}: left out, {reason}")

    def _play(self, scene: Scene) -> None:
        """Paint a scene with all sides in turn, and report it."""
        ready: dict[str, Paint] = {}
        first: dict[str, float] = {}
        for side, prepare in scene.prepare.items():
            if side in self.options.sides:
                with self._tolerant(f"{scene.title}, {side}"):
                    ready[side] = self._meter.take(side, prepare)[1]
                    first[side] = self._meter.take(side, ready[side])[0].waited
        able = [(side, paint) for side, paint in ready.items() if side in first]
        taken = dict(zip(first, self._rounds(able), strict=True))
        for side, samples in taken.items():
            self.report.scene(
                scene.title,
                side,
                scene.work,
                samples,
                taken.get(STOCK),
                pictures=scene.pictures,
                first=first[side],
            )
            if scene.cost == 1.0:
                self._learn(samples, scene.pictures)
        able.clear()
        for side in list(ready):
            self._meter.take(side, partial(self._let_go, ready, side))

    @staticmethod
    def _let_go(ready: dict[str, Paint], side: str) -> None:
        """Free what a side took for one scene alone."""
        del ready[side]
        gc.collect()

    def _compare(self, contrast: Contrast) -> None:
        """Paint the same in both ways in turn, and report it."""
        other = contrast.prepare()
        first = self._meter.take(contrast.owner, other)[0].waited
        self._meter.take(OURS, contrast.usual)
        taken, usual = self._rounds([(contrast.owner, other), (OURS, contrast.usual)])
        self._learn(usual, contrast.pictures)
        self.report.lever(
            contrast.lever,
            contrast.settings,
            taken,
            usual,
            pictures=contrast.pictures,
            first=first,
        )

    def _rounds(self, sides: Sequence[tuple[str, Paint]]) -> list[list[Sample]]:
        """Paint with all sides once a round; gives the samples of each."""
        taken: list[list[Sample]] = [[] for _ in sides]
        for _ in range(self.report.rounds):
            for (owner, paint), samples in zip(sides, taken, strict=True):
                samples.append(self._meter.take(owner, paint)[0])
        return taken

    def _learn(self, samples: Sequence[Sample], pictures: int) -> None:
        """Remember how long pictures took by the clock, to expect what others will."""
        self._picture_s = statistics.median(sample.waited for sample in samples) / pictures


if __name__ == "__main__":
    main()
