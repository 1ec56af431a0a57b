"""Prices from outside: published by the command line, quoted, changed at one moment under load, in another currency."""

import asyncio
import json
import re
import secrets
import shlex
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.client import Answer
from tests.acceptance.conftest import breakable_demo
from tests.acceptance.customers import MODEL, Customer, new_customer, request, unique_prompt
from tests.acceptance.prices import price_in_cents, price_of_usage
from tests.acceptance.running_demo import Finished, RunningDemo, until

#: The feed of a worker asks for new prices once a second.
KNOWN_EVERYWHERE_AFTER = timedelta(seconds=3)


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    async for demo in breakable_demo():
        yield demo


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo, cents=1000)


def program(per_token: str, *, name: str, currency: str = "USD", more: str = "") -> str:
    """A price for each token, whatever it is."""
    return (
        f'id = "{name}"\ncurrency = "{currency}"\nnot_charged = ["cached_input_tokens", "reasoning_tokens"]\n{more}\n'
        f'[[charges]]\nname = "tokens"\nmeter = "input_tokens + output_tokens"\nprice = {per_token}\n'
    )


async def prices(demo: RunningDemo, *arguments: str) -> Finished:
    """A command of ``tollgate prices`` that has to succeed."""
    done = await demo.command("prices", *arguments)
    assert done.status == 0, done
    return done


async def publish(demo: RunningDemo, text: str) -> str:
    """Publish; gives id@version."""
    file = demo.directory.home / f"{secrets.token_hex(4)}.toml"
    file.write_text(text)
    return (await prices(demo, "publish", str(file))).out.split()[0]


async def assign(demo: RunningDemo, version: str, *arguments: str, start: datetime | None = None) -> None:
    """Let the version price MODEL from a moment on that every worker hears of in time; waits for it."""
    if start is not None:
        await prices(demo, "assign", version, MODEL, "--from", start.isoformat(), "--confirm", *arguments)
    else:
        start = await _from_soon(demo, "assign", version, MODEL, "--confirm", *arguments)
    await until(lambda: _over(start))


async def _from_soon(demo: RunningDemo, *arguments: str) -> datetime:
    """Carry the command out from a moment on that is not over yet when it starts, however busy the machine is."""
    ahead = KNOWN_EVERYWHERE_AFTER
    while True:
        start = datetime.now(UTC) + ahead
        done = await demo.command("prices", *arguments, "--from", start.isoformat())
        if done.status == 0:
            return start
        assert "is over" in done.err, done
        ahead *= 2


async def _over(moment: datetime) -> bool:
    return datetime.now(UTC) > moment


async def quote(customer: Customer, **body: Any) -> Answer:
    return await customer.demo.http.post("/v1/quote", body, headers=customer.bearer())


USAGE = {"input_tokens": 1000, "cached_input_tokens": 200, "output_tokens": 300, "reasoning_tokens": 0}


# --- quotes


async def test_a_quote_for_a_usage_is_its_exact_price_line_by_line(customer: Customer) -> None:
    answer = await quote(customer, model=MODEL, usage=USAGE)

    expected = price_in_cents(MODEL, input_tokens=1000, cached_input_tokens=200, output_tokens=300)
    assert answer.status == 200
    assert answer.json["max_hold_cents"] == expected
    for price in (answer.json["price"], answer.json["list_price"]):
        assert price["charged_cents"] == price["amount_cents"] == expected
        assert sum(line["amount_cents"] for line in price["lines"]) == expected
        assert [line["quantity"] for line in price["lines"]] == ["800", "200", "300"]


async def test_a_quote_for_a_request_and_a_dry_run_say_what_its_hold_takes_and_cost_nothing(customer: Customer) -> None:
    body = request(max_tokens=50)
    events, forwarded = await customer.demo.count_events(), await customer.demo.count_forwarded()
    quoted = await quote(customer, request=body)
    dry = await customer.demo.http.post(
        "/v1/chat/completions", body, headers={**customer.bearer(), "x-tollgate-dry-run": "true"}
    )
    assert (await customer.demo.count_events(), await customer.demo.count_forwarded()) == (events, forwarded)
    served = await customer.demo.http.post("/v1/chat/completions", body, headers=customer.bearer())

    held = await customer.demo.fetch(
        "SELECT (payload ->> 'amount_microcents')::bigint AS amount FROM events WHERE hold_id = $1 AND type = $2",
        served.headers["x-tollgate-hold-id"],
        "hold.placed",
    )
    assert (quoted.status, dry.status, served.status) == (200, 200, 200)
    assert quoted.json["max_hold_cents"] == dry.json["max_hold_cents"] == Decimal(held[0]["amount"]) / 10**6
    assert quoted.json["price"]["charged_cents"] == quoted.json["max_hold_cents"]
    assert quoted.json["usage"]["output_tokens"] == 50


