"""A container's share of the machine is what its threads are counted by; a GPU that has a number is the current one."""

from pathlib import Path

import pytest
import torch

from engine.models.devices import available_cores, make_current

pytestmark = pytest.mark.torch


def test_a_quota_counts(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    everything = available_cores(tmp_path / "absent")
    quota.write_text("max 100000\n")
    assert available_cores(quota) == everything
    quota.write_text("100000 100000\n")
    assert available_cores(quota) == 1
    quota.write_text("50000 100000\n")
    assert available_cores(quota) == 1


@pytest.mark.parametrize(
    ("device", "made"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", []), ("mps", [])]
)
def test_a_gpu_that_has_a_number_is_made_the_current_one(
    monkeypatch: pytest.MonkeyPatch, device: str, made: list[str]
) -> None:
    current: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: current.append(str(chosen)))
    make_current(torch.device(device))
    assert current == made
