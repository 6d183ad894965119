"""The API's own description: OpenAPI documents of the form that fal publishes, made from the models of the wire.

One document an endpoint, as fal has them, and one of everything. What differs from fal's is listed in `api.departures`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from api.wire import ENDPOINTS, Endpoint
from api.wire.fields import WireModel
from api.wire.shared import QueueStatus
from engine.library import Library
from engine.prompt.styles import SPECIAL_STYLES

VERSION = "3.0.4"
REF = "#/components/schemas/{model}"
LAST = ("advanced",)
"""Fields that are shown after all others."""
DOCUMENTATION = "https://fal.ai/models/{id}/api"
SCHEMES = {
    "apiKeyAuth": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "Key, as: Key ID:SECRET",
    }
}
ERROR = {
    "title": "Error",
    "type": "object",
    "description": "Why there is no result; a list names each field at fault.",
    "required": ["detail"],
    "properties": {
        "detail": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}},
            ]
        },
        "error_type": {"type": "string"},
    },
}
PROBLEM = {
    "title": "Problem",
    "type": "object",
    "description": "What is wrong with one field.",
    "required": ["loc", "msg", "type"],
    "properties": {
        "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        "msg": {"type": "string"},
        "type": {"type": "string"},
        "input": {},
        "ctx": {"type": "object"},
        "url": {"type": "string"},
    },
}
CANCELLATION = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {
            "type": "string",
            "enum": ["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"],
        }
    },
}
REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "description": "Id of the request."},
}
LOGS = {
    "name": "logs",
    "in": "query",
    "required": False,
    "schema": {"type": "number", "description": "1 adds what happened so far."},
}
CANCELLATIONS = {
    "202": "It is being cancelled.",
    "400": "It is over already.",
    "404": "There is no such request.",
}
FAL_REFINER = "realisticVisionV60B1_v51VAE.safetensors"
"""The refiner that fal offers."""
Json = dict[str, Any]


class _Fal30(GenerateJsonSchema):
    """JSON schemas as OpenAPI 3.0 has them: no type null, no default null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", ...) is None:
            del found["default"]
        return found


def endpoint_document(endpoint: Endpoint, library: Library, server: str) -> Json:
    """Write the document of one endpoint's queue, as fal publishes it.

    Args:
        endpoint: Which.
        library: What styles and models may be named.
        server: Address of the queue.
    """
    names, schemas = _schemas([endpoint])
    output = schemas.pop(names[endpoint.output])
    schemas[endpoint.output_name] = output
    names = {**names, endpoint.output: endpoint.output_name}
    _name_choices(schemas, library)
    about = {
        "endpointId": endpoint.id,
        "category": "text-to-image",
        "playgroundUrl": f"https://fal.ai/models/{endpoint.id}",
        "documentationUrl": f"https://fal.ai/models/{endpoint.id}/api",
    }
    return {
        "openapi": VERSION,
        "info": {
            "title": f"Queue OpenAPI for {endpoint.id}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {endpoint.id} queue.",
            "x-fal-metadata": about,
        },
        "components": {"securitySchemes": SCHEMES, "schemas": schemas},
        "paths": _queue_paths(endpoint, f"/{endpoint.id}", names),
        "servers": [{"url": server}],
        "security": [{"apiKeyAuth": []}],
    }


def whole_document(library: Library, server: str) -> Json:
    """Write the document of all endpoints, run and queue.

    Args:
        library: What styles and models may be named.
        server: Address of the studio.
    """
    names, schemas = _schemas(list(ENDPOINTS.values()))
    _name_choices(schemas, library)
    paths: Json = {}
    for endpoint in ENDPOINTS.values():
        answer = {"200": _json("The pictures.", names[endpoint.output])}
        paths[f"/{endpoint.id}"] = {"post": _post(endpoint, answer, names)}
        paths |= _queue_paths(endpoint, f"/queue/{endpoint.id}", names)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Pochade",
            "version": "1.0.0",
            "description": "fal's Fooocus and LoRA endpoints on your own machine.",
        },
        "components": {"securitySchemes": SCHEMES, "schemas": schemas},
        "paths": paths,
        "servers": [{"url": server}],
        "security": [{"apiKeyAuth": []}, {}],
    }


