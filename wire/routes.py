"""An operation as data: what the server mounts and what the OpenAPI description says, from one place."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. ``errors`` are codes of ``wire.errors`` beyond those that every operation can answer."""

    method: Literal["GET", "POST", "DELETE", "PUT", "PATCH"]
    path: str
    handler: Handler
    summary: str
    tag: str
    auth: Literal["public", "bearer", "operator"] = "bearer"
    headers: dict[str, str] = {}  # request headers that it heeds, with what they mean
    query: Any = None  # a Struct type
    body: Any = None  # a Struct type
    answer: Any = None  # a type; None = no body, or one that is described elsewhere
    status: int = 200
    content_type: str = "application/json"
    errors: tuple[str, ...] = ()


def mount(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve the operations."""
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler)
