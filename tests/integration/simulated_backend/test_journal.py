"""The simulated backend knows what it really computed."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulated_backend.signatures import TEST_KEY, sign, verify
from tests.integration.simulated_backend.client import (
    MODEL,
    Client,
    running_backend,
    text_of,
)


async def test_the_journal_says_what_a_request_cost(backend: Client) -> None:
    answer = await backend.answer({"max_tokens": 9}, request_id="plain-1")

    record = await backend.record("plain-1")

    assert answer["id"] == "chatcmpl-plain-1"
    assert record["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert record["cached_tokens"] == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert (record["completion_tokens"], record["tokens_written"]) == (9, 9)
    assert (record["outcome"], record["status"], record["stream"], record["model"]) == ("finished", 200, False, MODEL)


async def test_the_journal_can_be_read_from_where_one_left_off(backend: Client) -> None:
    await backend.answer(request_id="before")
    seen = (await backend.record("before"))["sequence"]
    await backend.answer(request_id="after-1")
    await backend.answer(request_id="after-2")

    records = await backend.get(f"/_simulator/requests?since={seen}")

    assert [record["request_id"] for record in records] == ["after-1", "after-2"]


async def test_a_client_that_leaves_stops_the_generation(backend: Client) -> None:
    async with backend.post({"stream": True}, simulate="tokens=4000,token_latency_ms=5", request_id="left") as response:
        while b'"content":" ' not in await response.content.readline():
            pass
        assert [record["request_id"] for record in await backend.get("/_simulator/requests?running")] == ["left"]
        response.close()

    record = await backend.record("left")

    assert record["outcome"] == "aborted"
    assert 0 < record["tokens_written"] <= record["completion_tokens"] < 4000


async def test_a_client_that_reads_nothing_holds_the_generation_up(backend: Client) -> None:
    async with backend.post({"stream": True}, simulate="overrun=1000000", request_id="slow") as response:
        await response.content.readline()
        response.close()

    record = await backend.record("slow")

    assert record["outcome"] == "aborted"
    assert record["tokens_written"] <= record["completion_tokens"] < 1_000_000


async def test_a_plain_answer_that_nobody_reads_is_not_counted_as_written(backend: Client) -> None:
    async with backend.post({}, simulate="overrun=5000000", request_id="unread") as response:
        response.close()

    record = await backend.record("unread")

    assert (record["outcome"], record["completion_tokens"], record["tokens_written"]) == ("aborted", 5_000_000, 0)


async def test_a_client_that_leaves_a_plain_answer_stops_the_generation(backend: Client) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.2):
            await backend.answer(simulate="tokens=4000,token_latency_ms=10", request_id="impatient")

    record = await backend.record("impatient")

    assert record["outcome"] == "aborted"
    assert record["tokens_written"] == 0
    assert 0 < record["completion_tokens"] < 4000


# Its hashes


async def test_the_journal_has_the_hash_of_every_byte_and_of_the_content(backend: Client) -> None:
    async with backend.post({"n": 2}, request_id="hashed") as response:
        plain = await response.read()
    async with backend.post({"n": 2, "stream": True}, request_id="hashed-stream") as response:
        streamed = await response.read()
    choices = msgspec.json.decode(plain)["choices"]

    record, stream_record = await backend.record("hashed"), await backend.record("hashed-stream")

    assert (record["body_bytes"], record["body_sha256"]) == (len(plain), _sha256(plain))
    assert (stream_record["body_bytes"], stream_record["body_sha256"]) == (len(streamed), _sha256(streamed))
    content = _sha256("".join(choice["message"]["content"] for choice in choices).encode())
    assert record["content_sha256"] == stream_record["content_sha256"] == content


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_cut_off_has_the_hash_of_what_was_sent(backend: Client, stream: bool) -> None:
    name = f"hashed-cut-{stream}"

    received = await backend.received({"stream": stream}, simulate="close_after=4", request_id=name)

    record = await backend.record(name)
    body = received.partition(b"\r\n\r\n")[2]
    if stream:
        body = b"".join(line + b"\n\n" for line in body.split(b"\n") if line.startswith(b"data: "))
    assert (record["body_bytes"], record["body_sha256"]) == (len(body), _sha256(body))


async def test_the_content_of_a_stream_cut_off_is_what_was_generated(backend: Client) -> None:
    whole = text_of(await backend.events())

    async with backend.post({"stream": True}, simulate="silent_after=5", request_id="hashed-part") as response:
        await response.content.readuntil(b"\n\n")
        response.close()

    record = await backend.record("hashed-part")
    assert record["content_sha256"] == _sha256(" ".join(whole.split(" ")[: record["completion_tokens"]]).encode())


async def test_a_refusal_has_the_hash_of_its_body_and_no_content(backend: Client) -> None:
    async with backend.post({"n": 0}, request_id="hashed-refusal") as response:
        refusal = await response.read()

    record = await backend.record("hashed-refusal")

    assert (record["body_sha256"], record["content_sha256"]) == (_sha256(refusal), _sha256(b""))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Its signatures


async def test_every_record_is_signed_wherever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with running_backend("--journal", str(path), "--journal-key", "of this run", "--token-latency-ms", "0") as (_, url):
        async with aiohttp.ClientSession(url) as session:
            client = Client(url, session)
            await client.answer(request_id="signed")
            await client.answer({"n": 2}, request_id="signed-too")
            async with session.get("/_simulator/requests/signed") as response:
                alone = await response.read()
            async with session.get("/_simulator/requests") as response:
                listed = msgspec.json.decode(await response.read(), type=list[msgspec.Raw])
    written = path.read_bytes().splitlines(keepends=True)

    assert [bytes(each) + b"\n" for each in listed] == written
    assert alone + b"\n" == written[0]
    assert [verify(line, b"of this run") for line in written] == [True, True]
    assert [verify(line) for line in written] == [False, False]


RECORDS = st.dictionaries(st.text(), st.integers() | st.text(), min_size=1).map(msgspec.json.encode)


@given(record=RECORDS, position=st.integers(min_value=0), other=st.integers(min_value=1, max_value=255))
def test_a_record_with_any_byte_changed_is_not_the_one_signed(record: bytes, position: int, other: int) -> None:
    signed = sign(record, TEST_KEY)
    altered = bytearray(signed)
    altered[position % len(signed)] ^= other

    assert verify(signed)
    assert msgspec.json.decode(signed)["signature"]
    assert not verify(bytes(altered))


@pytest.mark.parametrize("unsigned", [b"", b"{}", b'{"sequence":1}', b'{"sequence":1,"signature":""}'])
def test_what_has_no_signature_is_not_signed(unsigned: Any) -> None:
    assert not verify(unsigned)