async def test_what_cannot_be_quoted_says_why(customer: Customer) -> None:
    wrong = {
        "usage": [{}, {"usage": USAGE, "request": request()}],
        "model": [{"usage": USAGE}],
        "output_tokens": [{"model": MODEL, "usage": {"input_tokens": 1, "cached_input_tokens": 0}}],
        "input_tokens": [{"model": MODEL, "usage": {**USAGE, "input_tokens": value}} for value in (-1, "1", None)],
        "operation": [{"operation": "nonsense", "request": request()}],
        "as_of": [{"model": MODEL, "usage": USAGE, "as_of": "tomorrow"}],
    }
    for param, bodies in wrong.items():
        for body in bodies:
            answer = await quote(customer, **body)
            assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_request", param), body
    assert (await quote(customer, model="nobody", usage=USAGE)).error["code"] == "model_not_priced"
    assert (await quote(customer, model=MODEL, usage=USAGE, as_of="2001-01-01T00:00:00Z")).status == 404
    assert (await quote(customer, model=MODEL, usage=USAGE, account_id="acct_of_another")).status == 403
    too_many_cached = await quote(customer, model=MODEL, usage={**USAGE, "cached_input_tokens": 1001})
    assert (too_many_cached.status, too_many_cached.error["code"]) == (400, "invalid_request")
    assert (await customer.demo.http.post("/v1/quote", {"model": MODEL, "usage": USAGE})).status == 401


async def test_a_fraction_in_a_usage_is_priced_exactly(demo: RunningDemo, customer: Customer) -> None:
    version = await publish(demo, program("0.1", name="fractions"))
    await assign(demo, version, "--account", customer.account_id)

    answer = await quote(
        customer,
        model=MODEL,
        usage={**USAGE, "input_tokens": Decimal("0.1"), "cached_input_tokens": 0, "output_tokens": 0},
    )

    assert answer.json["price"]["charged_cents"] == 1


# --- prices of plans and accounts, of the time of day, and in another currency


async def test_a_plan_counts_from_the_next_request_on(demo: RunningDemo, customer: Customer) -> None:
    version = await publish(demo, program("0.0001", name="pro-price"))
    await assign(demo, version, "--plan", "pro")
    before = await customer.chat(max_tokens=3)

    changed = await demo.command("account", "plan", customer.account_id, "pro")
    during = await asyncio.gather(*(customer.chat(max_tokens=3, messages=unique_prompt()) for _ in range(12)))
    quotes = [(await quote(customer, model=MODEL, usage=USAGE)).json for _ in range(12)]
    back = await demo.command("account", "plan", customer.account_id)
    after = await customer.chat(max_tokens=3)

    assert (changed.status, back.status) == (0, 0)
    for answer in (before, after):
        assert _cost(answer) == price_of_usage(MODEL, answer.json["usage"])
    for answer in during:
        assert _cost(answer) == Decimal(answer.json["usage"]["total_tokens"]) / 100
    for quoted in quotes:  # whichever worker is asked
        assert (quoted["price"]["charged_cents"], quoted["price"]["program"]) == (13, version)
        assert quoted["list_price"]["charged_cents"] < 13


async def test_a_program_can_tell_the_time_of_the_hold_and_the_plan(demo: RunningDemo, customer: Customer) -> None:
    more = '[defaults]\nplan = "none"\n[[adjustments]]\nname = "all day"\nfactor = 2\n'
    more += "when = \"hour >= 0 and hour <= 23 and weekday >= 1 and weekday <= 7 and plan == 'pro'\""
    head, charges = program("0.0001", name="by-the-clock").split("[[charges]]")
    version = await publish(demo, f"{head}[[charges]]{charges}" + more.replace('[defaults]\nplan = "none"\n', ""))
    await demo.command("account", "plan", customer.account_id, "pro")
    await assign(demo, version, "--account", customer.account_id)

    answer = await customer.chat(max_tokens=3)

    assert _cost(answer) == Decimal(answer.json["usage"]["total_tokens"]) / 50
    stored = await demo.fetch(
        "SELECT payload -> 'usage' AS usage, payload ->> 'placed_at' AS placed_at FROM events"
        " WHERE hold_id = $1 AND type = 'hold.settled'",
        answer.headers["x-tollgate-hold-id"],
    )
    usage, placed_at = json.loads(stored[0]["usage"]), datetime.fromisoformat(stored[0]["placed_at"])
    assert (usage["plan"], usage["hour"], usage["weekday"]) == ("pro", placed_at.hour, placed_at.isoweekday())


