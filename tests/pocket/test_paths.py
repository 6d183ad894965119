"""Paths end where their ODE ends, survive the disk, and students learn from them."""

from itertools import pairwise

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from transformers import CLIPTokenizer  # noqa: E402

from pocket.fit import Run, Trainer  # noqa: E402
from pocket.lora import Adapter, Lora  # noqa: E402
from pocket.parts import make_unet  # noqa: E402
from pocket.paths import Lessons, Paths, Teacher, spaced  # noqa: E402
from pocket.team import Team  # noqa: E402
from pocket.train import MODEL  # noqa: E402
from pocket.train_lcm import Student, lesson_loss  # noqa: E402
from pocket.train_style import Lessons as DottedLessons  # noqa: E402
from pocket.train_style import Student as DottedStudent  # noqa: E402
from pocket.train_text import load_encoders  # noqa: E402

ADAPTER = Adapter("Toy", "Nothing to see.", rank=2, alpha=2)
SPREAD = 0.6


@pytest.fixture(scope="module")
def words():
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    return tokenizer, load_encoders(MODEL).requires_grad_(requires_grad=False)


class GaussianTeacher(Teacher):
    """Knows the best guess where clean latents are normal with deviation SPREAD."""

    def clean(self, x, timestep, told, size):
        level = float(self.levels[timestep])
        return x * level**0.5 * SPREAD**2 / (level * SPREAD**2 + 1 - level)


def random_paths(count=2):
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(count, 3, 4, 16, 16, generator=rng)
    return Paths(["a red star", "blue"], torch.tensor([999, 600, 200]), points, points[:, -1] / 2)


def learns(student, loss, tmp_path, *, rate=3e-3):
    run = Run("toy", steps=2, rate=rate, batch=2, warmup=1, cooldown=0.01)
    trainer = Trainer(student, run, Team(), tmp_path)
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.fit(loss)
    return any(not torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))


@pytest.mark.parametrize("start", [999, 640, 150])
def test_steps_fall_from_the_start(start):
    for seed in range(20):
        steps = spaced(np.random.default_rng(seed), start)
        assert steps[0] == start
        assert all(a > b > 0 for a, b in pairwise(steps))


def test_a_path_ends_where_the_ode_ends(words):
    tokenizer, encoders = words
    teacher = GaussianTeacher(make_unet(), tokenizer, encoders)
    x = torch.randn(2, 4, 16, 16)
    steps = [*range(999, 40, -20), 30, 20, 12, 6, 2]
    paths = teacher.walk(x, steps, ["a red star", ""], (128, 128))
    level = float(teacher.levels[999])
    sigma = ((1 - level) / level) ** 0.5
    exact = x / level**0.5 * SPREAD / (SPREAD**2 + sigma**2) ** 0.5
    assert paths.points.shape == (2, len(steps), 4, 16, 16)
    assert torch.allclose(paths.ends, exact, atol=0.03)


def test_paths_come_back_from_the_disk(tmp_path):
    paths = random_paths()
    paths.save(tmp_path / "128x128.00000.npz")
    again = Paths.load(tmp_path / "128x128.00000.npz")
    assert again.texts == paths.texts
    assert torch.equal(again.timesteps, paths.timesteps)
    assert torch.equal(again.points, paths.points.half())
    assert torch.equal(again.ends, paths.ends.half())


def test_lessons_pair_points_with_their_ends_and_words(tmp_path):
    (tmp_path / "paths").mkdir()
    paths = random_paths()
    paths.save(tmp_path / "paths" / "128x128.00000.npz")
    x, timesteps, ends, texts = Lessons(tmp_path).sample(np.random.default_rng(0), 24, 0)
    for point, timestep, end, text in zip(x, timesteps, ends, texts, strict=True):
        i, p = paths.texts.index(text), paths.timesteps.tolist().index(int(timestep))
        assert torch.equal(point, paths.points[i, p].half().float())
        assert torch.equal(end, paths.ends[i].half().float())


def test_a_folder_without_paths_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="paths"):
        Lessons(tmp_path)


def test_two_steps_of_the_few_step_student(words, tmp_path):
    (tmp_path / "paths").mkdir()
    for size in ("128x128", "112x144", "144x112"):
        random_paths().save(tmp_path / "paths" / f"{size}.00000.npz")
    unet = make_unet().requires_grad_(requires_grad=False)
    student = Student(Lora(unet, ADAPTER), unet)
    lessons = Lessons(tmp_path)
    weights = [p.clone() for p in unet.parameters()]
    assert learns(student, lambda rng, step: lesson_loss(student, lessons, words, rng, 2), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights, unet.parameters(), strict=True))


def test_two_steps_of_the_style(words, tmp_path):
    np.savez(
        tmp_path / "dotted.npz",
        latents=np.random.default_rng(0).normal(size=(4, 4, 16, 16)).astype(np.float16),
        strengths=np.asarray([0, 0.5, 1, 1], np.float32),
        texts=np.asarray(["a red star"] * 4),
    )
    unet = make_unet().requires_grad_(requires_grad=False)
    student = DottedStudent(Lora(unet, ADAPTER), unet)
    lessons = DottedLessons(tmp_path / "dotted.npz", *words)

    def loss(rng, step):
        return student(*lessons.sample(rng, 2), rng)

    assert learns(student, loss, tmp_path)
