"""A demo that sells models of every kind, from a backend that its tests may do to what they like."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.acceptance.client import Http
from tests.acceptance.customers import MODEL
from tests.acceptance.running_demo import RunningDemo, place_for_demo

#: Its backends do not count along: what a client got of a stream is counted by them afterwards.
TOKENIZED = "tokenized"
#: Its backends count at the end only, and are listened to for so long when the client has gone.
DRAINED = "drained"
DRAIN_S = 1
#: Its holds begin with few tokens, and grow by as many.
SLICED = "sliced"
SLICE_TOKENS = 64
#: Its backend is given up when it says nothing for so long.
IMPATIENT = "impatient"
PATIENT_FOR_S = 1
MAX_TOKENS = 8192

_MODELS: dict[str, dict[str, Any]] = {
    TOKENIZED: {"partial_usage": "tokenize"},
    DRAINED: {"partial_usage": "drain", "drain_s": DRAIN_S},
    SLICED: {"hold_slice_tokens": SLICE_TOKENS},
    IMPATIENT: {},
}


@asynccontextmanager
async def varied_demo(**server: Any) -> AsyncIterator[RunningDemo]:
    """A demo with one worker, these settings of its server, and the models above at the price of ``MODEL``."""
    async with place_for_demo() as directory, _backend() as url:
        demo = await RunningDemo.start(directory, workers=1)
        try:
            await demo.backend.close()
            demo.backend = Http(url)
            _write_settings(demo, url, server)
            for model in _MODELS:
                assigned = await demo.command("prices", "assign", f"{MODEL}@1", model)
                assert assigned.status == 0, assigned
            workers = demo.gate_workers
            for worker in workers:  # new settings are read by new workers
                os.kill(worker, signal.SIGTERM)
            await demo.until_workers_serve(instead_of=workers)
            yield demo
        finally:
            await demo.kill()


@asynccontextmanager
async def _backend() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulated_backend", "--port", "0", "--die-with-parent"),
        *("--models", ",".join((MODEL, *_MODELS))),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None  # it is a pipe
        port = msgspec.json.decode(await process.stdout.readline(), type=dict[str, int])["port"]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


def _write_settings(demo: RunningDemo, backend_url: str, server: dict[str, Any]) -> None:
    text = demo.settings_file.read_text().replace(demo.information.backend_url, backend_url)
    text = text.replace("[server]\n", f"[server]\n{_fields(server)}")
    limits = {"context_length": 32_768, "max_output_tokens": MAX_TOKENS, "default_output_tokens": 2048}
    for model, own in _MODELS.items():
        text += f"\n[[models]]\n{_fields({'id': model, **limits, **own})}"
    patient = {"name": "varied-gpu", "url": backend_url, "models": [TOKENIZED, DRAINED, SLICED]}
    impatient = {"name": "impatient-gpu", "url": backend_url, "models": [IMPATIENT]}
    for backend in (patient, {**impatient, "silence_timeout_s": PATIENT_FOR_S}):
        text += f"\n[[backends]]\n{_fields(backend)}"
    demo.settings_file.write_text(text)


def _fields(fields: dict[str, Any]) -> str:
    """As TOML: of these values it writes none otherwise than JSON does."""
    return "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in fields.items())
