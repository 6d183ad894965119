"""What the engine cannot do yet: fields that are understood but refused. Each issue that builds one takes its line out."""

from collections.abc import Mapping

from pydantic import BaseModel

from api.answers import Refused, problem, shown, unprocessable
from api.wire import Endpoint

NOT_YET: Mapping[str, str] = {
    "model_name": "This endpoint is not built yet.",
}
"""The fields, and what is missing."""


def require_built(endpoint: Endpoint, values: BaseModel) -> None:
    """Refuse what cannot be done yet.

    Raises:
        Refused: 422, naming each field.
    """
    asked = [
        problem([name], why, "feature_not_supported", input=shown(getattr(values, name)))
        for name, why in NOT_YET.items()
        if name in endpoint.input.model_fields
    ]
    if asked:
        raise Refused(unprocessable(asked))
