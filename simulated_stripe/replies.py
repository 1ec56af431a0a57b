"""Bodies in, and answers in Stripe's shapes."""

from typing import Any, Final

import msgspec
from aiohttp import web

from simulated_stripe.objects import Object, StripeRefusal, shown

MOST_PER_PAGE: Final = 100


async def read(request: web.Request, model: Any) -> Any:
    return msgspec.json.decode(await request.read() or b"{}", type=model)


def json_reply(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def shown_reply(thing: Object) -> web.Response:
    return json_reply(shown(thing))


def page_reply(request: web.Request, found: list[Object]) -> web.Response:
    """One page, newest first, from behind ``starting_after``."""
    after = request.query.get("starting_after")
    ids = [each["id"] for each in found]
    start = ids.index(after) + 1 if after in ids else 0
    end = start + min(int(request.query.get("limit", "10")), MOST_PER_PAGE)
    page = [shown(each) for each in found[start:end]]
    return json_reply({"object": "list", "data": page, "has_more": end < len(found), "url": request.path})


def refusal_reply(refusal: StripeRefusal) -> web.Response:
    payment = {} if refusal.payment is None else {"payment_intent": shown(refusal.payment)}
    return json_reply({"error": refusal.error | payment}, status=refusal.status)
