"""The OpenAPI 3.1 description of the routes, made from the same table that is mounted."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from wire.errors import CODES
from wire.routes import Route

_REF = "#/components/schemas/{name}"
_EVERYWHERE = ("internal_error",)
_AUTHENTICATED = ("unauthorized",)
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "enum": sorted({type_ for _, type_ in CODES.values()})},
                "code": {"type": "string", "enum": sorted(CODES)},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}


def openapi_document(routes: Sequence[Route], *, title: str, version: str) -> dict[str, Any]:
    """The whole document, ready to be encoded as JSON."""
    types = [type_ for route in routes for type_ in (route.query, route.body, route.answer) if type_ is not None]
    schemas, components = _as_numbers(msgspec.json.schema_components(types, ref_template=_REF))
    by_type = {id(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR_SCHEMA},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _as_numbers(schema: Any) -> Any:
    """The schema with decimals as the numbers that they are on the wire; msgspec describes them as strings."""
    if isinstance(schema, dict):
        if schema.get("format") == "decimal":
            return {**schema, "type": "number"}
        return {name: _as_numbers(value) for name, value in schema.items()}
    if isinstance(schema, list | tuple):
        return [_as_numbers(value) for value in schema]
    return schema


def _operation(route: Route, schemas: dict[int, dict[str, Any]], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.tag],
        "security": [] if route.auth == "public" else [{"bearer": []}],
        "responses": _responses(route, schemas),
    }
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_header_parameter(name, meaning) for name, meaning in route.headers.items()]
    if route.query is not None:
        parameters += _query_parameters(schemas[id(route.query)], components)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[id(route.body)]}},
        }
    return operation


def _responses(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "success"}
    if route.answer is not None:
        success["content"] = {route.content_type: {"schema": schemas[id(route.answer)]}}
    elif route.status != 204:
        success["content"] = {route.content_type: {}}
    responses = {str(route.status): success}
    codes = (*route.errors, *_EVERYWHERE, *(_AUTHENTICATED if route.auth != "public" else ()))
    if route.body is not None or route.query is not None:
        codes = (*codes, "invalid_request")
    by_status: dict[str, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(str(CODES[code][0]), []).append(code)
    for status, names in sorted(by_status.items()):
        responses[status] = {
            "description": ", ".join(names),
            "content": {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}},
        }
    return responses


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _header_parameter(name: str, meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}


def _query_parameters(schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = components[schema["$ref"].rsplit("/", 1)[1]]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema["properties"].items()
    ]
