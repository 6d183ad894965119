"""Checks that a webhook comes from a studio, as fal's guide tells receivers to."""

import base64
import hashlib
import json
import time
import urllib.request
from collections.abc import Mapping

TOLERANCE_S = 300.0
"""How old a message may be: whoever recorded an older one cannot send it again."""


def is_signed(headers: Mapping[str, str], body: bytes, studio: str) -> bool:
    """Whether a studio sent this, now.

    Args:
        headers: The headers of the webhook, their names in small letters.
        body: Its body, as it came.
        studio: Address of the studio.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    request_id, user_id, timestamp = (
        headers.get(f"x-fal-webhook-{name}", "") for name in ("request-id", "user-id", "timestamp")
    )
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    digest = hashlib.sha256(body).hexdigest()
    message = "\n".join((request_id, user_id, timestamp, digest)).encode()
    signature = headers.get("x-fal-webhook-signature", "")
    with urllib.request.urlopen(f"{studio}/rest/.well-known/jwks.json") as answer:
        keys = json.load(answer)["keys"]
    for key in keys:
        raw = base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4))
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False
