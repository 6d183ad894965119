"""docs/samplers.md says what the samplers do."""

import pytest

from tests.sampler_table import NOTES, PAGE, matrix, recorded

pytestmark = pytest.mark.torch


def test_the_table_is_up_to_date(monkeypatch):
    monkeypatch.delenv("POCHADE_GOLDEN", raising=False)
    page = PAGE.read_text(encoding="utf-8")
    for line in matrix(recorded()):
        assert line in page
    for note in NOTES.values():
        assert note in page
