"""What a text is: a record of some program, or just a prompt.

Cautious: an ordinary prompt, also one with braces or colons in it, is never taken for a record.
"""

from typing import Literal

from engine.records.a1111 import has_settings
from engine.records.literals import MAX_TEXT, json_object
from engine.records.to_request import LABELS

RecordKind = Literal["pochade", "fooocus", "a1111"]
_PLAN_KEYS = {"images", "sampling", "base_model"}


def detect(text: str) -> RecordKind | None:
    """Say what kind of record a text is; None for everything else.

    A JSON object is ours when it has a plan's keys and Fooocus' when it has any of its keys or labels; a text is A1111's
    when its last line begins with the steps and names something else that A1111 writes.
    """
    if len(text) > MAX_TEXT:
        return None
    values = json_object(text)
    if values is not None:
        if values.keys() >= _PLAN_KEYS:
            return "pochade"
        is_known = any(key in LABELS or key in LABELS.values() for key in values)
        return "fooocus" if is_known else None
    return "a1111" if has_settings(text) else None
