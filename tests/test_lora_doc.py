"""docs/lora.md has a row for every field of the LoRA endpoint, and names tests that there are."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from api.wire.lora import LoraInput

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "lora.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: match[2] for match in re.finditer(r"^\| `([\w.\[\]]+)` \|(.*)\|$", PAGE, re.MULTILINE)
}


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Name the fields of an input, those of its lists and objects below them."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        inner = [it for it in parts(field.annotation) if issubclass(it, BaseModel)]
        for part in inner:
            is_list = "tuple" in str(field.annotation)
            found += fields(part, f"{prefix}{name}{'[]' if is_list else ''}.")
    return found


def parts(annotation: object) -> list[type]:
    """Take a type apart: ``tuple[A, ...] | B | None`` is A and B."""
    inner = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and not inner:
        return [annotation]
    return [part for it in inner for part in parts(it)]


def wanted() -> list[str]:
    return [name for name in fields(LoraInput) if not name.startswith("advanced")]


def test_every_field_has_a_row_and_no_other_name_has_one():
    assert sorted(ROWS) == sorted(wanted())


@pytest.mark.parametrize("field", sorted(ROWS))
def test_a_row_names_tests_that_there_are(field):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ROWS[field])
    assert named
    for path, function in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {it.name for it in tree.body if isinstance(it, ast.FunctionDef)}
