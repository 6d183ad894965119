"""Those who ask in the endurance run: people at the page and programs, well behaved or gone in the middle.

Each kind of visit makes one job or two and looks at what came of it; what a studio answers otherwise than it should is an
error. Knows nothing of processes and memory.
"""

import asyncio
import base64
import contextlib
import functools
import io
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

TEXT = "fal-ai/fooocus"
LORA = "fal-ai/lora"
QUICK: Mapping[str, Any] = {"performance": "Lightning", "styles": [], "num_images": 1, "loras": []}
ENDED = ("COMPLETED",)
PATIENCE_S = 120.0
SMALL = {"width": 128, "height": 128}

Visit = Callable[["Visitor", int], Awaitable[None]]


@functools.cache
def picture(side: int = 128, *, is_mask: bool = False) -> bytes:
    """Draw a PNG: a disc, or a square of white to repaint."""
    from PIL import Image, ImageDraw

    image = Image.new("L" if is_mask else "RGB", (side, side), 0 if is_mask else "navy")
    box = (side // 4, side // 4, side * 3 // 4, side * 3 // 4)
    draw = ImageDraw.Draw(image)
    if is_mask:
        draw.rectangle(box, fill=255)
    else:
        draw.ellipse(box, fill="red")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_uri(data: bytes) -> str:
    """Write a PNG as an address."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


class PageForm:
    """What the page's buttons send: every value of the form as it is at first, but for some."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        parts = {part["id"]: part["props"] for part in config["components"]}
        names = {number: props.get("elem_id") for number, props in parts.items()}
        self._buttons = {
            names.get(target): event
            for event in config["dependencies"]
            for target, kind in event["targets"]
            if kind == "click"
        }
        self._parts, self._names = parts, names

    def press(self, button: str, values: Mapping[str, Any], session: str) -> dict[str, Any]:
        """Write what a press of a button sends."""
        event = self._buttons[button]
        return {
            "data": [
                values.get(self._names[it], self._parts[it].get("value")) for it in event["inputs"]
            ],
            "fn_index": event["id"],
            "trigger_id": event["targets"][0][0],
            "session_hash": session,
        }


class Visitor:
    """Somebody at the studio. A visitor of the page has a tab, which Gradio keeps in mind."""

    def __init__(self, line: httpx.AsyncClient, form: PageForm, receiver: str) -> None:
        """Begin a visit.

        Args:
            line: Connections to the studio.
            form: The page's form.
            receiver: Address that takes webhooks.
        """
        self._line = line
        self._form = form
        self.receiver = receiver
        self.session = uuid.uuid4().hex

    async def ask(
        self, method: str, path: str, *, expect: Sequence[int] = (200,), **more: Any
    ) -> httpx.Response:
        """Send a request; an unexpected status is an error."""
        answer = await self._line.request(method, path, **more)
        if answer.status_code not in expect:
            raise ValueError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    # At the page

    async def press(self, button: str, values: Mapping[str, Any]) -> Any:
        """Press a button of the page and wait for what it puts on the stage."""
        event = await self.join(button, values)
        path = f"/gradio_api/queue/data?session_hash={self.session}"
        async with self._line.stream("GET", path) as stream:
            async for line in stream.aiter_lines():
                told = json.loads(line[5:]) if line.startswith("data:") else {}
                if told.get("msg") == "process_completed" and told["event_id"] == event:
                    if not told["success"]:
                        raise ValueError(f"{button}: {told['output']}")
                    return told["output"]["data"][0]
        raise ValueError(f"{button}: the stream ended")

    async def join(self, button: str, values: Mapping[str, Any]) -> str:
        """Press a button of the page and look no more."""
        body = self._form.press(button, values, self.session)
        answer = await self.ask("POST", "/gradio_api/queue/join", json=body)
        return str(answer.json()["event_id"])

    async def generate(self, prompt: str, **values: Any) -> str:
        """Press *Generate*; returns the job's id."""
        usual = {"performance": "Lightning", "num_images": 1, "aspect_ratio": "256x256"}
        told = await self.press("generate", {**usual, "prompt": prompt, **values})
        return str(told["job"])

    async def bring(self, data: bytes) -> str:
        """Bring a picture to the page; returns its name there."""
        answer = await self.ask("POST", "/studio/inputs", content=data)
        return str(answer.json()["name"])

    async def watch(self, job: str, most: int = 0) -> None:
        """Watch a job to its end, or for some events only and go away in the middle."""
        seen = 0
        async with self._line.stream("GET", f"/studio/jobs/{job}/events") as stream:
            async for line in stream.aiter_lines():
                seen += line.startswith("data:")
                if most and seen >= most:
                    return

    async def see(self, job: str) -> list[dict[str, Any]]:
        """Look at the pictures of a job as History does; returns what is known of them."""
        images: list[dict[str, Any]] = (await self.ask("GET", f"/studio/jobs/{job}")).json()[
            "images"
        ]
        for image in images:
            for part in ("thumbnail", "file"):
                await self.ask("GET", f"/studio/images/{image['id']}/{part}")
        return images

    @contextlib.asynccontextmanager
    async def tab(self) -> Any:
        """Hold the page open, as a browser does."""
        path = f"/gradio_api/heartbeat/{self.session}"
        async with self._line.stream("GET", path) as stream:
            await anext(stream.aiter_lines())
            yield

    # As a program

    async def submit(self, endpoint: str, body: Mapping[str, Any], **more: Any) -> str:
        """Put a call into the queue; returns its address."""
        answer = await self.ask("POST", f"/queue/{endpoint}", json=body, **more)
        return f"/queue/{endpoint}/requests/{answer.json()['request_id']}"

    async def settle(self, call: str) -> None:
        """Poll until a call is over."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await self.ask("GET", f"{call}/status?logs=1", expect=(200, 202))
                if answer.json()["status"] in ENDED:
                    return
                await asyncio.sleep(0.05)

    async def stream(self, call: str, most: int = 0) -> None:
        """Watch a call's status, to the end or for some lines."""
        seen = 0
        async with self._line.stream("GET", f"{call}/status/stream") as stream:
            async for line in stream.aiter_lines():
                seen += line.startswith("data:")
                if most and seen >= most:
                    return

    async def fetch(self, result: Mapping[str, Any]) -> None:
        """Fetch the pictures of a result."""
        for image in result["images"]:
            if image["url"].startswith("http"):
                await self.ask("GET", httpx.URL(image["url"]).path)

    async def run(self, endpoint: str, body: Mapping[str, Any], **more: Any) -> None:
        """Call and wait, then fetch the pictures."""
        answer = await self.ask("POST", f"/{endpoint}", json=body, **more)
        await self.fetch(answer.json())

    async def upload(self, data: bytes) -> str:
        """Send a file to the storage; returns its address."""
        facts = {"content_type": "image/png", "file_name": "disc.png"}
        answer = await self.ask("POST", "/rest/storage/upload/initiate", json=facts)
        told = answer.json()
        await self.ask("PUT", str(httpx.URL(told["upload_url"]).raw_path, "ascii"), content=data)
        return str(told["file_url"])


# Visits to the scripted engine


async def page_watched(who: Visitor, number: int) -> None:
    async with who.tab():
        job = await who.generate(f"watched {number} steps=3")
        await who.watch(job)
        await who.see(job)


async def page_left(who: Visitor, number: int) -> None:
    async with who.tab():
        job = await who.generate(f"left {number} steps=8", num_images=2)
        await who.watch(job, most=2)


async def page_closed_at_once(who: Visitor, number: int) -> None:
    await who.join("generate", {"prompt": f"closed {number}", "num_images": 1})


async def page_follows(who: Visitor, number: int) -> None:
    slot = {"image": await who.bring(picture()), "type": "ImagePrompt"}
    prompts = [{**slot, "stop_at": 0.5, "weight": 0.6}]
    bar = {"tab": "image_prompts"}
    job = await who.generate(f"follows {number}", image_prompts=prompts, pictures_bar=bar)
    await who.watch(job)


async def page_cancelled(who: Visitor, number: int) -> None:
    job = await who.generate(f"cancelled {number} steps=500")
    await who.watch(job, most=1)
    await who.ask("POST", f"/studio/jobs/{job}/cancel", json={})
    await who.watch(job)


async def page_skips(who: Visitor, number: int) -> None:
    job = await who.generate(f"skips {number} steps=40", num_images=2)
    await who.watch(job, most=3)
    await who.ask("POST", f"/studio/jobs/{job}/skip", json={})
    await who.watch(job)


async def page_fails(who: Visitor, number: int) -> None:
    way = "crash" if number % 100 < 20 else "fail"
    await who.watch(await who.generate(f"fails {number} ends={way}"))


async def page_refused(who: Visitor, number: int) -> None:
    body = {"prompt": f"refused {number}", "seed": "seven"}
    asked = who.join("generate", body)
    with contextlib.suppress(ValueError):
        await asked
        raise RuntimeError("a wrong seed was taken")
    await page_watched(who, number)


async def page_looks(who: Visitor, number: int) -> None:
    job = await who.generate(f"looks {number}", num_images=2)
    await who.watch(job)
    images = await who.see(job)
    for path in ("", "studio/state", "studio/lists", "studio/styles", "studio/images?search=looks"):
        await who.ask("GET", f"/{path}")
    for path in ("metrics", "studio/static/stage.js"):
        await who.ask("GET", f"/{path}")
    await who.ask(
        "GET", "/health/ready", expect=(200, 503)
    )  # another visit may have killed the worker
    found = await who.ask("GET", f"/studio/images/{images[0]['id']}/file")
    await who.ask("POST", "/studio/read", content=found.content)
    ids = {"ids": [image["id"] for image in images]}
    await who.ask("POST", "/studio/images/delete", json=ids)
    await who.ask("POST", "/studio/images/restore", json=ids)


async def api_polled(who: Visitor, number: int) -> None:
    call = await who.submit(TEXT, {**QUICK, "prompt": f"polled {number} steps=3"})
    await who.settle(call)
    await who.fetch((await who.ask("GET", call)).json())


async def api_told(who: Visitor, number: int) -> None:
    body = {**QUICK, "prompt": f"told {number}"}
    await who.settle(await who.submit(TEXT, body, params={"fal_webhook": who.receiver}))


async def api_with_picture(who: Visitor, number: int) -> None:
    slot = {"image_url": data_uri(picture())}
    await who.run(f"{TEXT}/image-prompt", {**QUICK, "prompt": str(number), "image_prompt_1": slot})


async def api_uploads(who: Visitor, number: int) -> None:
    body = {**QUICK, "prompt": f"uploaded {number}", "uov_image_url": await who.upload(picture())}
    await who.run(f"{TEXT}/upscale-or-vary", body)


async def api_cancelled(who: Visitor, number: int) -> None:
    call = await who.submit(TEXT, {**QUICK, "prompt": f"cancelled {number} steps=500"})
    await who.ask("PUT", f"{call}/cancel", expect=(202,))
    await who.settle(call)


async def api_fails(who: Visitor, number: int) -> None:
    way = ("ends=raise", "admit=fail", "ends=fail")[number % 3]
    call = await who.submit(TEXT, {**QUICK, "prompt": f"fails {number} {way}"})
    await who.settle(call)
    await who.ask("GET", call, expect=(404, 422, 500, 503))


async def api_refused(who: Visitor, number: int) -> None:
    call = await who.submit(TEXT, {**QUICK, "prompt": f"refused {number}", "aspect_ratio": "wide"})
    await who.ask("GET", call, expect=(422,))
    await who.run(TEXT, {**QUICK, "prompt": f"then well {number}"})


async def api_stream_left(who: Visitor, number: int) -> None:
    call = await who.submit(TEXT, {**QUICK, "prompt": f"streamed {number} steps=8"})
    await who.stream(call, most=1)
    await who.stream(call)


async def api_inline(who: Visitor, number: int) -> None:
    await who.run(TEXT, {**QUICK, "prompt": f"inline {number}", "sync_mode": True})


async def api_lora(who: Visitor, number: int) -> None:
    body = {"model_name": "pocket", "prompt": f"studio {number}", "image_size": SMALL}
    await who.run(LORA, body)


SCRIPTED: tuple[Visit, ...] = (
    page_watched,
    api_polled,
    page_left,
    api_told,
    page_closed_at_once,
    api_with_picture,
    page_follows,
    api_uploads,
    page_cancelled,
    api_cancelled,
    page_skips,
    api_fails,
    page_fails,
    api_refused,
    page_refused,
    api_stream_left,
    page_looks,
    api_inline,
    page_watched,
    api_lora,
)

# Visits to the pocket model


def _painted(name: str, **body: Any) -> Visit:
    """Make a visit of a program to an endpoint of Fooocus."""

    async def visit(who: Visitor, number: int) -> None:
        await who.run(f"{TEXT}{name}", {**QUICK, "prompt": "a red star", "seed": number, **body})

    return visit


def _studio(**body: Any) -> Visit:
    usual = {"model_name": "pocket", "prompt": "a red star", "num_inference_steps": 4}

    async def visit(who: Visitor, number: int) -> None:
        await who.run(LORA, {**usual, "image_size": SMALL, "seed": number, **body})

    return visit


async def pocket_page(who: Visitor, number: int) -> None:
    size = ("128x128", "144x112", "192x128", "256x256")[number % 4]
    job = await who.generate("a large blue heart", aspect_ratio=size, num_images=1 + number % 2)
    await who.watch(job, most=number % 3 * 2)
    await who.watch(job)
    await who.see(job)


async def pocket_page_cancelled(who: Visitor, number: int) -> None:
    job = await who.generate("a large blue heart", performance="Speed")
    await who.watch(job, most=3)
    await who.ask("POST", f"/studio/jobs/{job}/cancel", json={})
    await who.watch(job)


async def pocket_describes(who: Visitor, number: int) -> None:
    image = await who.bring(picture(256))
    await who.press("describe", {"describe_picture": image})


DOTS = ({"path": "pocket_dots.safetensors", "scale": 0.7},)
DISC = {"image_url": data_uri(picture())}
POCKET: tuple[Visit, ...] = (
    pocket_page,
    _painted("", aspect_ratio="256x256"),
    _painted("", aspect_ratio="192x128", loras=DOTS),
    pocket_page,
    _painted("/image-prompt", aspect_ratio="128x128", image_prompt_1=DISC),
    _studio(),
    pocket_page,
    _painted("/image-prompt", aspect_ratio="128x128", image_prompt_1={**DISC, "type": "PyraCanny"}),
    _painted(
        "/inpaint",
        inpaint_image_url=data_uri(picture(256)),
        mask_image_url=data_uri(picture(256, is_mask=True)),
    ),
    pocket_page_cancelled,
    _painted("/inpaint", inpaint_image_url=data_uri(picture()), outpaint_selections=["Left"]),
    _studio(loras=[{"path": "pocket_dots.safetensors", "scale": 1.5}], scheduler="Euler A"),
    _painted("/upscale-or-vary", uov_image_url=data_uri(picture()), uov_method="Upscale (Fast 2x)"),
    _painted("/upscale-or-vary", uov_image_url=data_uri(picture()), uov_method="Upscale (1.5x)"),
    pocket_page,
    _painted("/upscale-or-vary", uov_image_url=data_uri(picture()), uov_method="Vary (Subtle)"),
    _studio(
        controlnets=[{"path": "pocket_edges", **DISC}],
        image_size={"width": 256, "height": 192},
        debug_latents=True,
    ),
    pocket_describes,
    _painted("", aspect_ratio="112x144", performance="Extreme Speed", output_format="webp"),
    _studio(
        prompt="a red star pocket_dusk",
        embeddings=[{"path": "pocket_dusk.safetensors", "tokens": ["pocket_dusk"]}],
    ),
)
