"""Stores of hostile content and of films, and a browser without a network that is spoken to over a pipe."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.store import (
    FORMAT_VERSION,
    VIDEO_VERSION,
    FileRecord,
    Manifest,
    PartArrays,
    PartLayout,
    SourceRecord,
    SourceSpan,
    Store,
    VideoArrays,
    VideoLayout,
    doc_meta_line,
    open_storage,
    publish,
    video_meta_line,
    write_part,
    write_patcher,
    write_video_part,
)
from bytropix.datasets.store.manifest import quarantine_name
from bytropix.patching import PatchConfig, fit_patcher

SECONDS = 30
ATTACK = "<script>document.title='owned'</script><img src=http://127.0.0.1:9/leak onerror=alert(1)>"
HOSTILE = {
    f"dir/{ATTACK}.txt": f"{ATTACK} & {{{{ 7 * 7 }}}} {{% raw %}} </p></article></style> ]]> &lt;b&gt; ".encode() * 40,
    "dir/controls\x1b[31m\n\u202e\udce9.bin": bytes(range(256)) * 12,
    "dir/עברית.txt": ("שלום עולם, זה טקסט מימין לשמאל 123 abc. " * 40 + "\u202e\u2066 never closed").encode(),
    "dir/العربية.txt": ("مرحبا بالعالم، هذا نص من اليمين إلى اليسار. " * 40).encode(),
    "dir/marks.txt": ("z" + "\u0301\u0322\u034f\u0489" * 30 + " \u0e33\u0e49 กิ่ง हिन्दी ").encode() * 20,
    "dir/" + "long" * 200: b"x" * 3000 + b"ACGT" * 900,
    "dir/broken.txt": b"\xc3\x28 \xf0\x9f\x98 \xed\xa0\x80 \xc0\xaf caf\xe9 \x00\x00\x00" * 60,
}
REFUSED = [
    {"path": f"dir/{ATTACK}.gz", "reason": f"truncated gzip stream after 17 bytes {ATTACK}", "bytes_read": 17},
    {"path": "dir/other.gz", "reason": f"truncated gzip stream after 1,048 bytes {ATTACK}", "bytes_read": 1048},
    {"path": "dir/a.zip", "record": "../../etc/passwd", "reason": "a path that climbs out", "bytes_read": 3},
]
Make = Callable[..., Store]
# Films: name, first frame in the video, lengths of scenes; by split and part. The long one goes on in the second part.
FILMS = {
    "train": (
        (("films/walk.mp4", 0, (24, 16)), (f"films/{ATTACK}.mp4", 0, (30,)), ("films/long.mp4", 0, (20,))),
        (("films/long.mp4", 20, (12,)),),
    ),
    "val": ((("films/one\x1b[31m\n\u202e.mp4", 0, (1,)),),),
}
FILM_REFUSED = [
    {"path": f"films/{ATTACK}.mp4", "reason": f"no video stream {ATTACK}", "bytes_read": 17},
    {"path": "films/cut.mp4", "reason": "truncated after 48 frames", "bytes_read": 1048, "frames_read": 48},
    {"path": "films/short.mp4", "reason": "truncated after 7 frames", "bytes_read": 99, "frames_read": 7},
]
FILM_FPS, FILM_CLIP = 25.0, 8
NO_NETWORK = ("--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>", "--host-resolver-rules=MAP * ~NOTFOUND")


class Browser:
    """Headless Chromium, driven through the DevTools protocol over a pipe; a page at a time."""

    def __init__(self, program: str, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        # The browser reads descriptor 3 and writes 4: both ends move out of the way of those first.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (ours[0], theirs[1])]

        def place() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        flags = ["--headless=new", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self.process = subprocess.Popen(
            [program, *flags, *NO_NETWORK, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*ends, ours[0], theirs[1]):
            os.close(end)
        self._out, self._in = ours[1], theirs[0]
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """Send a command and return its answer; what happens in between goes to `events`."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == number:
                assert "error" not in found, found
                return dict(found["result"])
            self.events.append(found)

    def open(self, url: str, *, width: int, height: int, dark: bool = False) -> None:
        """Load a page in a window of this size, the narrow ones as a phone does, and wait until it is there."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, script: str) -> Any:
        """Return what an expression gives in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        """Return what is to be seen, or the whole page, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for since it was opened."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """What the protocol says of each request that failed."""
        return [event["params"] for event in self.events if event.get("method") == "Network.loadingFailed"]

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.ask("Browser.close")
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._out)
            os.close(self._in)

    def _receive(self) -> dict[str, Any]:
        """Return the next message, or fail where none comes."""
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            assert piece, "the browser has gone or says nothing"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))


@pytest.fixture(scope="session")
def make_store() -> Make:
    """Return what writes a store of a document a source, in parts of so many documents."""

    def make(
        place: Path,
        documents: dict[str, bytes],
        *,
        refused: list[dict[str, Any]] | None = None,
        dropped: dict[str, int] | None = None,
        in_part: int = 4,
        layout: PartLayout | None = None,
    ) -> Store:
        storage, layout = open_storage(place), layout or PartLayout()
        patcher = fit_patcher([*documents.values(), b"a small sample of text"], PatchConfig())
        settings, table = write_patcher(storage, patcher)
        names, parts = list(documents), []
        for number, first in enumerate(range(0, len(names), in_part)):
            spans, texts, lines = [], [], []
            for name in names[first : first + in_part]:
                text = documents[name]
                _, starts = patcher(text)
                spans.append(_span(name, starts))
                texts.append(np.frombuffer(text, np.uint8))
                lines.append(doc_meta_line(source=name, offset=0, record=f"row of {name}"))
            ends = np.cumsum([len(text) for text in texts])
            text = np.concatenate(texts)
            entropy, starts = patcher.patch(text, ends)
            lengths = np.bincount(np.diff(np.append(np.flatnonzero(starts), len(text))))
            parts.append(
                write_part(
                    storage,
                    "train",
                    layout.part_name(number),
                    PartArrays(text, entropy, starts, ends, b"".join(lines)),
                    layout=layout,
                    spans=tuple(spans),
                    patch_lengths=tuple(lengths.tolist()),
                )
            )
        rows = "".join(json.dumps(row) + "\n" for row in refused or []).encode()
        storage.write("quarantine.jsonl", rows)
        out = sum((dropped or {}).values()) + len(refused or [])
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            kind="bytes",
            config={"val_fraction": 0.0, "read": {"column": ATTACK, "kind": ""}},
            patcher=settings,
            babylon=table,
            sources=tuple(SourceRecord(name=name, size=len(text), sha256="0") for name, text in documents.items()),
            parts=tuple(parts),
            quarantine=FileRecord(path="quarantine.jsonl", size=len(rows), sha256=FileRecord.hash_of(rows)),
            quarantined=len(refused or []),
            documents_in=len(documents) + out,
            dropped=dropped or {},
        )
        publish(storage, manifest)
        return Store.open(place)

    return make


def _span(name: str, starts: np.ndarray[Any, np.dtype[np.bool_]]) -> SourceSpan:
    """Return the span of a source that is one document."""
    lengths = np.diff(np.append(np.flatnonzero(starts), len(starts)))
    return SourceSpan(
        source=name,
        n_bytes=len(starts),
        documents=1,
        patches=len(lengths),
        at_cap=int((lengths >= 64).sum()),
        single=int((lengths == 1).sum()),
    )


@pytest.fixture(scope="session")
def hostile(make_store: Make, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store whose names, text and refusals try to break a page; not to be changed."""
    place = tmp_path_factory.mktemp("hostile") / "<b>&'\" s.bx"
    return make_store(place, HOSTILE, refused=REFUSED, dropped={"duplicate": 5, "<i>cause</i>": 2})


