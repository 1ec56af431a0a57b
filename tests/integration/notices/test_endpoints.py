"""Who says where an account's notices go, what may be said, and what is kept of it."""

import asyncio
import base64
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from ledger import Ledger
from notices import Targets
from notices.endpoints import MAX_ENDPOINTS
from tests.conftest import Clock

from .conftest import ENDPOINTS, Customer, Office, open_office

URL = "https://93.184.215.14/hook"


class SlowTargets(Targets):
    """Whose names are resolved when a test says so."""

    def __init__(self, *, allow_http: bool, allow_private: bool) -> None:
        super().__init__(allow_http=allow_http, allow_private=allow_private)
        self.is_asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def check(self, text: str) -> None:
        if not self.answers.is_set():
            self.is_asked.set()
        await self.answers.wait()


async def test_an_endpoint_is_made_listed_changed_and_deleted(office: Office, customer: Customer) -> None:
    made = await office.add(customer, URL, events=["topup.credited", "balance.low"])
    path = f"{ENDPOINTS}/{made['id']}"
    listed = (await office.call("GET", ENDPOINTS, customer.secret)).body
    changed = await office.call("PATCH", path, customer.secret, {"events": None, "disabled": True})
    moved = await office.call("PATCH", path, customer.secret, {"url": f"{URL}/2", "disabled": False})
    one = await office.call("GET", path, customer.secret)
    deleted = await office.call("DELETE", path, customer.secret)

    assert made["secret"].startswith("whsec_")
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    assert listed == [{name: value for name, value in made.items() if name != "secret"}]
    assert (made["url"], made["events"], made["disabled"]) == (URL, ["topup.credited", "balance.low"], False)
    assert (changed.body["url"], changed.body["events"]) == (URL, None)
    assert (changed.body["disabled"], changed.body["disabled_reason"]) == (True, "disabled by the account")
    assert (moved.body["url"], moved.body["disabled"], moved.body["disabled_reason"]) == (f"{URL}/2", False, None)
    assert one.body == moved.body
    assert deleted.status == 204
    assert (await office.call("GET", path, customer.secret)).code == "not_found"
    assert (await office.call("GET", ENDPOINTS, customer.secret)).body == []


async def test_what_a_change_does_not_name_stays_also_when_it_is_changed_meanwhile(
    ledger: Ledger, clock: Clock
) -> None:
    targets = SlowTargets(allow_http=True, allow_private=True)
    async with open_office(ledger, clock, targets) as office:
        customer = await office.customer()
        path = f"{ENDPOINTS}/{(await office.add(customer, URL))['id']}"
        targets.answers.clear()
        moving = asyncio.create_task(office.call("PATCH", path, customer.secret, {"url": f"{URL}/2"}))
        await targets.is_asked.wait()

        disabled = await office.call("PATCH", path, customer.secret, {"disabled": True, "events": ["topup.credited"]})
        targets.answers.set()
        moved = await moving

    assert (disabled.body["url"], disabled.body["disabled"], disabled.body["events"]) == (URL, True, ["topup.credited"])
    assert moved.body == {**disabled.body, "url": f"{URL}/2"}


async def test_an_endpoint_whose_host_is_gone_can_be_disabled(strict_office: Office, admin: asyncpg.Connection) -> None:
    customer = await strict_office.customer()
    path = f"{ENDPOINTS}/{(await strict_office.add(customer, URL))['id']}"
    await admin.execute("UPDATE webhook_endpoints SET url = 'https://nowhere.invalid/hook'")

    changed = await strict_office.call("PATCH", path, customer.secret, {"disabled": True})

    assert (changed.status, changed.body["disabled"]) == (200, True)


async def test_a_rotated_secret_is_another_one_and_the_former_ends_in_a_day(office: Office, customer: Customer) -> None:
    made = await office.add(customer, URL)

    rotated = (await office.call("POST", f"{ENDPOINTS}/{made['id']}/rotate_secret", customer.secret)).body

    assert rotated["secret"] != made["secret"]
    assert made["former_secret_until"] is None
    assert datetime.fromisoformat(rotated["former_secret_until"]) == office.clock.now + timedelta(hours=24)


async def test_nobody_else_sees_or_changes_an_endpoint(office: Office, customer: Customer) -> None:
    path = f"{ENDPOINTS}/{(await office.add(customer, URL))['id']}"
    stranger = await office.customer()

    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {"disabled": True}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate_secret", None),
    ):
        assert (await office.call(method, where, stranger.secret, body)).code == "not_found"
        assert (await office.call(method, where, None, body)).code == "unauthorized"
    assert (await office.call("GET", ENDPOINTS, stranger.secret)).body == []
    assert (await office.call("GET", path, customer.secret)).body["disabled"] is False


