"""A container's share of the machine is what its threads are counted by."""

from pathlib import Path

import pytest

from engine.models.devices import available_cores

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
