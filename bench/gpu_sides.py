"""The scenes of `bench.gpu`: the same picture painted by the studio's engine and by diffusers' own pipelines."""

import copy
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench.gpu_meter import Work
from bench.gpu_weights import LORAS, Drawings, Subject
from engine import Failed, ImageReady, Library, Plan, TextRequest, plan, read_catalog
from engine.engine import Engine

GUIDANCE = 4.0
FEW_STEPS = 4
PROMPT = "a large red star on a blue background"
OURS, STOCK = "Pochade", "diffusers"
OURS_COMPILED, STOCK_COMPILED = "Pochade, compiled", "diffusers, compiled"
SIDES = (OURS, STOCK, OURS_COMPILED, STOCK_COMPILED)

Paint = Callable[[], object]
"""Paints all pictures of a scene, to files in memory."""
Job = tuple[Plan, Mapping[str, Path]]
"""A plan and its input pictures."""


class NotThere(Exception):
    """A side cannot take part on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Something to paint, by each side that can."""

    key: str
    """What the command line calls it."""
    title: str
    work: Work
    """Of one picture."""
    prepare: Mapping[str, Callable[[], Paint]]
    """By side: gets ready, which is not timed."""
    pictures: int = 1
    cost: float = 1.0
    """About how many times as long as a plain picture one of its pictures takes."""
    loads: float = 0.0
    """About how many times a whole model is loaded."""
    compiles: int = 0
    """How many times a UNet is compiled."""


class Ours:
    """Paints with an engine."""

    def __init__(self, engine: Engine, subject: Subject, drawings: Drawings) -> None:
        self._engine, self._subject, self._drawings = engine, subject, drawings
        self._catalog = read_catalog(subject.models_dir, subject.base)
        self._numbers = count()
        self._loras = 0

    def paint(self, jobs: Sequence[Job]) -> None:
        """Run jobs to their end, together.

        Raises:
            RuntimeError: one failed.
        """
        for job, inputs in jobs:
            self._engine.admit(f"job {next(self._numbers)}", job, inputs)
        ready = 0
        while not self._engine.idle():
            for _, event in self._engine.step():
                if isinstance(event, Failed):
                    raise RuntimeError(event.message)
                ready += isinstance(event, ImageReady)
        if ready != len(jobs):
            raise RuntimeError(f"expected {len(jobs)} pictures, got {ready}")

    def settle(self, timeout: float) -> bool:
        """Wait for what is compiled in the background; False where that takes longer."""
        compiled = self._engine._palette.model.compiled
        return compiled is None or compiled.settle(timeout)

    def plain(self, **fields: Any) -> Paint:
        """Paint one picture from words; `fields` change the request."""
        return lambda: self.paint([self._job(**fields)])

    def together(self) -> Paint:
        """Paint the pictures of many jobs at once."""
        return lambda: self.paint([self._job() for _ in range(self._subject.jobs)])

    def in_turn(self) -> Paint:
        """Paint the same pictures one after the other."""

        def once() -> None:
            for _ in range(self._subject.jobs):
                self.paint([self._job()])

        return once

    def shown(self) -> Paint:
        """Paint one picture, and show every step of it."""
        return self.plain(advanced={"previews": True})

    def few_steps(self) -> Paint:
        """Paint in the mode *Lightning*."""
        steps = min(FEW_STEPS, self._subject.steps)
        return self.plain(performance="Lightning", advanced={"num_inference_steps": steps})

    def with_new_lora(self) -> Paint:
        """Paint with another LoRA each time."""

        def once() -> None:
            self._loras += 1
            lora = {"path": LORAS[self._loras % len(LORAS)], "scale": 0.1}
            self.paint([self._job(loras=[lora])])

        return once

    def controlled(self) -> Paint:
        """Paint after a drawing that nobody has seen before."""

        def once() -> None:
            name, path, _ = self._drawings.new()
            prompt = {"image": name, "type": self._subject.control, "weight": 1.0, "stop_at": 1.0}
            job, _ = self._job(image_prompts=[prompt], advanced={"skip_preprocessors": True})
            self.paint([(job, {name: path})])

        return once

    def repainted(self) -> Paint:
        """Repaint the middle of a picture that nobody has seen before, with all of it in view."""
        mask, mask_path, _ = self._drawings.mask()

        def once() -> None:
            name, path, _ = self._drawings.new()
            asked = {"image": name, "mask": mask, "engine": "None", "respective_field": 1.0}
            job, _ = self._job(inpaint=asked)
            self.paint([(job, {name: path, mask: mask_path})])

        return once

    def _job(self, **fields: Any) -> Job:
        """Plan a picture as diffusers paints it: Euler steps, no sharpness, no previews."""
        size = self._subject.size
        advanced = {
            "sampler": "euler",
            "scheduler": "normal",
            "num_inference_steps": self._subject.steps,
            "base_model": self._subject.base,
            "previews": False,
            **fields.pop("advanced", {}),
        }
        values = {
            "prompt": PROMPT,
            "guidance_scale": GUIDANCE,
            "sharpness": 0.0,
            "aspect_ratio": f"{size}x{size}",
            "num_images": 1,
            "styles": (),
            "advanced": advanced,
            **fields,
        }
        library = Library(catalog=self._catalog)
        return plan(TextRequest.parse(values), library, seed=next(self._numbers)), {}


