"""What the engine cannot do yet: fields that are understood but refused. Each issue that builds one takes its line out."""

from collections.abc import Mapping

from pydantic import BaseModel

from api.answers import Refused, problem, shown, unprocessable
from api.wire import Endpoint

NOT_YET: Mapping[str, str] = {
    "inpaint_image_url": "Repainting is not built yet.",
    "mask_image_url": "Repainting is not built yet.",
    "outpaint_selections": "Painting beyond the sides is not built yet.",
    "uov_image_url": "Varying and enlarging are not built yet.",
    "model_name": "This endpoint is not built yet.",
}
"""The fields, and what is missing."""


def require_built(endpoint: Endpoint, values: BaseModel) -> None:
    """Refuse what cannot be done yet.

    Raises:
        Refused: 422, naming each field.
    """
    asked = [
        problem([name], why, "feature_not_supported", input=shown(_plain(getattr(values, name))))
        for name, why in NOT_YET.items()
        if name in endpoint.input.model_fields and _is_asked(values, name)
    ]
    if asked:
        raise Refused(unprocessable(asked))


def _is_asked(values: BaseModel, name: str) -> bool:
    """Whether a field has an effect."""
    value = getattr(values, name)
    if name == "uov_image_url" and getattr(values, "uov_method", None) == "Disabled":
        return False
    return bool(value) or type(values).model_fields[name].is_required()


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value
