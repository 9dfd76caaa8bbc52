"""A small HTTP server that speaks OpenAI's protocol of chat completions, and can be told to misbehave."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Reply = tuple[int, Any]
"""Status and body; a body that is no dict is sent as it is."""


class ChatServer:
    """What was asked, and what to answer: `reply(request, number)` gives the reply to each request."""

    def __init__(self, reply: Callable[[Request, int], Reply]) -> None:
        self.reply, self.requests, self.keys = reply, list[Request](), set[str | None]()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, request: Request, key: str | None) -> Reply:
        with self.lock:
            self.requests.append(request)
            self.keys.add(key)
            number = len(self.requests)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.reply(request, number)
        finally:
            with self.lock:
                self.at_once -= 1


def completion(texts: list[Any]) -> Reply:
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(texts)
    ]
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}


def error(status: int, message: str) -> Reply:
    return status, {"error": {"message": message, "type": "error", "param": None, "code": None}}


def several(request: Request, number: int) -> Reply:
    """As many different answers as are asked for."""
    prompt = request["messages"][0]["content"]
    return completion([f"answer {number} {i} to: {prompt}" for i in range(request["n"])])


@contextmanager
def serving(reply: Callable[[Request, int], Reply] = several) -> Iterator[ChatServer]:
    chat = ChatServer(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            status, body = chat.handle(request, self.headers.get("Authorization"))
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