class Stock:
    """Paints with diffusers' pipelines, as they come."""

    def __init__(self, subject: Subject, drawings: Drawings, compile_mode: str) -> None:
        self._subject, self._drawings = subject, drawings
        self._compile_mode = compile_mode
        self._seeds = count()

    @cached_property
    def pipeline(self) -> Any:
        """The eager pipeline, loaded when it is first asked for."""
        return self._quiet(self._subject.stock_pipeline())

    def forget(self) -> None:
        """Let go of the networks."""
        vars(self).pop("pipeline", None)

    def plain(self) -> Paint:
        """Paint one picture from words."""
        pipeline = self.pipeline
        return lambda: self._paint(pipeline)

    def compiled(self) -> Paint:
        """Paint one with a compiled UNet, as diffusers' guide advises: channels last, one graph."""
        pipeline = self._other("StableDiffusionXLPipeline")
        unet = copy.deepcopy(self.pipeline.unet).to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(unet, mode=self._compile_mode, fullgraph=True)
        return lambda: self._paint(pipeline)

    def together(self) -> Paint:
        """Paint many pictures of one call."""
        pipeline = self.pipeline
        return lambda: self._paint(pipeline, count=self._subject.jobs)

    def few_steps(self) -> Paint:
        """Paint in few steps without guidance."""
        from diffusers import EulerDiscreteScheduler

        config = self.pipeline.scheduler.config
        scheduler = EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing")
        pipeline = self._other("StableDiffusionXLPipeline", scheduler=scheduler)
        steps = min(FEW_STEPS, self._subject.steps)
        return lambda: self._paint(pipeline, num_inference_steps=steps, guidance_scale=1.0)

    def with_new_lora(self) -> Paint:
        """Paint with another LoRA each time, fused into the weights and taken out again.

        Raises:
            NotThere: diffusers needs a library for it that is not installed.
        """
        if importlib.util.find_spec("peft") is None:
            raise NotThere("diffusers reads LoRAs with the library peft, which is not installed")
        numbers = count()

        def once() -> None:
            file = self._subject.models_dir / "loras" / LORAS[next(numbers) % len(LORAS)]
            self.pipeline.load_lora_weights(file, adapter_name="one")
            self.pipeline.fuse_lora(lora_scale=0.1)
            self._paint(self.pipeline)
            self.pipeline.unfuse_lora()
            self.pipeline.unload_lora_weights()

        return once

    def controlled(self) -> Paint:
        """Paint after a drawing."""
        from diffusers import ControlNetModel

        path, dtype = self._subject.control_path, self._subject.dtype
        net = ControlNetModel.from_pretrained(path, dtype=dtype).to(self._subject.device)
        pipeline = self._other("StableDiffusionXLControlNetPipeline", controlnet=net)
        return lambda: self._paint(
            pipeline, image=self._drawings.new()[2], controlnet_conditioning_scale=1.0
        )

    def repainted(self) -> Paint:
        """Repaint the middle of a picture."""
        pipeline = self._other("StableDiffusionXLInpaintPipeline")
        mask = self._drawings.mask()[2]
        return lambda: self._paint(
            pipeline, image=self._drawings.new()[2], mask_image=mask, strength=1.0
        )

    def _other(self, kind: str, **parts: Any) -> Any:
        """Make another pipeline of the same networks."""
        import diffusers

        components = {**self.pipeline.components, **parts}
        return self._quiet(getattr(diffusers, kind)(**components, add_watermarker=False))

    @staticmethod
    def _quiet(pipeline: Any) -> Any:
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _paint(self, pipeline: Any, *, count: int = 1, **asked: Any) -> None:
        """Paint pictures up to their files, as the engine does."""
        generator = torch.Generator().manual_seed(next(self._seeds))
        size = self._subject.size
        usual = {"num_inference_steps": self._subject.steps, "guidance_scale": GUIDANCE}
        pictures: list[Image.Image] = pipeline(
            [PROMPT] * count,
            height=size,
            width=size,
            generator=generator,
            **{**usual, **asked},
        ).images
        for picture in pictures:
            picture.save(io.BytesIO(), "PNG")


def scenes(
    ours: Ours, stock: Stock, subject: Subject, compiled: Callable[[], Paint]
) -> Iterator[Scene]:
    """List the scenes, the most important first; `compiled` makes an engine that compiles."""
    steps, jobs = subject.steps, subject.jobs
    guided = Work(steps=steps)
    few = Work(steps=min(FEW_STEPS, steps), rows=1)
    yield Scene(
        key="one",
        title="one job",
        work=guided,
        prepare={OURS: ours.plain, STOCK: stock.plain},
    )
    yield Scene(
        key="together",
        title=f"{jobs} jobs together (diffusers: {jobs} pictures of one call)",
        work=guided,
        prepare={OURS: ours.together, STOCK: stock.together},
        pictures=jobs,
    )
    yield Scene(
        key="lightning",
        title=f"Lightning, {few.steps} steps without guidance",
        work=few,
        prepare={OURS: ours.few_steps, STOCK: stock.few_steps},
        cost=0.5,
    )
    yield Scene(
        key="lora",
        title="one job, another LoRA each time",
        work=guided,
        prepare={OURS: ours.with_new_lora, STOCK: stock.with_new_lora},
        cost=3.0,
    )
    yield Scene(
        key="controlnet",
        title="one job with a ControlNet",
        work=Work(steps=steps, nets=1),
        prepare={OURS: ours.controlled, STOCK: stock.controlled},
        cost=2.0,
        loads=1.0,
    )
    yield Scene(
        key="inpaint",
        title="one job that repaints the middle of a picture",
        work=Work(steps=steps, encodes=1),
        prepare={OURS: ours.repainted, STOCK: stock.repainted},
        cost=1.5,
    )
    yield Scene(
        key="compiled",
        title="one job, compiled",
        work=guided,
        prepare={
            OURS: ours.plain,
            STOCK: stock.plain,
            OURS_COMPILED: compiled,
            STOCK_COMPILED: stock.compiled,
        },
        loads=1.0,
        compiles=2,
    )