async def test_a_price_in_another_currency_is_converted_and_without_a_rate_refused(
    demo: RunningDemo, customer: Customer
) -> None:
    version = await publish(demo, program("0.0003", name="euro", currency="EUR"))
    await assign(demo, version, "--account", customer.account_id)
    events = await demo.count_events()

    refused = await customer.chat(max_tokens=3)
    assert (refused.status, refused.error["code"]) == (404, "model_not_priced")
    assert await demo.count_events() == events

    start = await _from_soon(demo, "rate", "EUR", "USD", "0.1412")
    await until(lambda: _over(start))
    answer = await customer.chat(max_tokens=3)
    quoted = (await quote(customer, model=MODEL, usage=USAGE)).json["price"]

    assert _cost(answer) == Decimal(answer.json["usage"]["total_tokens"]) * Decimal("0.03") * Decimal("0.1412")
    assert (quoted["currency"], quoted["exchange_rate"]) == ("EUR", Decimal("0.1412"))
    pinned = await demo.fetch(
        "SELECT payload ->> 'exchange_rate' AS rate FROM events WHERE hold_id = $1 AND type = 'hold.placed'",
        answer.headers["x-tollgate-hold-id"],
    )
    assert pinned[0]["rate"] == "0.1412"
    assert (quoted["amount_cents"], quoted["charged_cents"]) == (39, Decimal("5.5068"))


# --- a change at one moment


async def test_a_price_change_at_one_moment_charges_each_request_by_the_version_it_was_held_under(
    demo: RunningDemo, customer: Customer
) -> None:
    """Over four workers, with requests in flight on both sides of the moment."""
    old, new = [await publish(demo, program(price, name="midnight")) for price in ("0.0001", "0.0002")]
    await assign(demo, old, "--account", customer.account_id)
    midnight = datetime.now(UTC) + 2 * KNOWN_EVERYWHERE_AFTER
    await prices(demo, "assign", new, MODEL, "--account", customer.account_id, "--from", midnight.isoformat())

    slow = asyncio.create_task(_streams_over(customer, midnight))
    answers: list[Answer] = []
    while datetime.now(UTC) < midnight + timedelta(seconds=1):
        answers += await asyncio.gather(
            *(customer.chat(max_tokens=2, simulate={"token_latency_ms": 60}) for _ in range(4))
        )
    await slow

    lines = await demo.fetch(
        "SELECT p.at AS placed_at, p.payload -> 'price' ->> 'version' AS held_under,"
        " s.payload -> 'price' ->> 'version' AS charged_under, (s.payload ->> 'amount_microcents')::bigint AS amount,"
        " (s.payload -> 'usage' ->> 'input_tokens')::bigint + (s.payload -> 'usage' ->> 'output_tokens')::bigint"
        " AS tokens, s.at AS settled_at FROM events p JOIN events s ON s.hold_id = p.hold_id"
        " AND s.type = 'hold.settled' WHERE p.type = 'hold.placed' AND p.stream_id = $1",
        customer.account_id,
    )
    assert all(answer.status == 200 for answer in answers)
    assert {line["held_under"] for line in lines} == {"1", "2"}
    for line in lines:
        assert line["held_under"] == line["charged_under"]
        assert line["amount"] == line["tokens"] * {"1": 10_000, "2": 20_000}[line["held_under"]]
        # The price is looked up when the hold is asked for, a moment before it is placed.
        if line["placed_at"] < midnight:
            assert line["held_under"] == "1"
    crossed = [line for line in lines if line["placed_at"] < midnight < line["settled_at"]]
    assert crossed


async def _streams_over(customer: Customer, moment: datetime) -> None:
    """Slow streams that begin a second before the moment and end after it."""
    await until(lambda: _over(moment - timedelta(seconds=1)))
    streams = [customer.chat(stream=True, max_tokens=20, simulate={"token_latency_ms": 100}) for _ in range(3)]
    for answer in await asyncio.gather(*streams):
        assert answer.status == 200


# --- the book on the command line


