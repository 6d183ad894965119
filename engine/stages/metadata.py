"""A picture as a file, with the plan that made it inside.

The record is the plan's own JSON, under the key ``pochade`` in PNG and as the EXIF user comment in JPEG and WebP. Nothing in
it is ever evaluated.
"""

import io
import logging

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from engine.plan import Plan, only_image, plan_from_json, plan_to_json
from engine.requests import OutputFormat

log = logging.getLogger(__name__)

KEY = "pochade"
"""Name of the PNG text chunk, and first word of the EXIF comment."""
SOFTWARE = "Pochade"
_PREFIX = b"ASCII\0\0\0"
_MAX_EXIF = 65_000
"""Bytes that EXIF can hold in a JPEG."""
_MAX_TEXT = 1 << 20


def content_type(output_format: OutputFormat) -> str:
    """Name the media type of a format."""
    return f"image/{output_format}"


def encode_image(image: Image.Image, plan: Plan, index: int) -> bytes:
    """Write picture `index` of `plan` as a whole file in the plan's format."""
    record = plan_to_json(only_image(plan, index))
    buffer = io.BytesIO()
    match plan.output_format:
        case "png":
            text = PngInfo()
            text.add_itxt(KEY, record)
            text.add_text("Software", SOFTWARE)
            image.save(buffer, "PNG", pnginfo=text, compress_level=1)
        case "jpeg":
            image.save(buffer, "JPEG", quality=95, exif=_exif(record))
        case "webp":
            image.save(buffer, "WEBP", exif=_exif(record))
    return buffer.getvalue()


def read_plan(image: Image.Image) -> Plan | None:
    """Find the plan in a picture that this studio made; None when there is none or it cannot be read."""
    text = getattr(image, "text", {}).get(KEY) or _comment(image)
    if not text or len(text) > _MAX_TEXT:
        return None
    try:
        return plan_from_json(text)
    except ValueError:
        return None


def _exif(record: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    comment = _PREFIX + record.encode("utf-8")
    if len(comment) <= _MAX_EXIF:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    else:
        log.warning("the prompt is too long to go into the file; a PNG would hold it")
    return exif


def _comment(image: Image.Image) -> str:
    value = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    if not isinstance(value, bytes) or not value.startswith(_PREFIX):
        return ""
    return value[len(_PREFIX) :].decode("utf-8", errors="replace")