def film_arrays(videos: tuple[tuple[str, int, tuple[int, ...]], ...], height: int, width: int) -> VideoArrays:
    """Return a part of dark frames on which a bright square walks right; its motion region is exactly the square.

    Regions: the frame, its left golden part, padding, and a small square, which counts as a spiral's patch.
    """
    lengths = [sum(scenes) for _, _, scenes in videos]
    frames = np.full((sum(lengths), height, width, 3), (40, 60, 90), np.uint8)
    motion = np.zeros((len(frames), 2, 4), np.float32)
    numbers = np.concatenate(
        [np.arange(first, first + count) for (_, first, _), count in zip(videos, lengths, strict=True)]
    )
    side = height // 4
    for frame, box, number in zip(frames, motion, numbers.tolist(), strict=True):
        left, top = 2 * number % (width - side), height // 2
        frame[top : top + side, left : left + side] = (230, 230, 220)
        box[0] = left, top, left + side, top + side
    regions = np.zeros((len(frames), 4, 4), np.float32)
    regions[:, 0], regions[:, 1] = (0, 0, width, height), (0, 0, round(width / 1.618), height)
    regions[:, 3] = 11 * width // 16, 8, 27 * width // 32, 28
    meta = [
        video_meta_line(
            source=name,
            frames=count,
            first=first,
            fps=FILM_FPS,
            duration=count / FILM_FPS,
            width=1920,
            height=1080,
            codec="h264",
            decoder="pyav",
            bad_packets=3 if "walk" in name else 0,
            corrupt=2 if "walk" in name else 0,
        )
        for (name, first, _), count in zip(videos, lengths, strict=True)
    ]
    scenes = [length for _, _, parts in videos for length in parts]
    return VideoArrays(
        frames=frames,
        regions=regions,
        motion=motion,
        pts=numbers / FILM_FPS,
        video_ends=np.cumsum(lengths),
        scene_ends=np.cumsum(scenes),
        video_meta=b"".join(meta),
    )


