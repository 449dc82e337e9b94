"""A real HTTP proxy between a reader and a server, which makes the network as bad as one likes.

request -> latency -> failed? hung up on? -> the server, or files of a folder -> cut short? a byte flipped? -> answer

`Disturbance` says what goes wrong, and may be exchanged at any time. What is random comes from the seed alone.
"""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ERRORS = {
    401: ("AuthorizationHeaderMalformed", "Unauthorized"),
    403: ("AccessDenied", "Access Denied"),
    429: ("SlowDownPlease", "Too Many Requests"),
    500: ("InternalError", "We encountered an internal error"),
    503: ("ServiceUnavailable", "Service is unavailable"),
}
HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """What goes wrong."""

    latency: float = 0.0
    """Seconds before a request is looked at."""
    failures: float = 0.0
    """Share of requests that fail, 0 to 1."""
    statuses: tuple[int, ...] = (500, 503)
    """How they fail; 0: the connection is closed without an answer."""
    hang: float = 0.0
    """Share of requests that are not answered until the proxy is closed."""
    cut: float = 0.0
    """Share of bodies that end after half of their bytes, while the header promises all."""
    short: float = 0.0
    """Share of bodies that are half as long, and whose header says so."""
    flip: float = 0.0
    """Share of bodies of which a byte in every 4096 is changed."""
    only: str = ""
    """A regular expression; requests whose path it is not found in are left alone, but for the latency."""
    times: int | None = None
    """How many requests are meant; those after them are left alone too."""


class DisturbingProxy:
    """See the module.

    Args:
        source: The server's address, or a folder whose files are served, by ranges too.
        seed: Of everything random.

    Attributes:
        disturbance: What goes wrong now.
        requests: How often each path was asked for, by "METHOD /path".
        bytes_sent: Bytes of all bodies.
        port: Where it listens, on this machine.
    """

    def __init__(self, source: str | Path, seed: int = 0) -> None:
        self.source = source
        self.disturbance = Disturbance()
        self.requests: Counter[str] = Counter()
        self.bytes_sent = 0
        self._meant = 0
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening, and let go whom it left hanging."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.requests.clear()
            self.bytes_sent = self._meant = 0

    def count(self, what: str) -> None:
        """Count a request."""
        with self._lock:
            self.requests[what] += 1

    def means_another(self, times: int | None) -> bool:
        """Return whether a request is among the first `times` since counting began."""
        with self._lock:
            self._meant += 1
            return times is None or self._meant <= times

    def chance(self, share: float) -> bool:
        """Return whether something that happens to a share of requests happens to this one."""
        if not share:
            return False
        with self._lock:
            return self._dice.random() < share

    def pick(self, count: int) -> int:
        """Return a random number below `count`."""
        with self._lock:
            return self._dice.randrange(count)

    def sent(self, n_bytes: int) -> None:
        """Count bytes of a body."""
        with self._lock:
            self.bytes_sent += n_bytes

    def hang(self) -> None:
        """Return when the proxy is closed."""
        self._closing.wait()


@contextmanager
def disturbing(source: str | Path, seed: int = 0) -> Iterator[DisturbingProxy]:
    """Give a proxy for a while."""
    proxy = DisturbingProxy(source, seed)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: that connections break is what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    owner: DisturbingProxy
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 1 << 20  # headers and body leave together
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""

    def handle_expect_100(self) -> bool:
        """Ask for the body, at once."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def _answer(self) -> None:
        """Disturb a request, and answer it if it is still to be answered."""
        owner, how = self.owner, self.owner.disturbance
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        owner.count(f"{self.command} {unquote(urlsplit(self.path).path)}")
        time.sleep(how.latency)
        if not re.search(how.only, self.path) or not owner.means_another(how.times):
            how = Disturbance()
        if owner.chance(how.hang):
            owner.hang()
            self.close_connection = True
        elif owner.chance(how.failures):
            self._fail(how.statuses[owner.pick(len(how.statuses))])
        elif isinstance(owner.source, Path):
            self._send(*self._file(owner.source), how)
        else:
            self._send(*self._forward(owner.source, body), how)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _fail(self, status: int) -> None:
        """Answer with an error as S3 words it, or not at all."""
        if not status:
            self.close_connection = True
            return
        code, said = ERRORS[status]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()
        headers = {"Content-Type": "application/xml"}
        if self.command == "HEAD":
            headers, body = {"Content-Length": "0"}, b""
        self._send(status, headers, body, Disturbance())

    def _forward(self, server: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return what the server answers; each thread keeps its connection to it."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
        connection = self._connection(server)
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_HEADERS}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length", "0")
        return answer.status, kept, answer.read()

    def _connection(self, server: str) -> HTTPConnection:
        """Return this client's connection to the server."""
        if not hasattr(self, "_upstream"):
            self._upstream = HTTPConnection(urlsplit(server).netloc, timeout=self.timeout)
        return self._upstream

    def finish(self) -> None:
        """Close the connections of a client that has gone."""
        if hasattr(self, "_upstream"):
            self._upstream.close()
        super().finish()

    def _file(self, folder: Path) -> tuple[int, dict[str, str], bytes]:
        """Return a file of a folder, or a range of one."""
        path = folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not path.is_file():
            return 404, {}, b""
        size = path.stat().st_size
        if self.command == "HEAD":
            return 200, {"Content-Length": str(size), "Accept-Ranges": "bytes"}, b""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), min(size, int(asked[2]) + 1)) if asked else (0, size)
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            body = file.read(stop - start)
        return (206, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, body) if asked else (200, {}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes, how: Disturbance) -> None:
        """Send an answer, or what the disturbance leaves of it."""
        owner = self.owner
        if body and owner.chance(how.flip):
            changed = bytearray(body)
            for place in range(owner.pick(min(len(body), 4096)), len(body), 4096):
                changed[place] ^= 0x10
            body = bytes(changed)
        if body and owner.chance(how.short):
            body = body[: len(body) // 2]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        if body and owner.chance(how.cut):
            body = body[: len(body) // 2]
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        owner.sent(len(body))
