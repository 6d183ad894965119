"""Weights are loaded without a card, as ``spaces`` pretends one to the web process, and set aside by it in whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.space.living_space import ENVIRONMENT
from tests.test_app import ROOT

LOAD = """
import json
import spaces
from jobs import EngineSpec
spec = EngineSpec(factory="engine.engine:create", kwargs={"models_dir": "models", "model": "pocket"})
engine = spec.build()
engine.load("pocket")
from spaces.zero import torch
print(json.dumps({"device": engine.device, "bytes": torch.pack()}))
"""


@pytest.mark.torch
def test_a_base_model_is_loaded_onto_a_card_that_is_not_there(tmp_path: Path) -> None:
    environment = {
        **ENVIRONMENT,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9",
        "SPACE_WITHOUT_CUDA": "1",
        "SPACE_MAY_WRITE": os.path.realpath(tmp_path),
        "SPACE_REFUSED": str(tmp_path / "refused"),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests" / "space" / "recorder", ROOT))),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["device"].startswith("NVIDIA")
    files = (ROOT / "models" / "pocket" / "unet").glob("*.safetensors")
    assert told["bytes"] > sum(path.stat().st_size for path in files) / 2  # in 16 bits
