"""The benchmark of a GPU, on the pocket model: a row for each scene and lever, the limit in numbers, what is left out in words."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import pytest
import torch

from bench.gpu import main
from bench.gpu_levers import lever_variants, states, tier_variants
from bench.gpu_meter import Budget, Meter, ProcessMemory, Sample, Work, share_of_limit
from bench.gpu_table import ratio_of, seconds_of
from engine.models.levers import Levers
from engine.models.memory import Tier

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # of diffusers' schedulers
]
MODELS = Path(__file__).parent.parent / "models"
BRIEF = (
    *("--device", "cpu", "--model", "pocket", "--models-dir", str(MODELS)),
    *("--steps", "1", "--jobs", "2", "--rounds", "1"),
)
SCENES = ("one", "together", "lightning", "lora", "controlnet", "inpaint")
CPU = torch.device("cpu")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_scenes_and_levers_have_rows(tmp_path: Path) -> None:
    kept = tmp_path / "table.md"
    kept.write_text("# SDXL of real size\nMeasured before.\n", encoding="utf-8")
    levers = ("batching", "previews", "channels_last", "attention")
    report = main([*BRIEF, "--scenes", *SCENES, *levers, "--write", str(kept)])
    sides = [cells(row)[:2] for row in report.scenes]
    titles = list(dict.fromkeys(title for title, _ in sides))
    assert len(titles) == len(SCENES)
    both = [[title, who] for title in titles for who in ("Pochade", "diffusers")]
    missing = [side for side in both if side not in sides]
    assert missing in ([], [[titles[3], "diffusers"]])  # without the library peft
    assert [cells(row)[0] for row in report.levers] == ["previews", "channels_last", "batching"]
    assert "attention: left out, it is for a GPU" in report.notes
    for row in (*report.scenes, *report.levers):
        assert float(cells(row)[2]) > 0
    text = kept.read_text(encoding="utf-8")
    assert text.startswith("# SDXL of real size\nMeasured before.\n\n# The pocket model\n\nMade by")
    assert all(row in text for row in (*report.scenes, *report.levers))
    assert "no GPU could be had" in text


def test_no_lever_and_no_tier_is_forgotten() -> None:
    variants = list(lever_variants(CPU))
    names = [field.name for field in dataclasses.fields(Levers)]
    assert list(dict.fromkeys(variant.lever for variant in variants)) == names
    usual = Levers.usual(CPU)
    for variant in variants:
        others = {name: getattr(variant.arguments["levers"], name) for name in names}
        assert [name for name in names if others[name] != getattr(usual, name)] == [variant.lever]
    assert [variant.arguments["memory"] for variant in tier_variants()] == [*Tier]


def test_a_lever_of_an_unknown_kind_is_refused() -> None:
    assert states("one", bool) == (True, False)
    assert states("one", Literal["a", "b"]) == get_args(Literal["a", "b"])
    with pytest.raises(TypeError, match="lever one: expected bool or a Literal, got <class 'int'>"):
        states("one", int)


def test_what_does_not_fit_is_left_out_with_a_sentence() -> None:
    report = main([*BRIEF, "--minutes", "0", "--scenes", "one", "compile"])
    assert not report.scenes
    assert not report.levers
    assert [note.partition(",")[0] for note in report.notes] == [
        "one job: left out",
        "compile on: left out",
    ]


def test_a_budget_counts_what_is_left() -> None:
    now = [100.0]
    budget = Budget(60, clock=lambda: now[0])
    assert budget.refusal("a scene", 59) is None
    now[0] += 45
    assert budget.left == 15
    assert (
        budget.refusal("a scene", 20) == "a scene: left out, it takes about 20 s and 15 s are left"
    )


@pytest.mark.parametrize(
    ("work", "tflop"),
    [
        (Work(steps=30), 416.13),
        (Work(steps=4, rows=1), 37.51),
        (Work(steps=30, nets=1), 597.33),
        (Work(steps=30, encodes=1), 421.01),
    ],
)
def test_the_limit_is_what_a_picture_multiplies(work: Work, tflop: float) -> None:
    assert work.tflop == pytest.approx(tflop, abs=0.005)
    assert share_of_limit(work, rate=790, seconds=1) == pytest.approx(tflop / 790, abs=1e-4)


def test_medians_and_their_ratio_are_of_each_round() -> None:
    ours = [Sample(1, 0), Sample(4, 0), Sample(9, 0)]
    theirs = [Sample(2, 0), Sample(4, 0), Sample(36, 0)]
    assert seconds_of(ours) == 4
    assert ratio_of(ours, theirs) == 0.5


class Ledger:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.used = self.most = 0

    def take(self, size: int) -> None:
        self.used += size
        self.most = max(self.most, self.used)

    def reset(self) -> None:
        self.most = self.used

    def now(self) -> int:
        return self.used

    def peak(self) -> int:
        return self.most


def test_memory_of_others_does_not_count() -> None:
    ledger = Ledger()
    meter = Meter(CPU, ledger)

    def work_with(kept: int, passing: int) -> None:
        ledger.take(kept + passing)
        ledger.take(-passing)

    assert meter.take("mine", lambda: work_with(100, 20))[0].peak == 120
    assert meter.take("theirs", lambda: work_with(30, 0))[0].peak == 30
    assert meter.take("mine", lambda: work_with(0, 5))[0].peak == 105
    meter.forget("mine")
    assert meter.take("mine", lambda: work_with(1, 0))[0].peak == 1


def test_the_memory_of_a_process_has_a_peak() -> None:
    memory = ProcessMemory()
    memory.reset()
    before = memory.now()
    torch.ones(2**26, dtype=torch.uint8)
    assert memory.peak() - before > 2**25