def _schemas(endpoints: Sequence[Endpoint]) -> tuple[Mapping[type[WireModel], str], Json]:
    """Write the schemas of all models of some endpoints; returns their names too."""
    models: list[type[WireModel]] = [QueueStatus]
    for endpoint in endpoints:
        models += [endpoint.input, endpoint.output]
    refs, found = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template=REF,
        schema_generator=_Fal30,
    )
    schemas = {name: _as_fal_writes(schema) for name, schema in found["$defs"].items()}
    schemas |= {"Error": ERROR, "Problem": PROBLEM}
    names = {model: refs[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    return names, schemas


def _as_fal_writes(schema: Json) -> Json:
    """Bring one schema into the form of OpenAPI 3.0, and say in which order its fields are shown."""
    properties = schema.get("properties")
    if not properties:
        return schema
    order = sorted(properties, key=lambda name: name in LAST)
    properties = {name: _of_version_3(properties[name]) for name in order}
    return {**schema, "properties": properties, "x-fal-order-properties": order}


def _of_version_3(value: Json) -> Json:
    """Write one field as OpenAPI 3.0 has it: exclusive limits as a switch, no reference with neighbours."""
    if "exclusiveMinimum" in value:
        return {**value, "minimum": value["exclusiveMinimum"], "exclusiveMinimum": True}
    if "$ref" not in value or len(value) == 1:
        return value
    others = {key: item for key, item in value.items() if key != "$ref"}
    return {"allOf": [{"$ref": value["$ref"]}], **others}


def _name_choices(schemas: Json, library: Library) -> None:
    """Add the names that this studio knows to the fields that take one of them."""
    styles = [*SPECIAL_STYLES, *library.styles]
    refiners = dict.fromkeys(["None", FAL_REFINER])
    refiners |= dict.fromkeys(item.name for item in library.catalog.checkpoints)
    for schema in schemas.values():
        properties = schema.get("properties", {})
        if "styles" in properties:
            properties["styles"]["items"] = {"type": "string", "enum": styles}
        if "refiner_model" in properties:
            properties["refiner_model"]["enum"] = list(refiners)


def _queue_paths(endpoint: Endpoint, base: str, names: Mapping[type[WireModel], str]) -> Json:
    request = f"{base}/requests/{{request_id}}"
    status = {"200": _json("The request is over.", "QueueStatus")}
    waiting = {"202": _json("It waits or runs.", "QueueStatus")}
    cancelled = {code: _cancellation(text) for code, text in CANCELLATIONS.items()}
    result = {"200": _json("Result of the request.", names[endpoint.output])}
    stream = {"200": _content("Each change of the status.", "text/event-stream", {})}
    submitted = {"200": _json("The request is taken.", "QueueStatus")}
    return {
        base: {"post": _post(endpoint, submitted, names)},
        request: {"get": _operation(result)},
        f"{request}/status": {"get": _operation(status | waiting, LOGS)},
        f"{request}/status/stream": {"get": _operation(stream, LOGS)},
        f"{request}/cancel": {"put": _operation(cancelled)},
    }


def _post(endpoint: Endpoint, answers: Json, names: Mapping[type[WireModel], str]) -> Json:
    body = _content("", "application/json", {"$ref": REF.format(model=names[endpoint.input])})
    return {
        "requestBody": {"required": True, "content": body["content"]},
        "responses": answers | _failures(),
    }


def _operation(answers: Json, *more: Json) -> Json:
    return {"parameters": [REQUEST_ID, *more], "responses": answers | _failures()}


def _failures() -> Json:
    return {
        "4XX": _json("The request is at fault.", "Error"),
        "5XX": _json("The studio is at fault.", "Error"),
    }


def _json(text: str, name: str) -> Json:
    return _content(text, "application/json", {"$ref": REF.format(model=name)})


def _cancellation(text: str) -> Json:
    return _content(text, "application/json", CANCELLATION)


def _content(text: str, media_type: str, schema: Json) -> Json:
    return {"description": text, "content": {media_type: {"schema": schema}}}
