"""Notifications of Alipay that nobody should believe: made up, altered, signed by somebody else or, worse, by Alipay.

There is a trade that nobody paid and that Alipay has closed, so nothing that a notification says can make it right:
before a credit Alipay is asked.
"""

import itertools
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

import msgspec
from hypothesis import strategies as st

from payments.alipay.notifications import MAX_BODY
from simulated_alipay.signatures import KeyPair

from .alipay_till import NOBODYS, NOTIFY, THEIRS, AlipayTill, altered
from .conftest import Payer, require_unharmed

#: Who signs what was altered; None: nobody, it has the signature of before.
SIGNERS: dict[str, KeyPair | None] = {"alipay": THEIRS, "nobody": NOBODYS, "before": None}
#: What is done to a body after it was signed.
DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda body: body,
    "a field twice": lambda body: body + b"&total_amount=10.00",
    "utf-16": lambda body: body.decode().encode("utf-16"),
    "cut short": lambda body: body[:-1],
    "another kind of signature": lambda body: body.replace(b"sign_type=RSA2", b"sign_type=RSA"),
    "huge": lambda body: body + b"&x=" + b"x" * MAX_BODY,
    "json": lambda body: msgspec.json.encode(dict(parse_qsl(body.decode(errors="replace")))),
}

_words = st.sampled_from(
    [
        *("TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED", "WAIT_BUYER_PAY", "TRADE_PENDING", "RSA2", "\x00", ""),
        *("10.00", "0.01", "1e9", "-10.00", "10.001", "NaN", "2088000000000002", "topup_1", "'"),
    ]
)
_numbers = itertools.count()


class AlipayAttack(msgspec.Struct, frozen=True):
    """One notification: which one, which of its fields, what stands there instead, and who signs that."""

    notification: int
    field: int
    instead: str
    is_removed: bool
    signer: str
    disguise: str
    raw: bytes | None  # these bytes and nothing else


alipay_attacks = st.builds(
    AlipayAttack,
    notification=st.integers(0, 10),
    field=st.integers(0, 30),
    instead=_words | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    is_removed=st.booleans(),
    signer=st.sampled_from(["alipay", "alipay", "nobody", "before"]),
    disguise=st.sampled_from(["none"] * 8 + [*DISGUISES]),
    raw=st.none() | st.none() | st.none() | st.binary(max_size=300),
)


class AlipayTarget:
    """A till with a customer whose trade Alipay has closed, and notifications that say otherwise."""

    def __init__(self, till: AlipayTill, payer: Payer) -> None:
        self.till = till
        self.payer = payer
        paid = {"trade_status": "TRADE_SUCCESS", "gmt_payment": "2026-11-21 20:00:00"}
        self.told = [*till.told(), *(altered(body, THEIRS, **paid) for body in till.told())]

    @classmethod
    async def prepare(cls, till: AlipayTill) -> "AlipayTarget":
        payer = await till.payer()
        till.alipay.trades.close(await till.opened(payer))
        return cls(till, payer)

    async def suffer(self, attack: AlipayAttack) -> None:
        """Raises AssertionError when the attack did any harm."""
        body = attack.raw if attack.raw is not None else self._body(attack)
        async with self.till.client.post(NOTIFY, data=body) as answer:
            status = answer.status
        assert self.till.alipay_road is not None
        await self.till.alipay_road.inbox.close()
        is_believable = attack.raw is None and attack.signer == "alipay" and attack.disguise == "none"

        assert status == 400 or (status == 200 and is_believable), f"answered {status}"
        if status == 200:  # what was harmed stays so, and is found after the next one at the latest
            await require_unharmed(self.till, self.payer)

    def _body(self, attack: AlipayAttack) -> bytes:
        body = self.told[attack.notification % len(self.told)]
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
        names = [name for name in fields if name not in ("sign", "sign_type")]
        name = names[attack.field % len(names)]
        changed = {"notify_id": f"n{next(_numbers)}", name: attack.instead}
        if attack.is_removed:
            changed.pop(name)
            body = urlencode({each: value for each, value in fields.items() if each != name}).encode()
        return DISGUISES[attack.disguise](altered(body, SIGNERS[attack.signer], **changed))
