"""A run that was stopped and resumed is the run that was never stopped."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from pocket.fit import Run, Trainer, rate_at  # noqa: E402
from pocket.team import Team, run_team  # noqa: E402

RUN = Run("toy", steps=12, rate=1e-2, batch=4, warmup=3)


def trainer(folder):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))
    return Trainer(model, RUN, Team(), folder)


def loss_of(toy):
    def loss(rng, step):
        x = torch.from_numpy(rng.normal(size=(RUN.batch, 3)).astype(np.float32))
        return (toy.model(x + 0.1 * torch.randn_like(x)) - x.sum(1, keepdim=True)).square().mean()

    return loss


def test_resuming_is_exact(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = trainer(tmp_path / "whole")
    whole.fit(loss_of(whole))
    before = trainer(tmp_path / "parts")
    before.fit(loss_of(before), until=5)
    after = trainer(tmp_path / "parts")
    assert after.resume()
    assert after.step == 5
    after.fit(loss_of(after))
    for one, other in zip(whole.model.parameters(), after.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for name, weight in whole.average.weights.items():
        assert torch.equal(weight, after.average.weights[name])


def test_without_a_checkpoint_nothing_is_resumed(tmp_path):
    assert not trainer(tmp_path).resume()


def test_the_rate_rises_holds_and_falls():
    rates = [rate_at(step, RUN) for step in range(RUN.steps)]
    assert rates[0] < rates[3] == RUN.rate
    assert rates[-1] < 0.5 * RUN.rate
    assert min(rates) > 0


def test_a_team_of_one_works_in_this_process():
    met = []
    run_team(1, lambda team, word: met.append((team.leads, word)), "hello")
    assert met == [(True, "hello")]
