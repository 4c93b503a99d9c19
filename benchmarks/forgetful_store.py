"""An S3 server that accepts every upload and discards it, so that it costs as little as possible.

    python -m benchmarks.forgetful_store

It keeps only the names of manifests, because conditional writes need them. Prints its port, and ends when standard
input does.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks import measure

_BEGUN = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
_DONE = b"<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>"
_EMPTY = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
_MANIFEST = "/manifest.json"


class Forgetful(BaseHTTPRequestHandler):
    """Handler of one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    known: set[str]
    room = memoryview(bytearray(1 << 20))

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def handle_any(self) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            left -= self.rfile.readinto(self.room[: min(left, len(self.room))])
        status, body = self._answer()
        self.send_response_only(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[int, bytes]:
        match self.command:
            case "POST":
                return 200, _BEGUN if "uploads" in self.path else _DONE
            case "GET" if "list-type" in self.path:
                return 200, _EMPTY
            case "PUT" if self.path.endswith(_MANIFEST) and self.path in self.known:
                return 412, b""
            case "PUT":
                self.known.add(self.path)
                return 200, b""
        return 404, b""

    do_GET = do_PUT = do_POST = handle_any  # noqa: N815 - the names that the base class calls


@contextmanager
def running() -> Iterator[str]:
    """Run the server on the first core for the length of the block; yield its address."""
    command = [sys.executable, "-m", "benchmarks.forgetful_store"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


def main() -> None:
    """Serve until standard input ends."""
    measure.pin(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Forgetful,), {"known": set()}))
    server.daemon_threads = True
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
