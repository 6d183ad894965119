"""How drawings steer an image: what ControlNets add to a UNet call.

Knows neither the loop nor the preprocessors: rows come as tensors, drawings as they are shown to the nets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from engine.models.controlnets import ControlNet
from engine.models.transfers import send
from engine.sampling.levels import NoiseLevels

Side = Literal["positive", "negative"]
Residuals = tuple[tuple[Tensor, ...], Tensor]
"""What is added to a UNet's skips, the finest first, and to its middle; each (rows, C, h, w)."""


@dataclass(frozen=True, eq=False)
class Control:
    """One drawing that steers an image, for a share of its way. Images that follow the same drawing may share one."""

    net: ControlNet
    hint: Tensor
    """(1, 3, H, W) of 0 to 1, eight times the size of the latents."""
    weight: float = 1.0
    """0 leaves the image alone, bit for bit."""
    stop: float = 1.0
    """Share of the timesteps after which it ends, 0 to 1."""
    start: float = 0.0
    """Share of the timesteps before which it does nothing, 0 to 1."""
    softness: float = 0.0
    """0 to 1: how much less the finer parts of the UNet are steered; see `softened`."""
    mask: Tensor | None = None
    """(1, 1, H, W) of 0 to 1 at any size: where it steers. None is everywhere."""
    guess: bool = False
    """Steers the positive side only, and its finer parts less, so that a picture needs no prompt."""
    mode: int | None = None
    """What kind of drawing a ControlNet Union gets, from `ControlNet.mode`."""
    side: Side | None = None
    """The one side of guidance that it steers; None is both."""
    context: Tensor | None = None
    """What its net is told in place of the words, (1, tokens, C): an adapter's tokens, as with InstantID."""
    seen: Tensor | None = None
    """`embedding`, where it is known already: of a tile, whose net has looked at the whole drawing."""

    def __post_init__(self) -> None:
        if self.net.modes and self.mode is None:
            raise ValueError(f"{self.net.name}: expected the kind of drawing for a Union, got none")

    @cached_property
    def embedding(self) -> Tensor:
        """The drawing as the net sees it at every step, (1, C, h, w)."""
        return self.net.embed(self.hint) if self.seen is None else self.seen

    def is_active(self, sigma: float, levels: NoiseLevels) -> bool:
        """Whether it steers a model call at noise level `sigma`; both ends are inside."""
        if self.weight == 0:
            return False
        return levels.percent_to_sigma(self.stop) <= sigma <= levels.percent_to_sigma(self.start)

    def factors(self, count: int) -> list[float]:
        """Say how much of each of the net's `count` answers is used, the finest first and the middle last."""
        shares = softened(self.softness, count)
        if self.guess:
            guessed = torch.logspace(-1, 0, count).tolist()
            shares = [share * factor for share, factor in zip(shares, guessed, strict=True)]
        return [self.weight * share for share in shares]

    def masked(self, answer: Tensor) -> Tensor:
        """Keep of an answer of the net, (1, C, h, w), what lies where the mask is."""
        if self.mask is None:
            return answer
        height, width = answer.shape[-2:]
        if (height, width) not in self._masks:
            mask = send(self.mask, answer.device).to(answer)
            self._masks[height, width] = adaptive_avg_pool2d(mask, (height, width))
        return answer * self._masks[height, width]

    @cached_property
    def _masks(self) -> dict[tuple[int, int], Tensor]:
        """The mask at the sizes that were asked for."""
        return {}


def softened(softness: float, count: int) -> list[float]:
    """Give the factors of a soft control: from ``1 - softness`` at the finest skip in even steps to 1 in the middle."""
    return [1 - softness * (1 - place / (count - 1)) for place in range(count)]


def active_controls(
    controls: Iterable[Control], sigma: float, levels: NoiseLevels, *, is_negative: bool = False
) -> tuple[Control, ...]:
    """Choose the controls that steer one row of a model call.

    Args:
        controls: All that the image has.
        sigma: Noise level of the call.
        levels: The noise levels of the model that answers.
        is_negative: Whether the row is of the negative side, which no guessing control steers, and none of the positive side.
    """
    return tuple(
        control
        for control in controls
        if control.is_active(sigma, levels)
        and not (is_negative and control.guess)
        and control.side in (None, "negative" if is_negative else "positive")
    )


def call_key(controls: Sequence[Control]) -> bool:
    """Say what rows must have in common to go through the UNet together: being steered, by whatever nets, or not."""
    return bool(controls)


def residuals(
    controls: Sequence[Sequence[Control]],
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    added: Mapping[str, Tensor] | None,
) -> Residuals:
    """Work out what steers the rows of one UNet call; each net runs once for all rows that follow it and are told as many tokens.

    Args:
        controls: For each row those that steer it, at least one in all; rows may differ, and a row may have one net twice.
        x: (rows, 4, h, w), as the UNet is fed.
        timesteps: (rows,).
        context: (rows, tokens, C).
        added: What the UNet is told besides, by diffusers' names; (rows, ...) each.

    Returns:
        Sums over each row's controls; zeros for rows without.
    """
    steered: dict[tuple[ControlNet, int], list[tuple[int, Control]]] = {}
    for row, followed in enumerate(controls):
        for control in followed:
            count = (context if control.context is None else control.context).shape[1]
            steered.setdefault((control.net, count), []).append((row, control))
    totals: list[Tensor] = []
    for (net, _), pairs in steered.items():
        pick = partial(_pick, rows=[row for row, _ in pairs])
        answers = net.residuals(
            torch.cat([control.embedding for _, control in pairs]),
            pick(x),
            pick(timesteps),
            _told(pairs, context),
            {key: pick(value) for key, value in added.items()} if added else None,
            modes=[control.mode for _, control in pairs if control.mode is not None],
        )
        totals = totals or [_zeros(len(controls), answer) for answer in answers]
        _add(totals, answers, pairs)
    *down, middle = totals
    return tuple(down), middle


def _pick(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Take rows of a tensor, in that order."""
    if list(rows) == list(range(len(tensor))):
        return tensor
    return torch.cat([tensor[row : row + 1] for row in rows])


def _told(pairs: Sequence[tuple[int, Control]], context: Tensor) -> Tensor:
    """Give what a net is told in the rows that it runs for: its own context, or the row's words."""
    if all(control.context is None for _, control in pairs):
        return _pick(context, [row for row, _ in pairs])
    told = [
        context[row : row + 1] if control.context is None else control.context.to(context)
        for row, control in pairs
    ]
    return torch.cat(told)


def _zeros(rows: int, like: Tensor) -> Tensor:
    zeros = like.new_zeros(rows, *like.shape[1:])
    return zeros.contiguous(memory_format=torch.channels_last)


def _add(
    totals: Sequence[Tensor], answers: Sequence[Tensor], pairs: Sequence[tuple[int, Control]]
) -> None:
    """Add a net's answers to the rows they are for."""
    for place, (row, control) in enumerate(pairs):
        factors = control.factors(len(answers))
        for total, answer, factor in zip(totals, answers, factors, strict=True):
            part = control.masked(answer[place : place + 1])
            total[row : row + 1].add_(part, alpha=factor)
