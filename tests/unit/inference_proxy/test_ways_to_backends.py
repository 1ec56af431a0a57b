"""Whatever reaches a backend has a hold: there is one way there, and it begins with placing one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = ("accounts", "dialects", "inference_proxy", "ledger", "pricing", "projections", "tollgate", "wire")

#: Every place that sends something to a server, and what it is.
WAYS = {
    ("inference_proxy/upstream.py", "Upstream._post"): "the request, for the gate",
    ("inference_proxy/transcript.py", "_count"): "what was delivered, to be counted; nothing is generated",
    ("inference_proxy/backends.py", "BackendPool._check"): "the question whether it is healthy",
    ("tollgate/demo.py", "_wait_until_ready"): "to ourselves: whether the demo is ready",
}
VERBS = {"get", "post", "put", "patch", "delete", "request", "ws_connect"}


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """(qualified name, function) of each function."""
    for node in ast.iter_child_nodes(tree):
        name = f"{inside}{node.name}" if hasattr(node, "name") else inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, node
        yield from functions(node, f"{name}." if isinstance(node, ast.ClassDef) else inside)


def calls(name: str, function: ast.AST) -> list[ast.Call]:
    """The calls of a method of this name, in the order of the text."""
    found = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    found = [node for node in found if isinstance(node.func, ast.Attribute) and node.func.attr == name]
    return sorted(found, key=lambda call: call.lineno)


def all_functions() -> Iterator[tuple[str, str, ast.AST]]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            for name, function in functions(ast.parse(file.read_text())):
                yield file.relative_to(ROOT).as_posix(), name, function


@pytest.mark.money_bug(8)
def test_nothing_else_sends_anything_to_a_backend() -> None:
    found = {
        (file, name)
        for file, name, function in all_functions()
        for verb in VERBS
        for call in calls(verb, function)
        if ast.unparse(call.func).endswith(f"session.{verb}")
    }

    assert found == WAYS.keys()


@pytest.mark.money_bug(2, 8)
def test_the_gate_alone_asks_for_answers_and_places_the_hold_before() -> None:
    asking = [(file, name, function) for file, name, function in all_functions() if calls("answer_of", function)]

    assert [(file, name) for file, name, _ in asking] == [("inference_proxy/gate.py", "Gate._pay_and_forward")]
    (function,) = (function for _, _, function in asking)
    (place,), (ask,) = calls("place", function), calls("answer_of", function)
    assert place.lineno < ask.lineno
    assert place in [node.value.value for node in function.body if is_awaited_assignment(node)]  # whatever else happens


def is_awaited_assignment(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Await)
