"""The LoRAs as the page shows them: what each says of itself, what people noted on it, and how more of them come.

They come as files from a browser or from an address; either way they are looked at before they are listed. Names are looked
up in the catalog, and what a file says is text that a stranger wrote: it goes out as JSON, and the page sets it as text.
"""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from engine import Catalog, FileHashes, InvalidRequest, ModelNotFound, models_hashes
from engine.catalog import FOLDERS, Weights
from engine.lora_facts import base_width, lora_facts
from engine.net import MAX_URL
from engine.references import Reference, find_weights
from ui.answers import FOREVER, MAX_BODY, Endpoint, as_bytes, as_json, read_body
from ui.downloads import download_facts
from ui.lora_notes import NotesFolder, read_notes, thumbnail_bytes
from ui.lora_upload import Incoming, file_name, sweep

if TYPE_CHECKING:
    from ui.studio import Studio

ASKED = ("path", "weight_name")
"""What a fetch may say: an address or an id on the hub, and the name of the file there."""


class LoraLibrary:
    """The folder of LoRAs that may be added to, and the notes on all. Safe to use from any thread."""

    def __init__(self, models_dir: Path, data_dir: Path, hashes: FileHashes | None = None) -> None:
        """Open it.

        Args:
            models_dir: Its folder of LoRAs takes what comes, and notes beside its files.
            data_dir: Takes notes on LoRAs of other folders.
            hashes: Knows the files' sha256; None opens those of the models folder.
        """
        self.folder = models_dir / FOLDERS["lora"]
        self.notes = NotesFolder(self.folder, data_dir / FOLDERS["lora"])
        self._hashes = hashes or models_hashes(models_dir)
        self._lock = threading.Lock()
        self._wanted: set[Path] = set()
        """Files whose hash is being computed."""
        sweep(self.folder)

    def row(self, item: Weights) -> dict[str, Any]:
        """Write what the rows and their lists show of a LoRA."""
        facts, notes = lora_facts(item.path), self.notes.read(item)
        words = notes.words or facts.words
        return {
            "name": item.name,
            "title": facts.title or notes.title,
            "words": words,
            "tags": () if words else [tag for tag, _ in facts.tags],
            "weight": notes.weight,
            "width": facts.width,
            "made_for": facts.made_for,
            "fits_nothing": item.path.is_file() and not facts.is_lora,
            "thumbnail": self._version(item, facts.has_thumbnail),
        }

    def whole(self, item: Weights) -> dict[str, Any]:
        """Write all that is known of a LoRA; its hash once it is computed."""
        facts, notes = lora_facts(item.path), self.notes.read(item)
        return {
            **self.row(item),
            "notes": notes.text,
            "author": facts.author,
            "description": facts.description,
            "tags": facts.tags,
            "trained_on": facts.trained_on,
            "resolution": facts.resolution,
            "bytes": item.path.stat().st_size if item.path.is_file() else None,
            "sha256": self._sha256(item.path),
        }

    def picture(self, item: Weights) -> bytes | None:
        """Make the thumbnail, a WebP file; None where there is none."""
        return thumbnail_bytes(item, self.notes.thumbnail_of(item))

    def keep(
        self, incoming: Incoming, catalog: Callable[[], Catalog], arrived: Callable[[], None]
    ) -> tuple[str, bool]:
        """Give a file that came its place.

        Args:
            incoming: The file.
            catalog: Tells what is there.
            arrived: Called when there is one more.

        Returns:
            The name of the LoRA, and whether it was there already: a file of the same content.

        Raises:
            ModelIncompatible: it is no LoRA.
            StorageFailed: it cannot be put there.
        """
        incoming.check()
        with self._lock:
            there = catalog().loras
            for item in there:
                if self._is_same(item.path, incoming):
                    return item.name, True
            place = incoming.keep(self.folder, {item.name for item in there})
            self._hashes.learn(place, incoming.sha256)
            arrived()
        return place.name, False

    def _is_same(self, path: Path, incoming: Incoming) -> bool:
        if not path.is_file() or path.stat().st_size != incoming.size:
            return False
        return self._hashes.get(path) == incoming.sha256

    def _sha256(self, path: Path) -> str | None:
        """Look a hash up; one that is not known is computed in the background."""
        known = self._hashes.peek(path) if path.is_file() else None
        with self._lock:
            if known is None and path.is_file() and path not in self._wanted:
                self._wanted.add(path)
                self._hashes.prefetch([path])
            elif known is not None:
                self._wanted.discard(path)
        return known

    def _version(self, item: Weights, is_inside: bool) -> str | None:
        """Tell thumbnails apart by their file's size and time; None where there is none."""
        place = self.notes.thumbnail_of(item) or (item.path if is_inside else None)
        if place is None:
            return None
        facts = place.stat()
        return f"{facts.st_mtime_ns:x}-{facts.st_size:x}"


