"""Questions to a node, by JSON-RPC over HTTP. They wait for their answer."""

from typing import Any
from urllib.request import Request, urlopen

import msgspec

#: Of one question; the node is on this machine.
TIMEOUT_S = 10


class RpcError(Exception):
    """What the node says that is wrong."""


def ask(url: str, method: str, *parameters: Any) -> Any:
    """The node's answer. Raises RpcError, and OSError when it is away."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    request = Request(url, msgspec.json.encode(question), {"content-type": "application/json"})
    with urlopen(request, timeout=TIMEOUT_S) as answer:
        said = msgspec.json.decode(answer.read())
    if "error" in said:
        raise RpcError(f"{method}: {said['error'].get('message')}")
    return said["result"]
