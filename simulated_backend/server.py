"""The routes of the backend, and its life from listening to the last closed connection."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from simulated_backend.answering import SILENCE_LIMIT_S
from simulated_backend.chat import error_body
from simulated_backend.connection import Connection, Request
from simulated_backend.faults import BadWish, FaultBoard
from simulated_backend.journal import Journal, Record
from simulated_backend.serving import ChatService, Options
from simulated_backend.tokenizing import TokenizeService

CHAT_PATH: Final = "/v1/chat/completions"
TOKENIZE_PATH: Final = "/tokenize"
FAULTS_PATH: Final = "/_simulator/faults"
RECORDS_PATH: Final = "/_simulator/requests"


class Simulator:
    """Answers every request there is; give ``answer`` to each ``Connection``."""

    def __init__(self, options: Options, board: FaultBoard, journal: Journal) -> None:
        self._options = options
        self._board = board
        self._journal = journal
        self._chat = ChatService(options, board, journal)
        self._tokenize = TokenizeService(options.models, options.context_length, board)
        self._started = int(time.time())

    def answer(self, connection: Connection, request: Request) -> None:
        """Serve a request on its connection."""
        if request.path == CHAT_PATH and request.method == "POST":
            self._chat.begin(connection, request)
            return
        match request.method, request.path:
            case "GET", "/health":
                self._health(connection)
            case "POST", path if path == TOKENIZE_PATH:
                self._tokenize.begin(connection, request)
            case "GET", "/v1/models":
                connection.send(200, msgspec.json.encode(self._models()))
            case (("GET" | "POST"), path) if path == FAULTS_PATH:
                self._faults(connection, request)
            case "GET", path if path == RECORDS_PATH:
                self._records(connection, request)
            case "GET", path if path.startswith(f"{RECORDS_PATH}/"):
                record = self._journal.find(path.removeprefix(f"{RECORDS_PATH}/"))
                connection.send(200 if record else 404, self._journal.line(record) if record else b"null")
            case _:
                connection.send(404, msgspec.json.encode({"detail": "Not Found"}))

    def _health(self, connection: Connection) -> None:
        match self._board.standing.health:
            case "up":
                connection.send(200, b"")
            case "down":
                connection.send(503, b"")
            case "hang":
                connection.serve_on(asyncio.sleep(SILENCE_LIMIT_S), lambda task: None)

    def _models(self) -> dict[str, Any]:
        about = {
            "object": "model",
            "created": self._started,
            "owned_by": "simulated_backend",
            "parent": None,
            "max_model_len": self._options.context_length,
            "permission": [],
        }
        models = [{"id": model, "root": model, **about} for model in self._options.models]
        return {"object": "list", "data": models}

    def _faults(self, connection: Connection, request: Request) -> None:
        try:
            if request.method == "POST":
                self._board.replace(msgspec.json.decode(request.body, type=dict[str, Any]))
        except (BadWish, msgspec.DecodeError) as error:
            connection.send(400, error_body(400, str(error), kind="BadWish"))
        else:
            connection.send(200, msgspec.json.encode(self._board.standing))

    def _records(self, connection: Connection, request: Request) -> None:
        query = parse_qs(request.query, keep_blank_values=True)
        since = query.get("since", ["0"])[0]
        if "running" in query:
            connection.send(200, self._array(self._journal.running()))
        elif since.isdigit():
            connection.send(200, self._array(self._journal.since(int(since))))
        else:
            connection.send(400, error_body(400, f"since must be a sequence number, got {since!r}", kind="BadQuery"))

    def _array(self, records: list[Record]) -> bytes:
        return b"[%b]" % b",".join(self._journal.line(record) for record in records)


async def serve(
    simulator: Simulator, *, host: str, port: int, until: asyncio.Event, ready: Callable[[int], None]
) -> None:
    """Serve until the event is set. ``ready`` is told the port, which the system chooses when ``port`` is 0."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(simulator.answer, connections), host, port, backlog=1024)
    ready(server.sockets[0].getsockname()[1])
    await until.wait()
    server.close()
    if unfinished := [task for connection in connections if (task := connection.stop())]:
        await asyncio.wait(unfinished)
