"""Writes docs/samplers.md: which sampler on which schedule gives Fooocus' numbers. Run: ``python -m tests.sampler_table``."""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from engine.sampling.prediction import model_sampling
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import SCHEDULES, named_levels, path_ends, schedule
from tests.golden_data import golden_arrays, golden_json, relative_error
from tests.golden_walks import walk_case

PAGE = Path(__file__).parent.parent / "docs" / "samplers.md"
STEPS = 30
"""Steps at which the lists are compared for the table."""
EQUAL = 1e-4
"""Largest relative error of recorded latents that counts as the same picture."""

NOTES = {
    "a": (
        "Fooocus 2.5.5 offers `turbo` and `align_your_steps`, but samples them as `normal`. Ours samples what the name says; "
        '`compat = "fooocus"` is `normal`, with the Brownian path of the named list.'
    ),
    "b": (
        "Fooocus cuts `ddim_uniform` off after as many steps as were asked for, so that at most step counts the last, lowest "
        'levels are missing. Ours walks all of them, one step or more beyond; `compat = "fooocus"` cuts.'
    ),
    "c": (
        "The Brownian path of Fooocus ends at SDXL's highest level, 14.6, so that a model with levels up to 120 gets no noise "
        'above it. Ours covers all levels; `compat = "fooocus"` does not.'
    ),
    "d": (
        "In Fooocus the `tcd` sampler takes the root of a rounding error in its last step here, and the picture is lost (NaN). "
        "Ours takes 0 for it, also with `compat`; all steps before are equal."
    ),
    "e": (
        "The `tcd` sampler reads a table of timesteps that EDM models do not have. Ours takes SDXL's; the combination is "
        "not recorded."
    ),
}


def recorded() -> dict[tuple[str, str], float]:
    """Measure the relative error of the final latents of each recorded pair; where Fooocus has none, NaN."""
    errors: dict[tuple[str, str], float] = {}
    arrays = golden_arrays("samplers.npz")
    for case in golden_json("samplers.json").values():
        pair = case["sampler"], case["scheduler"]
        _, _, final = walk_case(case, arrays)
        error = relative_error(final, arrays[case["id"] + "_final"])
        errors[pair] = max(error, errors.get(pair, 0.0)) if case["finite"] else float("nan")
    return errors


def differences(sampler: str, scheduler: str) -> str:
    """Give the letters of the notes that hold for a pair at its defaults."""
    settings = SAMPLERS[sampler]
    model = model_sampling(scheduler)
    spare = settings.spare_step != "never"
    ours, theirs = (
        schedule(scheduler, model.levels, STEPS, spare_step=spare, as_fooocus=as_fooocus)
        for as_fooocus in (False, True)
    )
    paths = [
        path_ends(scheduler, STEPS, strength=1.0, sampled=ours, as_fooocus=as_fooocus)
        for as_fooocus in (False, True)
    ]
    letters = ""
    if ours != theirs:
        named = named_levels(scheduler, model.levels, STEPS, spare_step=spare)
        letters += "b" if named[: len(theirs) - 1] == theirs[:-1] else "a"
    if settings.noise == "brownian" and paths[0] != paths[1]:
        letters += "c"
    if sampler == "tcd":
        last = theirs[-2]
        if scheduler == "edm_playground_v2.5":
            letters += "e"
        elif model.levels.sigma_below(last, 0.7) > last * (1 - 1e-5):
            letters += "d"
    return letters


def matrix(errors: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """Write the table: samplers down, schedules across."""
    yield "| | " + " | ".join(SCHEDULES) + " |"
    yield "|---" * (len(SCHEDULES) + 1) + "|"
    for sampler in SAMPLERS:
        cells = []
        for scheduler in SCHEDULES:
            error = errors.get((sampler, scheduler))
            assert error is None or error != error or error < EQUAL, (sampler, scheduler, error)
            mark = "·" if error is None else "="
            cells.append(differences(sampler, scheduler) or mark)
        yield f"| {sampler} | " + " | ".join(cells) + " |"


def page() -> str:
    """Write the whole page."""
    torch.set_num_threads(1)
    errors = recorded()
    worst = max(error for error in errors.values() if error == error)
    lines = [
        "# Samplers and schedules",
        "",
        "What each sampler on each schedule does at its default settings, against Fooocus 2.5.5.",
        "",
        f"* `=` equal: measured against a recorded trajectory; the largest relative error of final latents is {worst:.0e}.",
        "* `·` equal by parts: this pair is not recorded, but the schedule's lists equal Fooocus' (2e-6 relative), and the",
        "  sampler, which sees nothing but such a list, equals it on every recorded one.",
        "* A letter: differs, and why is below.",
        "",
        *matrix(errors),
        "",
        *(f"* **{letter}** {note}" for letter, note in NOTES.items()),
        "",
        "With `dpm_fast` and `dpm_adaptive` only the ends of the list count, and they stop at its last level above 0. At one step,",
        "where Fooocus gives back noise, ours gives the denoised estimate, as with `uni_pc`.",
        "",
        f"Compared at {STEPS} steps. Written by `python -m tests.sampler_table` on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
