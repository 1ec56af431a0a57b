import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import Tokens
from accounts.tokens import kind_of

TOKENS = Tokens(b"s" * 32)


@pytest.mark.parametrize(("kind", "prefix"), [("key", "tg_"), ("session", "tgs_"), ("service", "tgo_")])
def test_a_secret_tells_its_kind_and_carries_256_random_bits(kind: str, prefix: str) -> None:
    secret = TOKENS.make(kind)  # type: ignore[arg-type]

    assert re.fullmatch(prefix + r"[A-Za-z0-9_-]{43}", secret.text)
    assert kind_of(secret.text) == kind
    assert secret.prefix == secret.text[:10]


def test_no_two_secrets_are_alike() -> None:
    assert len({TOKENS.make("key").text for _ in range(1000)}) == 1000


def test_a_secret_is_found_under_its_hash() -> None:
    secret = TOKENS.make("key")

    assert TOKENS.hash(secret.text) == secret.hash
    assert len(secret.hash) == 32


def test_the_hash_depends_on_the_server_secret() -> None:
    assert Tokens(b"t" * 32).hash("tg_x") != TOKENS.hash("tg_x")


def test_a_short_server_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        Tokens(b"short")


def test_the_text_does_not_show_in_a_representation() -> None:
    secret = TOKENS.make("key")

    assert secret.text not in repr(secret)


@given(st.text(st.characters()))
def test_any_header_text_has_a_hash_and_hardly_any_is_a_secret(text: str) -> None:
    """aiohttp decodes headers with surrogateescape, so that any byte string arrives as a text."""
    header = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")

    assert len(TOKENS.hash(header)) == 32
    assert kind_of(header) is None
