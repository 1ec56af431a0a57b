"""Request bodies and queries in, JSON out."""

from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from wire.errors import ApiError

#: A native JSON body above this is not a request for what we serve. Operations with larger ones say so.
MAX_BODY = 1024 * 1024

Model = TypeVar("Model")

_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}
_encode = msgspec.json.Encoder(decimal_format="number").encode


async def read_body(request: web.Request, *, limit: int) -> bytes:
    """The whole body. Raises ApiError payload_too_large as soon as it is known to be above ``limit`` bytes."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    chunks = []
    size = 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
    except web.RequestPayloadError as error:
        raise ApiError("invalid_request", "the body is not of the encoding that its headers say") from error
    return b"".join(chunks)


async def read_json(request: web.Request, model: type[Model], *, limit: int = MAX_BODY) -> Model:
    """The body as this type. Raises ApiError invalid_request, naming the field, when it is anything else."""
    return decode_json(await read_body(request, limit=limit), model)


def decode_json(body: bytes, model: type[Model]) -> Model:
    """Bytes as this type; see ``read_json``."""
    try:
        return _decoder(model).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(error) from error


def _decoder(model: type[Model]) -> msgspec.json.Decoder[Model]:
    decoder = _DECODERS.get(model)
    if decoder is None:
        # Numbers in fields of any type stay exact too.
        decoder = _DECODERS[model] = msgspec.json.Decoder(model, float_hook=Decimal)
    return decoder


def read_query(request: web.Request, model: type[Model]) -> Model:
    """The query string as this type. Raises ApiError invalid_request, naming the parameter."""
    try:
        return msgspec.convert(dict(request.query), model, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


def invalid(error: Exception) -> ApiError:
    """The answer for input that is not of its type: what is wrong, and the field it is about."""
    message, _, path = str(error).partition(" - at `$")
    if isinstance(error, msgspec.ValidationError):
        return ApiError("invalid_request", message, param=path.rstrip("`").lstrip(".") or _field_named(message))
    return ApiError("invalid_request", f"the body is not valid JSON: {message}")


def _too_large(limit: int) -> ApiError:
    return ApiError("payload_too_large", f"the body is above {limit} bytes")


def _field_named(message: str) -> str | None:
    """The field in messages such as: Object missing required field `model`."""
    parts = message.split("`")
    return parts[1] if len(parts) == 3 and "field" in parts[0] else None


def json_reply(value: Any, *, status: int = 200) -> web.Response:
    """A value as a JSON answer. Decimals are written as numbers."""
    return web.Response(body=_encode(value), status=status, content_type="application/json")
