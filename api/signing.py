"""The signature of webhooks: Ed25519, as fal signs them, with a key of this studio that anybody can look up."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from api.tickets import read_secret


class SigningKey:
    """Signs what is told by webhook."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32 random bytes that the key is made from."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def sign(self, request_id: str, user_id: str, timestamp: str, body: bytes) -> str:
        """Sign one delivery; returns the signature in hex."""
        digest = hashlib.sha256(body).hexdigest()
        message = "\n".join((request_id, user_id, timestamp, digest))
        return self._key.sign(message.encode()).hex()

    def jwks(self) -> dict[str, Any]:
        """Write the public key as receivers look it up."""
        public = self._key.public_key().public_bytes_raw()
        text = base64.urlsafe_b64encode(public).decode().rstrip("=")
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": text, "use": "sig", "alg": "EdDSA"}]}


def open_signing_key(data_dir: Path) -> SigningKey:
    """Read this studio's key, which is drawn the first time.

    Raises:
        OSError: it can be neither read nor written.
    """
    return SigningKey(read_secret(data_dir / "webhook.key"))
