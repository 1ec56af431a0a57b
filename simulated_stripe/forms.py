"""Stripe's request encoding: a form whose names say where a value belongs, ``line_items[0][price_data][currency]``."""

import re
from typing import Any
from urllib.parse import parse_qsl

_PART = re.compile(r"\[([^\[\]]*)\]")


def parse_form(body: bytes) -> dict[str, Any]:
    """The fields as nested dicts; a list is a dict by its indices, in order. Values stay texts."""
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True):
        first, _, _ = name.partition("[")
        path = [first, *_PART.findall(name)]
        place = fields
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return fields


def whole_number(fields: dict[str, Any], name: str) -> int | None:
    """The field as a number; None where it is absent. Raises ``ValueError``."""
    value = fields.get(name)
    return None if value is None else int(value)