async def test_the_book_is_told_and_written_out_by_the_command_line(demo: RunningDemo, tmp_path: Path) -> None:
    version = await publish(demo, program("0.5", name="told"))
    await prices(demo, "assign", version, "told-model", "--operation", "ocr", "--by", "anna")
    jump = demo.directory.home / "jump.toml"
    jump.write_text(program("500_000", name="told"))

    refused = await demo.command("prices", "publish", str(jump))
    confirmed = await demo.command("prices", "publish", str(jump), "--confirm")
    history = await prices(demo, "history", "--program", "told")
    text = await prices(demo, "show", version)
    exported = demo.directory.home / "exported"
    await prices(demo, "export", str(exported))
    await prices(demo, "retire", version, "--from", "2099-01-01")
    at = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    shown = [(await prices(demo, "show", "--at", moment)).out for moment in (at, "2098-12-31", "2099-01-01")]

    assert (refused.status, confirmed.status) == (1, 0)
    assert "confirm" in refused.err
    assert "0.5" in refused.err
    assert re.search(rf"{version} prices told-model  ocr  for everybody from \S+  by anna", history.out)
    assert text.out == program("0.5", name="told") == (exported / f"{version}.toml").read_text()
    assert "told-model,ocr,,,told,1," in (exported / "assignments.csv").read_text()
    assert [f"told-model  ocr  {version}  USD" in out for out in shown] == [True, True, False]


async def test_wrong_commands_say_what_is_wrong(demo: RunningDemo) -> None:
    version = await publish(demo, program("0.5", name="wrong"))
    for arguments, complaint in (
        (("assign", "wrong@7", MODEL), "wrong@7 has not been published"),
        (("assign", version, MODEL, "--from", "2001-01-01"), "is over"),
        (("assign", version, MODEL, "--from", "soon"), "'soon' is no moment"),
        (("retire", "wrong"), "'wrong' is no program version"),
        (("rate", "CNY", "CNY", "1"), "needs no rate"),
        (("rate", "CNY", "USD", "-1"), "above zero"),
        (("rate", "CNY", "USD", "much"), "'much' is no number"),
    ):
        done = await demo.command("prices", *arguments)
        assert done.status in (1, 2)
        assert complaint in done.err
        assert "Traceback" not in done.err


# --- Yuanjing's words


async def yuanjing(customer: Customer, path: str, body: Any, **headers: str) -> Answer:
    return await customer.demo.http.post(path, body, headers=headers or customer.bearer())


async def test_a_pricing_program_is_tested_with_a_usage(demo: RunningDemo, customer: Customer) -> None:
    path = "/pricing/test_pricing_program.dspy"
    own = await publish(demo, program("0.25", name="own"))
    await assign(demo, own, "--account", customer.account_id)
    hidden = await publish(demo, program("0.01", name="somebody-elses"))
    tokens = {"input_tokens": 3, "output_tokens": 1}

    for ppid in (own, "own"):
        answer = await yuanjing(customer, path, {"ppid": ppid, "data": tokens})
        expected = {"status": "ok", "data": {"ppid": ppid, "data": tokens, "result": 1}}
        assert (answer.status, answer.json) == (200, expected)
    lacking = await yuanjing(customer, path, {"ppid": own, "data": {"input_tokens": 3}})
    assert (lacking.status, lacking.json["status"]) == (200, "error")
    assert "output_tokens" in lacking.json["data"]["message"]
    for ppid in (hidden, "own@2", "own@x", "@1", ""):
        assert (await yuanjing(customer, path, {"ppid": ppid, "data": tokens})).json["status"] == "error"
    assert await until(lambda: _tested_by_operator(demo, customer, hidden, tokens)) == Decimal("0.04")
    malformed = await customer.demo.http.call("POST", path, raw=b"{", headers=customer.bearer())
    assert (malformed.status, malformed.json["status"]) == (400, "error")
    nobody = await yuanjing(customer, path, {"ppid": own, "data": tokens}, Authorization="Bearer tg_wrong")
    assert (nobody.status, nobody.json["status"]) == (401, "error")


async def _tested_by_operator(demo: RunningDemo, customer: Customer, ppid: str, usage: dict[str, int]) -> Any:
    """The result, once the worker that was asked has heard of the program."""
    body = {"ppid": ppid, "data": usage}
    answer = await yuanjing(customer, "/pricing/test_pricing_program.dspy", body, **demo.operator)
    return answer.json["data"].get("result")


