"""The service itself: its description, its health, and the demo that tells what is in its way and leaves nothing."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.customers import new_customer
from tests.acceptance.running_demo import Directory, Finished, RunningDemo, free_port, place_for_demo, until

METHODS = {"get", "post", "put", "patch", "delete"}


async def description(demo: RunningDemo) -> Any:
    answer = await demo.http.get("/openapi.json")
    assert answer.status == 200
    return answer.json


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        return {node["$ref"]} if "$ref" in node else {ref for value in node.values() for ref in references(value)}
    return {ref for value in node for ref in references(value)} if isinstance(node, list) else set()


def schemas(node: Any) -> list[Any]:
    """Every schema in a part of the description."""
    if isinstance(node, dict):
        own = [node["schema"]] if "schema" in node else []
        return own + [schema for value in node.values() for schema in schemas(value)]
    return [schema for value in node for schema in schemas(value)] if isinstance(node, list) else []


async def test_the_description_is_sound_openapi(demo: RunningDemo) -> None:
    document = await description(demo)

    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    assert {method for _, method, _ in operations} <= METHODS
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= defined
    assert all(isinstance(schema, dict) for schema in schemas(document["paths"]))
    for path, _, operation in operations:
        declared = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
        assert declared == re.findall(r"{(\w+)}", path)
        assert all(p["required"] for p in operation.get("parameters", []) if p["in"] == "path")
        assert any(status.startswith("2") for status in operation["responses"])
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
        assert all(response["description"] for response in operation["responses"].values())
        assert all(scheme in document["components"]["securitySchemes"] for s in operation["security"] for scheme in s)


async def test_every_described_operation_is_there_and_no_other_method_of_its_path(demo: RunningDemo) -> None:
    for path, item in (await description(demo))["paths"].items():
        url = path.replace("{", "of-nobody-").replace("}", "")
        for method in METHODS:
            answer = await demo.http.call(method.upper(), url)
            if method in item:
                assert b"no such operation" not in answer.body, f"{method} {path}"
                assert answer.status != 405, f"{method} {path}"
                assert str(answer.status) in item[method]["responses"], f"{method} {path} answers {answer.status}"
            else:
                assert answer.status == 405, f"{method} {path}"
                assert {name.lower() for name in re.split(r",\s*", answer.headers["Allow"])} == set(item)


async def test_every_operation_that_is_not_public_wants_a_key(demo: RunningDemo) -> None:
    for path, item in (await description(demo))["paths"].items():
        for method, operation in item.items():
            answer = await demo.http.call(method.upper(), path.replace("{", "").replace("}", ""))
            assert (answer.status == 401) == bool(operation["security"]), f"{method} {path} answers {answer.status}"


async def test_every_operation_of_the_catalog_that_is_promised_now_is_described(demo: RunningDemo) -> None:
    described = {
        f"{method.upper()} {path}" for path, item in (await description(demo))["paths"].items() for method in item
    }

    assert described >= {
        "POST /v1/users",
        "POST /v1/users/login",
        "GET /v1/users/me",
        "GET /v1/users/by-email",
        "POST /v1/keys",
        "GET /v1/keys",
        "DELETE /v1/keys/{id}",
        "POST /v1/chat/completions",
        "GET /v1/models",
        "GET /v1/usage/logs",
        "GET /v1/usage/summary",
        "GET /v1/usage/by-model",
        "GET /v1/usage/by-key",
        "GET /v1/usage/by-day",
        "POST /v1/admin/grants",
        "GET /v1/admin/accounts/{id}",
        "GET /health",
        "GET /ready",
        "GET /metrics",
        "GET /openapi.json",
    }


async def test_health_readiness_and_metrics_are_for_everybody(demo: RunningDemo) -> None:
    health, ready = [await demo.http.get(path) for path in ("/health", "/ready")]

    assert health.json == {"status": "ok"}
    assert ready.json == {"status": "ready", "postgres": True, "backends": {"simulated-gpu": True}}


async def test_the_metrics_of_all_workers_stand_on_one_page(demo: RunningDemo) -> None:
    async def served() -> float:
        page = (await demo.http.get("/metrics")).body.decode()
        assert "# TYPE tollgate_projection_lag_seconds gauge" in page
        name = r'^tollgate_requests_total{operation="chat.completions",outcome="served"} (\S+)$'
        found = re.search(name, page, re.MULTILINE)
        return float(found[1]) if found else 0

    before = await served()
    customer = await new_customer(demo)

    await asyncio.gather(*(customer.chat(max_tokens=2) for _ in range(32)))

    async def counted() -> bool:
        return await served() >= before + 32  # more, where an earlier test's were not on the page yet

    await until(counted)


async def test_every_answer_carries_an_id_of_its_own(demo: RunningDemo) -> None:
    paths = ["/health", "/v1/models", "/v1/users/me", "/nowhere", "/openapi.json"]
    ids = [(await demo.http.get(path)).headers["x-request-id"] for path in paths]

    assert len(set(ids)) == len(paths)


# --- demos in each other's way


async def second_demo(directory: Path, environment: dict[str, str], *, port: int) -> Finished:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollgate.cli", "demo", "--port", str(port)),
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def test_a_second_demo_on_the_same_port_says_what_is_in_its_way(demo: RunningDemo) -> None:
    async with place_for_demo() as elsewhere:
        refused = await second_demo(elsewhere.home, elsewhere.environment, port=demo.port)

        assert (refused.status, refused.out) == (1, "")
        assert f":{demo.port}" in refused.err
        assert "--port" in refused.err
        assert len(refused.err.splitlines()) == 1
        assert elsewhere.leavings() == []
    assert (await demo.http.get("/ready")).status == 200


async def test_a_second_demo_in_the_same_directory_says_what_is_in_its_way_and_harms_nothing(
    demo: RunningDemo,
) -> None:
    refused = await second_demo(demo.directory.home, demo.directory.environment, port=free_port())

    assert (refused.status, refused.out) == (1, "")
    assert f"process {demo.process.pid}" in refused.err
    assert demo.information.server_url in refused.err
    assert len(refused.err.splitlines()) == 1
    assert (await (await new_customer(demo)).chat()).status == 200
    await demo.assert_books_in_order()


async def test_a_demo_that_is_stopped_while_it_starts_leaves_nothing_behind() -> None:
    """Nor where it put its data because the server's own user cannot reach the directory, as below /root."""
    async with place_for_demo() as directory:
        directory.home.chmod(0o700)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tollgate.cli", "demo", "--port", str(free_port())),
            cwd=directory.home,
            env=directory.environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        data = await until(lambda: data_of_running_postgres(directory))

        process.terminate()

        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert directory.processes() == []
        assert directory.leavings() == []
        assert not any(place.exists() for place in (data, data.parent))


async def data_of_running_postgres(directory: Directory) -> Path | None:
    """Where the embedded server keeps its data; None while it does not run."""
    data = directory.home / ".tollgate" / "demo" / "postgres"
    return data.resolve() if data.with_name("postgres.url").exists() else None