@pytest.fixture(scope="session")
def make_films() -> Make:
    """Return what writes a store of films: see FILMS and `film_arrays`."""

    def make(
        place: Path,
        films: dict[str, Any] | None = None,
        *,
        refused: list[dict[str, Any]] | None = None,
        layout: VideoLayout | None = None,
        shape: tuple[int, int] = (96, 128),
    ) -> Store:
        films, layout = FILMS if films is None else films, layout or VideoLayout()
        storage = open_storage(place)
        parts, sources = [], []
        for split, listed in films.items():
            for number, videos in enumerate(listed):
                arrays = film_arrays(videos, *shape)
                spans = tuple(
                    SourceSpan(
                        source=name,
                        n_bytes=sum(scenes) * shape[0] * shape[1] * 3,
                        documents=1,
                        patches=0,
                        at_cap=0,
                        single=0,
                    )
                    for name, _, scenes in videos
                )
                name = layout.part_name(number)
                parts.append(
                    write_video_part(storage, split, name, arrays, layout=layout, clip_frames=FILM_CLIP, spans=spans)
                )
                sources += [name for name, _, _ in videos]
        rows = "".join(json.dumps(row) + "\n" for row in refused or []).encode()
        storage.write(quarantine_name(1), rows)
        regions = {"regions": 4, "decomposition": "hybrid", "rule": "golden_cut", "select": "largest"}
        manifest = Manifest(
            format_version=VIDEO_VERSION,
            kind="video",
            config={"clip_frames": FILM_CLIP, "stride": 4, "regions": {**regions, "motion_regions": 2}},
            patcher={},
            babylon=(),
            sources=tuple(SourceRecord(name=name, size=9, sha256="0" * 64) for name in sorted(set(sources))),
            parts=tuple(parts),
            quarantine=FileRecord(path=quarantine_name(1), size=len(rows), sha256=FileRecord.hash_of(rows)),
            quarantined=len(refused or []),
            documents_in=len(set(sources)) + len(refused or []) + 1,
            dropped={"nothing <i>left</i>": 1},
        )
        publish(storage, manifest)
        return Store.open(place)

    return make


@pytest.fixture(scope="session")
def films(make_films: Make, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store of films, with names that try to break a page; not to be changed."""
    return make_films(tmp_path_factory.mktemp("films") / "<b>&'\" f.bx", refused=FILM_REFUSED)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a headless Chromium without a network; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = os.environ.get("BYTROPIX_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian package chromium); BYTROPIX_CHROMIUM names one elsewhere")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()
