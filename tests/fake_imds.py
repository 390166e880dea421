"""An instance metadata service of the tests' own, version 2 only, over HTTP."""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN_PATH = "/latest/api/token"
IDENTITY = "/latest/dynamic/instance-identity/document"
SPOT = "/latest/meta-data/spot/instance-action"
EVENTS = "/latest/meta-data/events/maintenance/scheduled"


class FakeImds:
    """Serve `documents` (path → value, written as JSON; text as it is) to those who bring a token of ours."""

    def __init__(
        self, instance: str = "i-0123456789abcdef0", *, region: str = "eu-central-1", account: str = "123456789012"
    ) -> None:
        self.instance = instance
        self.documents: dict[str, Any] = {
            IDENTITY: {
                "instanceId": instance, "region": region, "accountId": account,
                "instanceType": "m7i.xlarge", "availabilityZone": f"{region}a",
            },
            EVENTS: [],
        }  # fmt: skip
        self.tokens: set[str] = set()
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                outer.asked.append(f"PUT {self.path}")
                if self.path != TOKEN_PATH or not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
                    return self._answer(400, b"")
                token = secrets.token_hex(8)
                outer.tokens.add(token)
                return self._answer(200, token.encode())

            def do_GET(self) -> None:
                outer.asked.append(f"GET {self.path}")
                if self.headers.get("X-aws-ec2-metadata-token") not in outer.tokens:
                    return self._answer(401, b"")
                if self.path not in outer.documents:
                    return self._answer(404, b"<html>404 - Not Found</html>")
                value = outer.documents[self.path]
                return self._answer(200, value.encode() if isinstance(value, str) else json.dumps(value).encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
