"""The tables of `bench.gpu`: what was measured, row by row, printed and kept as soon as it is known."""

import datetime
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.gpu_meter import Sample, Work, share_of_limit
from bench.gpu_weights import Subject
from engine.models.devices import available_cores

TITLES = {"real": "# SDXL of real size", "pocket": "# The pocket model"}
"""Headings of the parts of the file, in order."""
_SCENES = (
    "| what | who | seconds per picture | to diffusers | peak memory, GB | share of the limit | first call, s |",
    "|---|---|---|---|---|---|---|",
)
_LEVERS = (
    "| lever | set to | seconds per picture | usually | seconds per picture | ratio | peak memory, GB | first call, s |",
    "|---|---|---|---|---|---|---|---|",
)
Samples = Sequence[Sample]


def seconds_of(samples: Samples) -> float:
    """Give the median."""
    return statistics.median(sample.seconds for sample in samples)


def ratio_of(samples: Samples, others: Samples) -> float:
    """Give the median of the ratios round by round."""
    pairs = zip(samples, others, strict=True)
    return statistics.median(one.seconds / other.seconds for one, other in pairs)


def peak_of(samples: Samples) -> str:
    """Say how much memory was in use at most, in GB."""
    return f"{max(sample.peak for sample in samples) / 1e9:.2f}"


@dataclass
class Report:
    """Rows and notes; `path` is where they are kept, if anywhere."""

    subject: Subject
    rounds: int
    rate: float | None = None
    """TFLOP/s of the device, where the share of its limit can be told."""
    path: Path | None = None
    scenes: list[str] = field(default_factory=list)
    levers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def scene(
        self,
        title: str,
        who: str,
        work: Work,
        samples: Samples,
        rival: Samples | None,
        *,
        pictures: int,
        first: float,
    ) -> None:
        """Add what one side took for a scene; `first` is its call before the rounds."""
        per_picture = seconds_of(samples) / pictures
        share = "" if self.rate is None else f"{share_of_limit(work, self.rate, per_picture):.0%}"
        ratio = "" if rival is None else f"{ratio_of(samples, rival):.2f}"
        cells = (title, who, f"{per_picture:.3f}", ratio, peak_of(samples), share, f"{first:.1f}")
        self._add(self.scenes, _SCENES, cells)

    def lever(
        self,
        lever: str,
        settings: tuple[str, str],
        samples: Samples,
        usual: Samples,
        *,
        pictures: int = 1,
        first: float,
    ) -> None:
        """Add what a lever in another of its settings took, beside the usual one in the same rounds."""
        seconds = [f"{seconds_of(each) / pictures:.3f}" for each in (samples, usual)]
        both = [cell for pair in zip(settings, seconds, strict=True) for cell in pair]
        ratio = f"{ratio_of(samples, usual):.2f}"
        self._add(self.levers, _LEVERS, (lever, *both, ratio, peak_of(samples), f"{first:.1f}"))

    def note(self, sentence: str) -> None:
        """Add a line below the tables."""
        self.notes.append(sentence)
        self._say(f"- {sentence}")
        self.keep()

    def _add(self, rows: list[str], head: Sequence[str], cells: Sequence[str]) -> None:
        row = f"| {' | '.join(cells)} |"
        self._say("\n".join([*([] if rows else head), row]))
        rows.append(row)
        self.keep()

    @staticmethod
    def _say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def keep(self) -> None:
        """Write what is known so far in place of what the file says about this base model."""
        if self.path is None:
            return
        kept = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        parts = {name: _part(kept, title) for name, title in TITLES.items()}
        parts[self.subject.name] = self.text()
        self.path.write_text("\n".join(filter(None, parts.values())), encoding="utf-8")

    def text(self) -> str:
        """Give everything as Markdown."""
        tables = [
            "\n".join([*head, *rows, ""])
            for head, rows in ((_SCENES, self.scenes), (_LEVERS, self.levers))
            if rows
        ]
        notes = "\n".join([*(f"- {note}" for note in self.notes), ""]) if self.notes else ""
        return "\n".join(
            filter(None, [f"{TITLES[self.subject.name]}\n", self._heading(), *tables, notes])
        )

    def _heading(self) -> str:
        """Say when, where and how it was made."""
        import diffusers

        subject = self.subject
        dtype = str(subject.dtype).removeprefix("torch.")
        load = f"{os.getloadavg()[0]:.1f}"
        return (
            f"Made by `python -m bench.gpu --model {subject.name} --write` on {datetime.date.today()}, {self._hardware()}; "
            f"torch {torch.__version__}, diffusers {diffusers.__version__}. {subject.steps} steps, guidance 4, "
            f"{subject.size}x{subject.size}, {dtype}; medians of {self.rounds} rounds, all sides in turn in one process, "
            f"load of the machine {load} at the end. Ratios are medians of those of each round; above 1, a lever's usual setting pays. The first call is apart: it loads what "
            f"only this scene needs, compiles and warms up. {self._memory()}\n"
        )

    def _hardware(self) -> str:
        if self.subject.device.type == "cuda":
            name = torch.cuda.get_device_name(self.subject.device)
            rate = (
                ""
                if self.rate is None
                else f", {self.rate:.0f} TFLOP/s measured on a large product of matrices"
            )
            return f"{name} with CUDA {torch.version.cuda}{rate}"
        if self.subject.device.type != "cpu":
            return f"{self.subject.device.type} of {platform.machine()}"
        cores = available_cores()
        return (
            f"{self.subject.name} model on {cores} CPU cores of {platform.machine()} ({torch.get_num_threads()} thread(s)); "
            "no GPU could be had; the columns about a GPU are empty"
        )

    def _memory(self) -> str:
        if self.subject.device.type == "cuda":
            return (
                "Memory is what torch has allocated at most for that side alone; what the compiled one shares with diffusers' own "
                "(text encoders, VAE) counts there."
            )
        return (
            "Seconds per picture are those of the processor, which other programs don't lengthen; the first call is by the clock. Memory is how much the process grew for that "
            "side, at most; what was free inside it does not count."
        )


def _part(text: str, title: str) -> str:
    """Find the part of a file below a heading, heading and all."""
    _, found, rest = text.partition(f"{title}\n")
    if not found:
        return ""
    others = [rest.find(f"{other}\n") for other in TITLES.values()]
    end = min((place for place in others if place >= 0), default=len(rest))
    return f"{title}\n{rest[:end].rstrip()}\n"
