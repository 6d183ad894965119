"""A UNet's transformer blocks compiled in the background, shape by shape; who paints never waits for a compiler.

Blocks that are asked about a shape that nobody compiled yet answer as they are, and a thread of its own compiles it. From then on the
thread that paints runs the compiled code, in the mode of torch that only looks for finished code: what its guards refuse runs as it is.
Blocks of one width share their code, and weights are inputs of it, so LoRAs compile nothing anew.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from engine.conditioning.image_attention import Told, ToldHere, attend_images
from engine.models.levers import Kernel, attending

log = logging.getLogger(__name__)

CACHE = "TORCHINDUCTOR_CACHE_DIR"
MOST_SHAPES = 64
"""Shapes of blocks of one width that are compiled; later ones run as they are."""
Shape = tuple[Any, ...]
"""What makes calls of blocks of one width other code."""
_KWARGS, _IMAGES = "cross_attention_kwargs", "ip_hidden_states"


class State(Enum):
    """How far a shape is."""

    ASKED = "asked"
    READY = "ready"
    FAILED = "failed"


def keep_compiled(folder: Path) -> None:
    """Keep compiled code in a folder, so that it is there after the next start; what the environment says goes first."""
    os.environ.setdefault(CACHE, str(folder.absolute()))


@dataclass(eq=False)
class _Width:
    """The blocks of one UNet that share code."""

    blocks: list[nn.Module] = field(default_factory=list)
    states: dict[Shape, State] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class _Task:
    width: "weakref.ref[_Width]"
    """No hold on the blocks, which may be let go before their turn comes."""
    shape: Shape
    hidden: Tensor
    told: Mapping[str, Any]


class CompiledBlocks:
    """The transformer blocks of one UNet, and the thread that compiles them, which ends when the UNet is let go."""

    def __init__(
        self, unet: Any, kernel: Kernel = "auto", backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        """Take the place of the blocks' ``forward``; nothing is compiled yet.

        Args:
            unet: A `UNet2DConditionModel`; its cross-attention becomes `ImageAttention`.
            kernel: The attention kernel that goes first.
            backend: Of `torch.compile`.
        """
        from diffusers.models.attention import BasicTransformerBlock

        attend_images(unet)
        self._kernel, self._backend = kernel, backend
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        """None is the last."""
        weakref.finalize(unet, self._tasks.put, None).atexit = False
        self._thread: threading.Thread | None = None
        self._open = 0
        self._changed = threading.Condition()
        widths: dict[tuple[int, int], _Width] = {}
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock):
                attn = block.attn1
                width = widths.setdefault((attn.to_q.in_features, attn.heads), _Width())
                width.blocks.append(block)
                vars(block)["forward"] = _Region(block, width, self._ask)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until everything that was asked about is compiled or cannot be; False where that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout)

    def _ask(self, task: _Task) -> None:
        """Have a shape compiled some time."""
        with self._changed:
            self._open += 1
        self._tasks.put(task)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="compiler", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            width = task.width()
            if width is not None:
                width.states[task.shape] = self._compile(task, width.blocks)
            del task, width  # who waits here holds no network
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def _compile(self, task: _Task, blocks: Sequence[nn.Module]) -> State:
        """Compile a shape by asking every block of the width about it; the first does the work."""
        from torch._dynamo import config

        config.recompile_limit = config.accumulated_recompile_limit = 4 * MOST_SHAPES
        started = time.monotonic()
        compiled = torch.compile(type(blocks[0]).forward, backend=self._backend, dynamic=False)
        try:
            with torch.inference_mode(), attending(self._kernel, task.hidden.device):
                for block in blocks:
                    compiled(block, task.hidden, **task.told)
        except Exception as error:  # noqa: BLE001  (whatever a compiler may say, pictures are painted without it)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            log.warning("blocks for %s stay as they are: %s", tuple(task.hidden.shape), reason)
            return State.FAILED
        seconds = time.monotonic() - started
        log.info("compiled blocks for %s in %.1f s", tuple(task.hidden.shape), seconds)
        return State.READY


class _Region:
    """Stands for a block's ``forward``."""

    def __init__(self, block: Any, width: _Width, ask: Callable[[_Task], None]) -> None:
        from torch._dynamo import run

        self._block, self._width, self._ask = block, width, ask
        self._plain = type(block).forward
        self._finished = run(self._plain)

    def __call__(self, hidden_states: Tensor, **told: Any) -> Tensor:
        """Answer as the block does, by compiled code where there is some."""
        told = {name: value for name, value in told.items() if value is not None}
        here = self._here(hidden_states, told)
        if here is not None:
            told[_KWARGS] = {_IMAGES: here}
        shape = _shape(hidden_states, told.get("encoder_hidden_states"), here)
        state = self._width.states.get(shape)
        if state is None and len(self._width.states) < MOST_SHAPES:
            self._width.states[shape] = State.ASKED
            self._ask(_Task(weakref.ref(self._width), shape, hidden_states, told))
        forward = self._finished if state is State.READY else self._plain
        answer: Tensor = forward(self._block, hidden_states, **told)
        return answer

    def _here(self, hidden: Tensor, told: Mapping[str, Any]) -> ToldHere | None:
        """Take out what this block alone is told, so that its code fits the others."""
        everywhere = told.get(_KWARGS, {}).get(_IMAGES)
        if not isinstance(everywhere, Told):
            return None
        here: ToldHere = self._block.attn2.processor.here(everywhere, hidden)
        return here

    def __deepcopy__(self, memo: dict[int, Any]) -> MethodType:
        """A copy of a block is not compiled."""
        return MethodType(self._plain, memo[id(self._block)])


def _shape(hidden: Tensor, context: Tensor | None, here: ToldHere | None) -> Shape:
    told = None
    if here is not None:
        images = tuple(keys.shape for keys, _ in here.images)
        told = (here.text is None, here.formula, images, here.mask is None)
    return hidden.shape, None if context is None else context.shape, told
