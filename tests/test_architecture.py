"""Imports only go down the floors of the house, heavy libraries stay on their floors, and importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "app": 9,
    "guard": 9,
    "settings": 9,
    "space": 9,
    "zero_gpu": 9,
    "people": 9,
    "ui": 8,
    "api": 8,
    "jobs": 7,
    "engine": 6,
    "engine.engine": 5,
    "engine.loop": 5,
    "engine.passes": 5,
    "engine.begin": 5,
    "engine.fetching": 5,
    "engine.needed": 2,
    "engine.guides": 5,
    "engine.guide_weights": 5,
    "engine.studio_guides": 5,
    "engine.starts": 5,
    "engine.warm": 5,
    "engine.palette": 5,
    "engine.warm_models": 5,
    "engine.work": 5,
    "engine.room": 5,
    "engine.showing": 5,
    "engine.finishing": 5,
    "engine.first_picture": 5,
    "engine.stages": 4,
    "engine.conditioning": 3,
    "engine.models": 3,
    "engine.sampling": 3,
    "engine.plan": 2,
    "engine.settle": 2,
    "engine.settle_studio": 2,
    "engine.settle_pictures": 2,
    "engine.settle_enhance": 2,
    "engine.describe_inputs": 1,
    "engine.enhance_inputs": 1,
    "engine.chains": 5,
    "engine.studio_plan": 2,
    "engine.catalog": 1,
    "engine.families": 1,
    "engine.fooocus_dir": 1,
    "engine.library": 2,
    "engine.places": 1,
    "engine.lora_facts": 1,
    "engine.image_inputs": 1,
    "engine.knobs": 1,
    "engine.partners": 1,
    "engine.net": 1,
    "engine.performance": 1,
    "engine.records": 1,
    "engine.presets": 1,
    "engine.references": 1,
    "engine.requests": 1,
    "engine.schedulers": 1,
    "engine.prompt": 1,
    "engine.studio": 1,
    "engine.errors": 0,
    "engine.geometry": 0,
    "engine.events": 0,
    "engine.logs": 0,
}
ONLY_IN = {
    "gradio": {"ui", "zero_gpu"},
    "spaces": {"zero_gpu"},
    "fastapi": {"api"},
    "sqlalchemy": {"jobs"},
    "alembic": {"jobs"},
    "torch": {"engine.3", "pocket", "bench"},
    "diffusers": {"engine.3", "pocket", "bench"},
    "transformers": {"engine.3", "pocket", "bench"},
}
SIDEWAYS = {("ui", "api"), ("api", "ui")}
MODULES = [
    *sorted(
        path
        for folder in ("engine", "jobs", "api", "ui", "people")
        for path in (ROOT / folder).rglob("*.py")
    ),
    ROOT / "app.py",
    ROOT / "guard.py",
    ROOT / "settings.py",
    ROOT / "space.py",
    ROOT / "zero_gpu.py",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(module: str) -> tuple[str, int]:
    """The longest entry of FLOORS that the module lies under."""
    known = max(
        (name for name in FLOORS if module == name or module.startswith(name + ".")),
        key=len,
        default="",
    )
    return known, FLOORS.get(known, -1)


def imports(path: Path) -> Iterator[str]:
    """Every imported module; `from engine import plan` may mean the module engine.plan or the front door's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    module = module_name(path)
    here, floor = place(module)
    assert here, f"{module} has no floor"
    for imported in imports(path):
        there, its_floor = place(imported)
        if not there or there == here:
            continue
        assert its_floor <= floor, (
            f"{module} (floor {floor}) imports {imported} (floor {its_floor})"
        )
        assert (here, there) not in SIDEWAYS, f"{module} imports {imported}"
        if here in ("jobs", "ui", "api"):
            assert there in ("engine", "jobs") or its_floor <= 2, (
                f"{module} imports {imported}, past the front door"
            )


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_heavy_libraries_stay_on_their_floors(path: Path) -> None:
    module = module_name(path)
    here, floor = place(module)
    homes = {here.partition(".")[0], *({"engine.3"} if 3 <= floor <= 5 else ())}
    for imported in imports(path):
        allowed = ONLY_IN.get(imported.partition(".")[0])
        assert allowed is None or homes & allowed, f"{module} imports {imported}"


def test_the_front_door_and_the_faces_import_no_torch() -> None:
    code = "import sys, engine, jobs, ui; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