class LoraPages:
    """What the addresses below ``/studio/loras`` answer."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio

    @property
    def asked(self) -> Mapping[str, Endpoint]:
        """Addresses that are only looked at."""
        return {"loras": self.all, "loras/one": self.one, "loras/thumbnail": self.thumbnail}

    @property
    def told(self) -> Mapping[str, Endpoint]:
        """Addresses that change something."""
        return {
            "loras": self.take,
            "loras/fetch": self.fetch,
            "loras/notes": self.note,
            "loras/thumbnail": self.choose_thumbnail,
        }

    def all(self, request: Request) -> Response:
        """Tell what the rows show of all LoRAs, and the text widths of the base models that they have to fit."""
        library, catalog = self._studio.loras, self._studio.catalog
        rows = [] if library is None else [library.row(item) for item in catalog.loras]
        bases = {item.name: base_width(item) for item in catalog.checkpoints}
        visitor = self._studio.visitor_of(request) or {"role": "owner"}
        may = {"can_bring": library is not None, "can_change": visitor["role"] == "owner"}
        return as_json({"loras": rows, "bases": bases, **may})

    def one(self, request: Request) -> Response:
        """Tell all of one LoRA."""
        return as_json(self._library.whole(self._item(request.query_params.get("name"))))

    def thumbnail(self, request: Request) -> Response:
        """Show the small picture of a LoRA."""
        data = self._library.picture(self._item(request.query_params.get("name")))
        if data is None:
            return as_json({"detail": "thumbnail: there is none"}, 404)
        return as_bytes(data, "image/webp", FOREVER)

    async def note(self, request: Request) -> Response:
        """Keep what a person noted on a LoRA."""
        given = await _object(request)
        item, notes = self._item(given.get("name")), read_notes(given)
        return await self._change(item, lambda: self._library.notes.write(item, notes))

    async def choose_thumbnail(self, request: Request) -> Response:
        """Make one of the visitor's pictures the thumbnail of a LoRA."""
        given = await _object(request)
        item, owner = self._item(given.get("name")), self._studio.owner_of(request)

        def choose() -> None:
            image = self._studio.jobs.image(str(given.get("image")), owner=owner)
            self._library.notes.choose_thumbnail(item, image.path)

        return await self._change(item, choose)

    async def take(self, request: Request) -> Response:
        """Take in a LoRA, as the bytes of its file; ``?name=`` is what it was called."""
        studio, library = self._studio, self._library
        name = file_name(request.query_params.get("name", ""))
        length = request.headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
        incoming = await run_in_threadpool(Incoming, library.folder, name, size)
        try:
            async for chunk in request.stream():
                if chunk:
                    await run_in_threadpool(incoming.write, chunk)
            kept, was_there = await run_in_threadpool(
                library.keep, incoming, lambda: studio.catalog, studio.refresh
            )
        except ClientDisconnect:
            return as_json({"detail": "lora: expected the whole file, got a part of it"}, 400)
        finally:
            await run_in_threadpool(incoming.drop)
        return as_json({"name": kept, "sha256": incoming.sha256, "was_there": was_there})

    async def fetch(self, request: Request) -> Response:
        """Fetch a LoRA from an address, or from a repository of the hub."""
        given = await _object(request)
        path, file = (given.get(name) or None for name in ASKED)
        if not isinstance(path, str) or len(path) > MAX_URL:
            raise InvalidRequest("address", "expected an address, or owner/name on the hub")
        if not (file is None or isinstance(file, str)):
            raise InvalidRequest("weight_name", "expected the name of a file")
        reference = Reference(path=path.strip(), weight_name=file)
        return await run_in_threadpool(self._fetch, reference)

    def _fetch(self, reference: Reference) -> Response:
        studio = self._studio
        catalog, may_fetch = studio.catalog, studio.library.may_fetch
        try:
            item = find_weights(catalog, "lora", reference, "address", may_fetch)
        except ModelNotFound as error:
            problem = "expected an address, owner/name on the hub, or a LoRA that is there"
            raise InvalidRequest("address", f"{problem}, got {reference.path[:80]!r}") from error
        studio.fetches.start([item])
        coming = [download_facts(it) for it in studio.fetches.known()]
        is_there = catalog.has("lora", item.name)
        return as_json({"name": item.name, "was_there": is_there, "downloads": coming})

    async def _change(self, item: Weights, change: Callable[[], None]) -> Response:
        await run_in_threadpool(change)
        self._studio.touch()
        return as_json(await run_in_threadpool(self._library.whole, item))

    @property
    def _library(self) -> LoraLibrary:
        if self._studio.loras is None:
            raise InvalidRequest("lora", "this studio takes none")
        return self._studio.loras

    def _item(self, name: object) -> Weights:
        try:
            return self._studio.catalog.lora(str(name), "name")
        except ModelNotFound as error:
            raise InvalidRequest("name", str(error).removeprefix("name: ")) from error


async def _object(request: Request) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        given = json.loads(await read_body(request, "lora", MAX_BODY))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("lora", "expected a JSON object") from error
    if not isinstance(given, dict):
        raise InvalidRequest("lora", "expected a JSON object")
    return given