async def test_a_product_price_is_the_lists_and_the_customers(demo: RunningDemo, customer: Customer) -> None:
    path = "/platformbiz/product_query_price.dspy"
    listed = price_in_cents(MODEL, input_tokens=1000, cached_input_tokens=200, output_tokens=300) / 100
    version = await publish(demo, program("0.0001", name="special"))
    await assign(demo, version, "--account", customer.account_id)

    answer = await yuanjing(customer, path, {"product_type": "llm", "product_id": MODEL, "config_data": USAGE})
    unknown = await yuanjing(customer, path, {"product_type": "llm", "product_id": "no", "config_data": USAGE})
    other = await yuanjing(customer, path, {"product_type": "car", "product_id": MODEL, "config_data": USAGE})

    assert answer.json == {
        "status": "ok",
        "data": {"list_price": listed, "price": Decimal("0.13"), "config_data": USAGE},
    }
    assert (unknown.status, unknown.json["status"]) == (404, "error")
    assert (other.status, other.json["status"]) == (400, "error")


def _cost(answer: Answer) -> Decimal:
    assert answer.status == 200, answer
    return Decimal(answer.headers["x-tollgate-cost-cents"])


# --- the document


def document_section(title: str) -> str:
    text = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text()
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def snippets(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def test_the_commands_of_the_document_run_as_they_stand(demo: RunningDemo, customer: Customer) -> None:
    first_program = snippets((Path(__file__).parents[2] / "docs" / "pricing.md").read_text(), "toml")[0]
    (demo.directory.home / "qwen3-32b.toml").write_text(first_program)
    for name in ("pro", "special"):
        await publish(demo, program("0.0001", name=name))
    [commands] = snippets(document_section("The price book"), "sh")

    for line in commands.splitlines():
        words = shlex.split(line.replace("acct_01m7…", customer.account_id), comments=True)
        assert words[0] == "tollgate"
        done = await demo.command(*words[1:], *(("--confirm",) if words[2] == "assign" else ()))
        assert (done.status, done.err) == (0, ""), line


async def test_the_quotes_of_the_document_are_answered(customer: Customer) -> None:
    bodies = snippets(document_section("Quotes"), "json")
    assert len(bodies) == 2
    for body in bodies:
        assert (await quote(customer, **json.loads(body))).status == 200


@pytest.mark.money_bug(9)
async def test_what_the_program_could_not_price_is_refused_before_it_is_served(
    demo: RunningDemo, customer: Customer
) -> None:
    text = program("1", name="short-prompts")
    text = text[: text.index("price = ")] + 'prices = [{ when = "input_tokens <= 300", price = 0.00001 }]\n'
    await assign(demo, await publish(demo, text), "--account", customer.account_id)
    events, forwarded = await demo.count_events(), await demo.count_forwarded()
    long = [{"role": "user", "content": "x" * 400}]

    for stream in (False, True):
        refused = await customer.chat(messages=long, max_tokens=3, stream=stream)
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")
        assert "input_tokens" in refused.error["param"]
    assert (await demo.count_events(), await demo.count_forwarded()) == (events, forwarded)


@pytest.mark.parametrize("said", ["maybe", "2", "tru e"])
async def test_a_dry_run_that_cannot_be_told_from_a_real_one_is_refused(customer: Customer, said: str) -> None:
    answer = await customer.demo.http.post(
        "/v1/chat/completions", request(max_tokens=3), headers={**customer.bearer(), "x-tollgate-dry-run": said}
    )
    assert (answer.status, answer.error["param"]) == (400, "x-tollgate-dry-run")


async def test_a_usage_does_not_say_which_plan_it_is_priced_on(demo: RunningDemo, customer: Customer) -> None:
    more = '[[adjustments]]\nname = "pro"\nwhen = "plan == \'pro\'"\nfactor = 0.1\n'
    text = program("0.001", name="by-plan", more='[defaults]\nplan = "free"') + more
    await assign(demo, await publish(demo, text), "--account", customer.account_id)

    claimed = await quote(customer, model=MODEL, usage={**USAGE, "plan": "pro", "hour": 3})

    assert claimed.json["price"]["charged_cents"] == 130
    assert claimed.json["max_hold_cents"] == 130


async def test_an_operation_that_nobody_prices_is_not_quoted(customer: Customer) -> None:
    answer = await quote(customer, model=MODEL, usage=USAGE, operation="no.such.operation")

    assert (answer.status, answer.error["param"]) == (400, "operation")
