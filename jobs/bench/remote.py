"""Speed of a stream from a server, on a good network and on a bad one.

text -> store -> S3 server or web server -> a proxy in a process of its own, quiet or disturbing -> ByteStream, an epoch
    cold: the cache of pages is empty        warm: all pages are in it

Servers, proxy and reader share this machine, so rates say little about real networks; what counts is the ratio.
"""

import importlib.util
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from bytropix.datasets.store import PartLayout, Store, open_storage
from bytropix.datasets.stream import ByteStream
from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.disturbing_proxy import Disturbance, disturbing
from bytropix.jobs.bench.ingest import write_files
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

WINDOW, BATCH = 4096, 32
TIMES = 4  # the text's size in `megabytes`: several parts, and more than one round of the order
BAD = Disturbance(latency=0.02, failures=0.05)
BAD_WORDS = "20 ms more latency and 5 % failures"
LEAST = 0.7
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}


class _Proxy:
    """A proxy in another process, so that it does not wait for this one's lock."""

    def __init__(self, source: str | Path, ours: "Connection[object, object]") -> None:
        self.source, self._ours = source, ours
        self.url = str(ours.recv())

    def use(self, disturbance: Disturbance) -> None:
        """Make the network so from now on."""
        self._ours.send(disturbance)
        self._ours.recv()


def bench_remote(settings: BenchSettings) -> list[BenchRow]:
    """Measure cold epochs, disturbed and not in turns, and warm ones, from an S3 server and from a web server."""
    text = some_text(settings.data, int(TIMES * settings.megabytes * 1e6))
    write_files(settings.folder / "texts", text)
    path = settings.folder / "corpus.bx"
    ingest_bytes([settings.folder / "texts"], path, IngestConfig(layout=PartLayout(codec="zstd"), val_fraction=0))
    rows = []
    if importlib.util.find_spec("moto") and importlib.util.find_spec("s3fs"):
        with _s3_server() as server, _proxy(server) as proxy:
            _upload(path, server, "bench")
            os.environ["AWS_ENDPOINT_URL"] = proxy.url
            rows += _rows("S3 server", "s3://bench/corpus.bx", proxy, settings)
    else:
        why = "not measured: No module named 'moto' or 's3fs'; pip install 'bytropix[test]'"
        rows.append(BenchRow(name="remote: S3 server", value=None, unit="MB/s", note=why))
    with _proxy(settings.folder) as proxy:
        rows += _rows("web server", f"{proxy.url}/corpus.bx", proxy, settings)
    return rows


def _rows(name: str, url: str, proxy: _Proxy, settings: BenchSettings) -> list[BenchRow]:
    """Measure one server."""
    rates: dict[str, list[float]] = {"quiet": [], "bad": [], "warm": []}
    for turn in range(settings.repeats + 1):  # the first compiles, and warms the server
        for kind in ("quiet", "bad") if turn % 2 else ("bad", "quiet"):
            proxy.use(BAD if kind == "bad" else Disturbance())
            with _environment({"BYTROPIX_CACHE": str(settings.folder / f"{name}-{turn}-{kind}")}):
                found = {kind: _epoch(url)}
                if kind == "quiet":
                    found["warm"] = _epoch(url)
            for what, rate in found.items() if turn else ():
                rates[what].append(rate)
    note = f"zstd, rows of {WINDOW}, batch {BATCH}, an epoch of {TIMES * settings.megabytes:.0f} MB of an opened store"
    cold = BenchRow(
        name=f"remote: cold epoch, {name}, {BAD_WORDS}",
        value=statistics.median(rates["bad"]),
        unit="MB/s",
        baseline=statistics.median(rates["quiet"]),
        ratio=statistics.median(bad / quiet for bad, quiet in zip(rates["bad"], rates["quiet"], strict=True)),
        against="the same without them",
        targets=(Target("ratio", ">=", LEAST),),
        note=note,
    )
    warm = statistics.median(rates["warm"])
    return [cold, BenchRow(name=f"remote: warm epoch, {name}", value=warm, unit="MB/s", note=note)]


def _epoch(url: str) -> float:
    """Return the MB/s of an epoch, the first batch included."""
    store = Store.open(url)
    began = time.perf_counter()
    stream = ByteStream(store, context=WINDOW - 1, batch=BATCH, last="short", epochs=1)
    n_bytes = sum(batch.n_bytes for batch in stream)
    return n_bytes / 1e6 / (time.perf_counter() - began)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _upload(store: Path, server: str, bucket: str) -> None:
    """Copy a store into a new bucket of an S3 server."""
    connection = HTTPConnection(urlsplit(server).netloc)
    with closing(connection):
        connection.request("PUT", f"/{bucket}")
        connection.getresponse().read()
    target = open_storage(f"s3://{bucket}/{store.name}")
    for path in sorted(store.rglob("*")):
        if path.is_file():
            target.write(path.relative_to(store).as_posix(), path.read_bytes())


@contextmanager
def _s3_server() -> Iterator[str]:
    """Give the address of a real S3-compatible server in a process of its own; the environment holds keys for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with ExitStack() as stack:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        stack.enter_context(_environment({**KEYS, "AWS_ENDPOINT_URL": url}))
        patience = time.monotonic() + 60
        while time.monotonic() < patience and server.poll() is None:
            with socket.socket() as test:
                if test.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield url


@contextmanager
def _proxy(source: str | Path) -> Iterator[_Proxy]:
    """Give a proxy for a while."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(source, theirs), daemon=True)
    process.start()
    try:
        yield _Proxy(source, ours)
    finally:
        process.kill()
        process.join()


def _serve(source: str | Path, theirs: "Connection[object, object]") -> None:
    """Run a proxy, and disturb as told."""
    with disturbing(source) as proxy:
        theirs.send(proxy.url)
        while True:
            told = theirs.recv()
            if isinstance(told, Disturbance):
                proxy.disturbance = told
            theirs.send(None)
