"""One training loop for every part of the pocket model: resumable, logged, alone or in a team.

The loop knows nothing of what it trains. All randomness of a step comes from a generator seeded by
(seed, rank, step), so a run that was stopped and resumed is the run that was never stopped.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocket.team import Team

log = logging.getLogger(__name__)

StepLoss = Callable[[np.random.Generator, int], Tensor]
"""(generator of this step, step) to a scalar loss."""


@dataclass(frozen=True)
class Run:
    """How long and how fast to train."""

    name: str
    steps: int
    rate: float
    batch: int
    warmup: int = 100
    cooldown: float = 0.3
    """Share of the steps, at the end, over which the rate falls to nearly nothing."""
    ema: float = 0.998
    decay: float = 0.0
    seed: int = 1
    save_seconds: float = 180.0
    log_steps: int = 50


def rate_at(step: int, run: Run) -> float:
    """Warm up, hold, then fall along a line to 2 % of the rate."""
    rise = min(1.0, (step + 1) / max(1, run.warmup))
    left = (run.steps - step) / max(1.0, run.cooldown * run.steps)
    return run.rate * rise * max(0.02, min(1.0, left))


class Average:
    """A slowly moving average of a model's weights, quick to follow at the start."""

    def __init__(self, model: nn.Module, share: float) -> None:
        self.share = share
        self.weights = {n: p.detach().clone().float() for n, p in model.named_parameters()}

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Move towards the model's weights after `step` steps."""
        share = min(self.share, (1 + step) / (10 + step))
        named = dict(model.named_parameters())
        names = list(self.weights)
        torch._foreach_lerp_(
            [self.weights[n] for n in names], [named[n].detach() for n in names], 1 - share
        )

    @torch.no_grad()
    def write_to(self, model: nn.Module) -> None:
        """Copy the average into a model of the same structure."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.weights[name])


@dataclass
class Trainer:
    """A model in training: its optimiser, its average and how far it is."""

    model: nn.Module
    run: Run
    team: Team
    folder: Path

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        wide = [p for p in self.parameters if p.ndim > 1]
        narrow = [p for p in self.parameters if p.ndim <= 1]
        groups = [
            {"params": wide, "weight_decay": self.run.decay},
            {"params": narrow, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.run.rate, betas=(0.9, 0.99), foreach=True
        )
        self.average = Average(self.model, self.run.ema)
        self.step = 0

    @property
    def file(self) -> Path:
        """Where the checkpoint of this run is."""
        return self.folder / f"{self.run.name}.ckpt"

    def save(self) -> None:
        """Write the checkpoint whole: to a file beside it, then renamed."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.weights,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        beside = self.file.with_suffix(".tmp")
        torch.save(state, beside)
        beside.replace(self.file)

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one."""
        if not self.file.exists():
            return False
        state: dict[str, Any] = torch.load(self.file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.weights = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        log.info("%s: resumed at step %d", self.run.name, self.step)
        return True

    def generator(self) -> np.random.Generator:
        """The randomness of the step that comes next, for this member of the team."""
        return np.random.default_rng([self.run.seed, self.team.rank, self.step])

    def advance(self, loss_of: StepLoss) -> Tensor:
        """Take one step and return its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.step, self.run)
        torch.manual_seed(
            int(
                np.random.SeedSequence([self.run.seed, self.team.rank, self.step]).generate_state(
                    1
                )[0]
            )
        )
        loss = loss_of(self.generator(), self.step)
        torch.autograd.backward(loss)
        self.team.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.average.follow(self.model, self.step)
        return loss.detach()

    def fit(self, loss_of: StepLoss, *, until: int | None = None) -> None:
        """Train to the end of the run, or to step `until`."""
        end = min(self.run.steps, until or self.run.steps)
        losses: list[Tensor] = []
        begun = saved = time.monotonic()
        while self.step < end:
            losses.append(self.advance(loss_of))
            if self.step % self.run.log_steps == 0 or self.step == end:
                loss = self.team.mean(torch.stack(losses).mean().float())
                pace = (time.monotonic() - begun) / len(losses)
                self._report(float(loss), pace)
                losses, begun = [], time.monotonic()
            if self.team.leads and time.monotonic() - saved > self.run.save_seconds:
                self.save()
                saved = time.monotonic()
        if self.team.leads:
            self.save()

    def _report(self, loss: float, pace: float) -> None:
        if self.team.leads:
            message = "%s: step %d of %d, loss %.4f, %.3f s a step, rate %.1e"
            log.info(
                message,
                self.run.name,
                self.step,
                self.run.steps,
                loss,
                pace,
                rate_at(self.step, self.run),
            )
