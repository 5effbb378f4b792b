"""An OpenAI-compatible server on loopback that answers as a function says and keeps requests."""

import json
import os
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

RESET = object()
"""In place of an answer: the connection is reset, as by a firewall or a server that has crashed."""


class Answering:
    """A server: its address, and the bodies of the requests that it was sent, in their order."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/v1"
        self.asked = []
        self.paths = []


def chat(text="x", finish_reason="stop", model="m-1", **usage):
    """Return the body of an answer; ``usage`` as servers call it."""
    choice = {"message": {"content": text}, "finish_reason": finish_reason}
    return {"choices": [choice], "model": model, **({"usage": usage} if usage else {})}


@contextmanager
def answering(reply):
    """Serve until the end of the block.

    ``reply(body)`` is an answer, or (status, answer), or (status, answer, headers); an answer in
    bytes is sent as it is. It may be RESET.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            server.paths.append(self.path)
            told = reply(body)
            if told is RESET:
                at_once = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                os.close(self.connection.detach())
                return
            status, answer, *more = told if isinstance(told, tuple) else (200, told)
            self.send_response(status)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Answering(http.server_port)
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
