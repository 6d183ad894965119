"""What the engine says while it paints names the job that it is about, and holds no word of a prompt."""

import logging
from pathlib import Path

import pytest
import torch

from engine import TextRequest, plan
from engine.catalog import Catalog
from engine.engine import create
from engine.logs import Lines
from tests.libraries import library_of

pytestmark = pytest.mark.torch

SECRETS = ("quillfeather", "thistledown")
"""Words that nobody but their writers should read; each is taken for an embedding."""


def test_lines_of_jobs_that_run_together_name_their_own(
    models_dir: Path, tiny_catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(Lines())
    engine = create(str(models_dir), device="cpu")
    torch.set_num_threads(1)
    for word in SECRETS:
        asked = {
            "prompt": f"a {word} embedding:{word}",
            "styles": (),
            "aspect_ratio": "128x128",
            "num_images": 1,
            "advanced": {"num_inference_steps": 1},
        }
        settled = plan(TextRequest.parse(asked), library_of(tiny_catalog), seed=1)
        engine.admit(f"job of {word[0]}", settled, {})
    while not engine.idle():
        engine.step()
    lines = [line for line in caplog.text.splitlines() if " engine." in line]
    left_out = [line for line in lines if "names an embedding that is not there" in line]
    assert [line.partition(" job=")[2][:8] for line in left_out] == ["job of q", "job of t"]
    assert [line for line in lines if " job=job of q: loaded tiny" in line]
    assert not [line for line in lines for word in SECRETS if word in line]
