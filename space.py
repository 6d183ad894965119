"""A Hugging Face Space: what its environment tells a studio, and where files may go on it. The standard library only."""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

BUCKET = Path("/data")
"""Where a Space mounts its storage bucket; all else of its disk is gone with a restart."""
PORTS = ("GRADIO_SERVER_PORT", "PORT")
"""Variables that name the port a Space expects its page on."""
_CACHES = {
    "GRADIO_TEMP_DIR": "gradio",
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "NUMBA_CACHE_DIR": "numba",
}
"""What libraries keep elsewhere unless they are told, and the folder that it gets."""
_ON = frozenset({"1", "t", "true"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """The OAuth application that a Space has when its README says ``hf_oauth: true``."""

    client_id: str
    client_secret: str
    scopes: str
    """Between spaces."""
    provider: str
    """Address of the OpenID provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A Space, by its environment variables."""

    id: str
    """``owner/name``."""
    hosts: tuple[str, ...]
    """Host names that its page has besides the frame on huggingface.co; domains of its own come after the first."""
    author: str
    """The account that it belongs to."""
    hardware: str
    """What it runs on, for people; '' where it doesn't say."""
    is_zero_gpu: bool
    """Whether a graphics card is lent to it for single jobs."""
    sign_in: SignIn | None
    """None where visitors cannot sign in."""

    @property
    def host(self) -> str | None:
        """The host name by which Hugging Face knows it."""
        return self.hosts[0] if self.hosts else None


def find_space(environment: Mapping[str, str]) -> Space | None:
    """Read the Space that this is; None anywhere else."""
    if not is_space(environment):
        return None
    name = environment["SPACE_ID"]
    return Space(
        id=name,
        hosts=tuple(filter(None, map(str.strip, environment.get("SPACE_HOST", "").split(",")))),
        author=environment.get("SPACE_AUTHOR_NAME") or name.partition("/")[0],
        hardware=_hardware(environment),
        is_zero_gpu=is_zero_gpu(environment),
        sign_in=_sign_in(environment),
    )


def is_space(environment: Mapping[str, str]) -> bool:
    """Say whether this is a Space; an empty id is none."""
    return bool(environment.get("SPACE_ID"))


def is_zero_gpu(environment: Mapping[str, str]) -> bool:
    """Say whether graphics cards are lent, as the package ``spaces`` reads it."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in _ON


def usual_folder(environment: Mapping[str, str], name: str, bucket: Path = BUCKET) -> str:
    """Say where a folder of the studio lies unless it is told: beside the program, but on a Space in the bucket or its home.

    Args:
        environment: The environment variables.
        name: ``data`` or ``outputs``.
        bucket: Where the bucket is mounted, if there is one.
    """
    if not is_space(environment):
        return name
    if bucket.is_dir() and os.access(bucket, os.W_OK):
        return str(bucket / "pochade" / name)
    return str(Path(environment.get("HOME") or Path.home()) / "pochade" / name)


def usual_port(environment: Mapping[str, str]) -> str:
    """Say which port the page gets unless it is told."""
    given = (environment.get(name) for name in PORTS if is_space(environment))
    return next(filter(None, given), "7860")


def usual_address(environment: Mapping[str, str]) -> str | None:
    """Say under which address programs reach a Space: the proxy before it speaks https, which its requests do not tell."""
    space = find_space(environment)
    return None if space is None or space.host is None else f"https://{space.host}"


def is_kept(folder: Path, bucket: Path = BUCKET) -> bool:
    """Say whether what is in a folder outlives a restart of the Space."""
    return folder.resolve().is_relative_to(bucket)


def keep_caches(environment: MutableMapping[str, str], data_dir: Path) -> None:
    """Let libraries keep their files in the data folder, where nothing else is said; before any of them is imported."""
    for variable, name in _CACHES.items():
        environment.setdefault(variable, str(data_dir.absolute() / "cache" / name))


def _hardware(environment: Mapping[str, str]) -> str:
    if is_zero_gpu(environment):
        return "ZeroGPU"
    told = environment.get("ACCELERATOR", "")
    return "" if told.lower() in ("", "none", "cpu") else told


def _sign_in(environment: Mapping[str, str]) -> SignIn | None:
    client_id, secret = environment.get("OAUTH_CLIENT_ID"), environment.get("OAUTH_CLIENT_SECRET")
    if not client_id or not secret:
        return None
    return SignIn(
        client_id=client_id,
        client_secret=secret,
        scopes=environment.get("OAUTH_SCOPES") or "openid profile",
        provider=environment.get("OPENID_PROVIDER_URL") or "https://huggingface.co",
    )
