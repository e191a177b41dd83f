"""Those who are told: a web server that hears what is posted to it, and one that takes mail."""

from __future__ import annotations

import email
import email.policy
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socketserver import BaseServer


@dataclass(kw_only=True)
class People:
    """What was posted to the web server, path and JSON, and what came by mail, subject and text."""

    web_port: int = 0
    mail_port: int = 0
    posted: list[tuple[str, dict[str, Any]]] = field(
        default_factory=list[tuple[str, dict[str, Any]]]
    )
    mail: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def told(self) -> list[tuple[str, str]]:
        """Subject and text of what came in our own form."""
        return [(it["subject"], it["body"]) for path, it in self.posted if path == "/people"]


@contextmanager
def listening() -> Iterator[People]:
    """Listen on loopback."""
    people = People()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            people.posted.append((self.path, content))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    class Mailbox(StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 loopback")
            while line := self.rfile.readline().strip():
                match line[:4].upper():
                    case b"DATA":
                        self._say("354 go on")
                        self._keep(b"".join(iter(self.rfile.readline, b".\r\n")))
                        self._say("250 kept")
                    case b"QUIT":
                        return self._say("221 bye")
                    case _:
                        self._say("250 well")
            return None

        def _say(self, words: str) -> None:
            self.wfile.write(f"{words}\r\n".encode())

        def _keep(self, content: bytes) -> None:
            message = email.message_from_bytes(content, policy=email.policy.default)
            people.mail.append((message["Subject"], message.get_content()))

    web = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    mail = ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    people.web_port, people.mail_port = web.server_port, mail.server_address[1]
    with _serving(web), _serving(mail):
        yield people


@contextmanager
def _serving(server: BaseServer) -> Iterator[None]:
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
