"""Texts that would run, or become elements, where a page took them for code; and files that carry them.

Each element in them has the attribute ``data-pwned``, each script calls ``__pwned``; `WATCH` makes a page tell of either.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.lora_files import weights_bytes, write_lora

RUN = "__pwned('ran')"
IMG = f'<img src=x data-pwned onerror="{RUN}">'
PAYLOADS = {
    "image": IMG,
    "script": f"</script><script data-pwned>{RUN}</script>",
    "svg": f"<svg data-pwned onload={RUN}></svg>",
    "double quote": f'">{IMG}',
    "single quote": f"'><img src=x data-pwned onerror={RUN}>",
    "attribute": f'" autofocus onfocus="{RUN}" data-pwned="',
    "textarea": f"</textarea></title></style>{IMG}",
    "comment": f"--><!-- --!>{IMG}",
    "template": f"${{{RUN}}}",
    "mustache": f"{{{{{RUN}}}}} {{{{constructor.constructor('{RUN}')()}}}} {{@html '{IMG}'}}",
    "backtick": f"`+{RUN}+`",
    "quoted": f"');{RUN};//\\');{RUN};//",
    "link": f"javascript:{RUN} [x](javascript:{RUN}) ![x](x'onerror='{RUN})",
    "anchor": f'<a data-pwned href="javascript:{RUN}">x</a>',
    "frame": f'<iframe data-pwned srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "toggle": f"<details data-pwned open ontoggle={RUN}></details>",
    "style": f"<style data-pwned>@import 'javascript:{RUN}'</style>",
    "base": "<base data-pwned href='https://elsewhere.example/'>",
    "math": f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;{IMG[1:]}'>",
    "entities": f"&lt;img src=x data-pwned onerror={RUN}&gt; &#60;img src=x data-pwned onerror={RUN}&#62;",
    "twice": f"&amp;lt;img src=x data-pwned onerror={RUN}&amp;gt; %3Cimg src=x onerror={RUN}%3E",
    "tex": f"$\\href{{javascript:{RUN}}}{{x}}$ \\(\\unicode{{<img src=x onerror={RUN}>}}\\)",
    "turned": f"\u202e{IMG}\u202c\u2066\u2069",
    "separators": f"\u2028{RUN}\u2029\ufeff{IMG}",
}
ALL = " ".join(PAYLOADS.values())
WORD = f"<img/src=x/data-pwned/onerror={RUN}>"
"""The same without a space."""
SIGN = "<img"
"""What is looked for where a text is shown as it is."""
NAMES = (
    IMG,
    f'">{IMG}',
    f"${{{RUN}}}",
    f"{{{{{RUN}}}}}",
    f"javascript:{RUN}",
    f"\u202e<svg data-pwned onload={RUN}>",
    f"`+{RUN}+`",
    f"&lt;img src=x data-pwned onerror={RUN}&gt;",
    f"a<\nscript>{RUN}<".replace("\n", "/") + "/script>x",
)
"""Names of files; the last lies in folders that are called for an end of a script."""
WATCH = """
(() => {
  const look = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    for (const it of [node, ...node.querySelectorAll("*")]) {
      if (it.hasAttribute("data-pwned")) window.__pwned(`element ${it.tagName}`);
      if (/^javascript:/i.test(it.getAttribute("href") ?? "")) window.__pwned("link");
    }
  };
  new MutationObserver((changes) => changes.forEach((change) => {
    if (change.type === "attributes") look(change.target);
    change.addedNodes.forEach(look);
  })).observe(document, { childList: true, subtree: true, attributes: true });
})();
"""


def write_models(folder: Path) -> None:
    """Fill a models folder with files whose names, metadata and notes are payloads."""
    facts = {
        "modelspec.title": ALL,
        "modelspec.author": IMG,
        "modelspec.description": ALL,
        "modelspec.trigger_phrase": IMG,
        "modelspec.thumbnail": f"data:image/svg+xml,<svg xmlns='x' onload=\"{RUN}\"/>",
        "ss_tag_frequency": json.dumps({IMG: {IMG: 5, WORD: 3}}),
        "ss_base_model_version": IMG,
        "ss_sd_model_name": IMG,
        "ss_resolution": IMG,
    }
    base = weights_bytes({"unet.attn2.to_k.weight": (4, 2048)})
    for name in NAMES:
        lora = write_lora(folder / "loras" / f"{name}.safetensors", facts)
        said = {"notes": ALL, "activation text": IMG, "description": ALL, "sd version": IMG}
        lora.with_suffix(".json").write_text(json.dumps(said))
        lora.with_suffix(".preview.png").write_text(f"<svg xmlns='x' onload=\"{RUN}\"/>")
        for kind in ("checkpoints", "vae", "embeddings", "controlnet", "clip_vision", "unet"):
            path = folder / kind / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base)


def write_styles(folder: Path) -> None:
    """Write styles whose names and words are payloads."""
    folder.mkdir(parents=True)
    styles = [{"name": it, "prompt": f"{{prompt}} {ALL}", "negative_prompt": ALL} for it in NAMES]
    (folder / f"{IMG}.json").write_text(json.dumps(styles))


def write_presets(folder: Path) -> None:
    """Write presets whose file names, names and sentences are payloads."""
    folder.mkdir(parents=True)
    for index, name in enumerate(NAMES[:-1]):
        request = {"prompt": ALL, "negative_prompt": ALL, "styles": [IMG]}
        if index == 1:
            request["loras"] = [{"path": IMG, "scale": 1.0}, {"path": f"gone {IMG}", "scale": 1.0}]
        preset = {"name": name, "summary": ALL, "request": request}
        (folder / f"{name}.json").write_text(json.dumps(preset))


def write_wildcards(folder: Path) -> None:
    """Write lists of payloads."""
    folder.mkdir(parents=True)
    for name in ("evil", IMG):
        (folder / f"{name}.txt").write_text("\n".join(PAYLOADS.values()))


def pictures() -> Iterator[tuple[str, str, bytes]]:
    """Write pictures of every kind of record: a name, a media type, a file."""
    fooocus = json.dumps(
        {
            "prompt": ALL,
            "negative_prompt": ALL,
            "styles": f"['{WORD}', 'Fooocus V2']",
            "base_model": IMG,
            "refiner_model": IMG,
            "lora_combined_1": f"{WORD} : 0.5",
            "loras": [[IMG, 0.5, "ab"]],
            "sampler": IMG,
            "scheduler": IMG,
            "performance": IMG,
            "resolution": IMG,
            "seed": IMG,
            "vae": IMG,
            "metadata_scheme": "fooocus",
            "version": f"Fooocus {IMG}",
        }
    )
    a1111 = (
        f"{ALL} <lora:{IMG}:0.5>\nNegative prompt: {ALL}\nSteps: 4, Sampler: {IMG}, CFG scale: 7,"
        f" Seed: 1, Size: 512x512, Model: {IMG}, VAE: {IMG}, Version: {IMG}"
    )
    for kind, text in (("fooocus", fooocus), ("a1111", a1111), ("words", ALL)):
        yield f"{kind} {IMG}.png", "image/png", png({"parameters": text, IMG[:70]: text})
        yield f"{kind} {IMG}.jpg", "image/jpeg", _with_exif("JPEG", text)
        yield f"{kind} {IMG}.webp", "image/webp", _with_exif("WEBP", text)
    graph = json.dumps({"1": {"class_type": IMG, "inputs": {"text": ALL}}})
    yield f"graph {IMG}.png", "image/png", png({"workflow": graph, "prompt": graph})
    yield f"xmp {IMG}.png", "image/png", png({"XML:com.adobe.xmp": f"<x>{ALL}</x>", "pochade": ALL})


def png(texts: dict[str, str] | None = None, size: tuple[int, int] = (64, 64)) -> bytes:
    """Write a small PNG with texts."""
    info = PngInfo()
    for key, text in (texts or {}).items():
        info.add_itxt(key, text)
    file = io.BytesIO()
    Image.new("RGB", size, "navy").save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _with_exif(form: str, text: str) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = IMG  # what it shows
    exif[0x0131] = "Fooocus"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(file, form, exif=exif)
    return file.getvalue()
