"""docs/api.md is true: each of its snippets is run, in their order and in one folder; its limits are the limits."""

import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from api.limits import Limits
from tests.clients.running import CLIENTS, Node, Studio
from tests.test_app import ROOT, free_port, get

GUIDE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
STUDIO, RECEIVER = "http://127.0.0.1:7860", "8001"
BLOCKS = re.findall(r"^```(\w+) ?([\w.]*)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
ENDINGS = {"python": ".py", "js": ".mjs", "sh": ".sh"}
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "": 1}


@pytest.fixture
def bench(tmp_path: Path, node: Node) -> Path:
    """A folder that has what a reader has: the program, its clients, fal's clients."""
    for name in ("app.py", "clients"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    return tmp_path


def run_block(folder: Path, kind: str, text: str) -> str:
    """Run a snippet; returns what it wrote."""
    file = folder / f"snippet{ENDINGS[kind]}"
    file.write_text(text, encoding="utf-8")
    program = {"python": sys.executable, "js": "node", "sh": "bash"}[kind]
    options = ["-e", "-u", "-o", "pipefail"] if kind == "sh" else []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *options, file.name],
        cwd=folder,
        env={**os.environ, "PATH": path, "FAL_KEY": "key-id:key-secret"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_snippet_does_what_it_says(bench: Path, shared_studio: Studio) -> None:
    receiver = str(free_port())
    files = 0
    for kind, name, text in BLOCKS:
        ready = text.replace(STUDIO, shared_studio.address).replace(RECEIVER, receiver)
        if name:
            (bench / name).write_text(ready, encoding="utf-8")
            continue
        shown = run_block(bench, kind, ready)
        assert shown or text.startswith("cp ")
        for address in re.findall(rf"{shared_studio.address}/cdn/files/[^\s'\",\]]+", shown):
            assert get(address)[0] == 200, text
            files += 1
        if "webhook.is_signed" in text:
            assert shown.startswith("True")
    assert files >= 10


def test_every_kind_of_client_has_its_snippets() -> None:
    kinds = [kind for kind, _, _ in BLOCKS]
    assert set(kinds) == set(ENDINGS)
    assert len(re.findall("^```", GUIDE, flags=re.MULTILINE)) == 2 * len(BLOCKS)
    for client in ("import fal_client", "@fal-ai/client", "@fal-ai/serverless-client", "curl"):
        assert any(client in text for _, _, text in BLOCKS)


def test_the_limits_are_the_limits() -> None:
    rows = re.findall(r"^\| `(\w+)`: [^|]+ \| ([\d,]+) ?(\w*) \|$", GUIDE, flags=re.MULTILINE)
    told = {name: float(number.replace(",", "")) * UNITS[unit] for name, number, unit in rows}
    assert told == asdict(Limits())