async def test_a_key_with_limits_sees_the_endpoints_and_cannot_change_them(office: Office, customer: Customer) -> None:
    path = f"{ENDPOINTS}/{(await office.add(customer, URL))['id']}"
    limited = await office.customer(rate_limit_rpm=10, account_id=customer.account_id)

    assert (await office.call("GET", path, limited.secret)).status == 200
    for method, where, body in (
        ("POST", ENDPOINTS, {"url": URL}),
        ("PATCH", path, {"disabled": True}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate_secret", None),
    ):
        assert (await office.call(method, where, limited.secret, body)).code == "forbidden"


async def test_an_account_has_so_many_endpoints_and_no_more_however_many_are_asked_for_at_once(
    office: Office, customer: Customer
) -> None:
    body = {"url": URL}

    answers = await asyncio.gather(
        *[office.call("POST", ENDPOINTS, customer.secret, body) for _ in range(MAX_ENDPOINTS + 5)]
    )

    assert sorted(answer.status for answer in answers) == [201] * MAX_ENDPOINTS + [409] * 5
    assert len((await office.call("GET", ENDPOINTS, customer.secret)).body) == MAX_ENDPOINTS


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.215.14/hook",
        "ftp://93.184.215.14/hook",
        "https:///hook",
        "https://:443/hook",
        "https://user:password@93.184.215.14/hook",
        "https://93.184.215.14/hook#part",
        "https://93.184.215.14:99999/hook",
        "https://[::1/hook",
        "hook",
        "https://nowhere.invalid/hook",
        "https://localhost/hook",
        "https://127.0.0.1/hook",
        "https://127.1/hook",
        "https://2130706433/hook",
        "https://0x7f000001/hook",
        "https://0.0.0.0/hook",
        "https://10.1.2.3/hook",
        "https://172.16.0.1/hook",
        "https://192.168.0.1/hook",
        "https://100.64.0.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://224.0.0.1/hook",
        "https://255.255.255.255/hook",
        "https://[::1]/hook",
        "https://[::]/hook",
        "https://[fe80::1]/hook",
        "https://[fd00::1]/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://[64:ff9b::127.0.0.1]/hook",
        "https://[2002:7f00:1::]/hook",
    ],
)
async def test_what_nothing_may_be_sent_to_is_refused(strict_office: Office, url: str) -> None:
    customer = await strict_office.customer()
    made = await strict_office.add(customer, URL)

    created = await strict_office.call("POST", ENDPOINTS, customer.secret, {"url": url})
    moved = await strict_office.call("PATCH", f"{ENDPOINTS}/{made['id']}", customer.secret, {"url": url})

    for answer in (created, moved):
        assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "invalid_request", "url")
    assert [line["url"] for line in (await strict_office.call("GET", ENDPOINTS, customer.secret)).body] == [URL]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": 1},
        {"url": ""},
        {"url": "https://93.184.215.14/ä"},
        {"url": "https://93.184.215.14/\u0000"},
        {"url": "https://93.184.215.14/" + "a" * 2048},
        {"url": URL, "events": []},
        {"url": URL, "events": ["hold.placed"]},
        {"url": URL, "secret": "whsec_mine"},
    ],
    ids=str,
)
async def test_a_body_that_is_none_is_refused_and_nothing_is_kept(
    office: Office, customer: Customer, body: Any
) -> None:
    answer = await office.call("POST", ENDPOINTS, customer.secret, body)

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert (await office.call("GET", ENDPOINTS, customer.secret)).body == []


async def test_no_secret_is_logged_or_stored_as_it_is(
    office: Office, customer: Customer, admin: asyncpg.Connection
) -> None:
    with capture_logs() as logs:
        made = await office.add(customer, URL)
        rotated = (await office.call("POST", f"{ENDPOINTS}/{made['id']}/rotate_secret", customer.secret)).body

    stored = [dict(row) for row in await admin.fetch("SELECT * FROM webhook_endpoints")]
    for secret in (made["secret"], rotated["secret"]):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        assert secret not in str(logs) + str(stored)
        assert not any(key in row["secret"] or secret.encode() in row["secret"] for row in stored)
    assert [log["event"] for log in logs] == ["webhook_endpoint.created", "webhook_endpoint.secret_rotated"]
