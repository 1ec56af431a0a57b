"""How we speak HTTP: the native error body and its codes, money as numbers, request bodies, routes and OpenAPI.

The other rooms describe their operations as ``Route``s and raise ``ApiError``s; the composition root mounts the
first and answers the second. Nothing here knows what an operation does.
"""

from wire.body import json_reply, read_body, read_json, read_query
from wire.errors import ApiError, error_reply
from wire.moments import moment_of
from wire.money import Cents, cents_of, microcents_of
from wire.openapi import openapi_document
from wire.routes import Route, mount

__all__ = [
    "ApiError",
    "Cents",
    "Route",
    "cents_of",
    "error_reply",
    "json_reply",
    "microcents_of",
    "moment_of",
    "mount",
    "openapi_document",
    "read_body",
    "read_json",
    "read_query",
]
