"""The textual inversion that ships: small, of the common form, and heard in pictures."""

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from engine.conditioning.embeddings import read_embedding  # noqa: E402
from pocket.measure_embedding import LINES, WORD, objects, shares  # noqa: E402
from pocket.measure_modes import open_studio  # noqa: E402
from pocket.parts import TEXT_WIDTHS  # noqa: E402
from pocket.train_embedding import FILE, VECTORS, train_embedding, write_embedding  # noqa: E402
from pocket.train_upscaler import MODEL  # noqa: E402


def test_the_file_has_the_names_of_its_kind():
    shapes = {name: tuple(value.shape) for name, value in load_file(MODEL / FILE).items()}
    assert shapes == {"clip_l": (VECTORS, TEXT_WIDTHS[0]), "clip_g": (VECTORS, TEXT_WIDTHS[1])}


def test_what_training_writes_is_what_the_engine_reads(tmp_path):
    torch.set_num_threads(1)
    inversion = train_embedding(MODEL, steps=2, batch=2)
    again = train_embedding(MODEL, steps=2, batch=2)
    write_embedding(inversion, tmp_path / FILE)
    read = read_embedding(tmp_path / FILE, TEXT_WIDTHS)
    for vectors, side, same in zip(read, inversion.parameters(), again.parameters(), strict=True):
        assert torch.allclose(vectors.float(), side, atol=1e-2)
        assert torch.equal(side, same)


def test_the_word_gives_background_and_stripes_and_leaves_the_object():
    studio, scenes = open_studio(MODEL.parent), objects(4)
    torch.set_num_threads(1)
    alone, said = (shares(studio, scenes, form, "Lightning") for form in list(LINES.values())[:2])
    assert WORD in list(LINES.values())[1]
    assert alone[0] < 0.5
    assert min(said[:3]) > 0.7
