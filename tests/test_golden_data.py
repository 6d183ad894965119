"""The golden data is all there: a list that went missing would silently leave its cases out."""

from pathlib import Path

import pytest

from tests.golden_data import golden_arrays, golden_json

COMMITTED = Path(__file__).parent / "golden"
COUNTS = {
    "e2e/cases.json": 47,
    "samplers.json": 100,
    "prompts.json": 8,
    "parts.json": 8,
    "sigma_lists.json.gz": 3,
    "text_encoding.json": 3,
}


@pytest.mark.parametrize("name", list(COUNTS))
def test_lists_of_cases_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POCHADE_GOLDEN", raising=False)
    cases = golden_json(name)
    assert len(cases) >= COUNTS[name], f"{name}: {len(cases)}"
    assert all(
        case not in (None, [], {})
        for case in (cases.values() if isinstance(cases, dict) else cases)
    )


@pytest.mark.parametrize(
    "name",
    ["parts.npz", "samplers.npz", "sigma_tables.npz", "text_encoding.npz", "unet_forward.npz"],
)
def test_arrays_are_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POCHADE_GOLDEN", raising=False)
    assert len(golden_arrays(name)) >= 5


def test_every_end_to_end_case_has_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POCHADE_GOLDEN", raising=False)
    for name in golden_json("e2e/cases.json"):
        assert (COMMITTED / "e2e" / f"{name}.npz").exists(), name
