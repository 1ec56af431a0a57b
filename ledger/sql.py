"""SQL kept apart from Python: named blocks of a ``queries.sql`` beside the module that runs them."""

import re
from importlib import resources

_BLOCK = re.compile(r"^-- (\w+) --$", re.MULTILINE)


def load_queries(package: str) -> dict[str, str]:
    """The blocks of a package's ``queries.sql`` by name. A block begins with a line ``-- name --``."""
    text = resources.files(package).joinpath("queries.sql").read_text()
    parts = _BLOCK.split(text)
    return dict(zip(parts[1::2], (block.strip() for block in parts[2::2]), strict=True))
