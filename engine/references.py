"""How a request names weights: by a name of the catalog, an address, or an id of the Hugging Face hub."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a request says of one file or folder of weights."""

    path: str
    subfolder: str | None = None
    weight_name: str | None = None
    variant: str | None = None
    config_url: str | None = None
