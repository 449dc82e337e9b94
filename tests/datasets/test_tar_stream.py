"""Tars read once, in order, from pipes and web servers: the store's bytes in rows, and nothing lost in silence."""

import io
import itertools
import json
import shlex
import sys
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from bytropix.datasets import ByteBatch, TarStream
from bytropix.datasets.store import PartArrays, PartLayout, doc_meta_line, open_storage, write_part
from bytropix.datasets.store.tar_part import SAMPLE_BYTES, encode_part
from bytropix.errors import ConfigError, StoreError

ENDS = ([1, 9, 1000, 2000 + SAMPLE_BYTES, 3000 + SAMPLE_BYTES], [700, 701, 3000])
SMALL = [100, 600, 601, 2000]
WIDTH, BATCH = 1001, 48
CAT = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read()); sys.exit(int(sys.argv[2]))"


def part_of(ends: list[int], seed: int) -> PartArrays:
    """Return a part of noise."""
    generator = np.random.default_rng(seed)
    text = generator.integers(0, 256, ends[-1], dtype=np.uint8)
    starts = generator.random(ends[-1]) < 0.2
    lines = [doc_meta_line(source="a.txt", offset=begin) for begin in [0, *ends[:-1]]]
    return PartArrays(text, text % 90, starts, np.array(ends), b"".join(lines))


PARTS = [part_of(ends, seed) for seed, ends in enumerate(ENDS)]
TEXT = np.concatenate([part.text for part in PARTS])
STARTS = np.concatenate([part.starts for part in PARTS])


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two parts, as our writer leaves them, with their indexes; do not change them."""
    folder = tmp_path_factory.mktemp("tars")
    layout = PartLayout(format="webdataset")
    for number, part in enumerate(PARTS):
        name = layout.part_name(number)
        write_part(open_storage(folder), "train", name, part, layout=layout, spans=(), patch_lengths=(0, 1))
    return sorted((folder / "parts" / "train").glob("*.tar"))


def stream_of(sources: Any, **settings: Any) -> TarStream:
    """Return a stream of small batches."""
    return TarStream(sources, **{"context": WIDTH - 1, "batch": BATCH, **settings})


def joined(batches: list[ByteBatch]) -> tuple[bytes, bytes]:
    """Return the data of batches, and its starts as flags."""
    masks = [batch.data for batch in batches]
    text = torch.cat([batch.bytes[mask] for batch, mask in zip(batches, masks, strict=True)])
    starts = torch.cat([batch.starts[mask] for batch, mask in zip(batches, masks, strict=True)])
    return text.numpy().tobytes(), starts.numpy().tobytes()


def wanted(text: np.ndarray = TEXT, starts: np.ndarray = STARTS, width: int = WIDTH) -> tuple[bytes, bytes]:
    """Return what rows must hold; each opens with a patch."""
    flags = starts.copy()
    flags[::width] = True
    return text.tobytes(), flags.tobytes()


def pipe(path: Path, code: int = 0) -> str:
    """Return a source that is the output of a process, which ends with an exit code."""
    return f"pipe:{shlex.quote(sys.executable)} -c {shlex.quote(CAT)} {shlex.quote(str(path))} {code}"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder; a path that ends in -cut gives the first half of what was announced."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        if not self.path.endswith("-cut"):
            super().do_GET()
            return
        data = (Path(self.directory) / self.path[1:].removesuffix("-cut")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])


@pytest.fixture
def served(tars: list[Path]) -> Iterator[str]:
    """The URL of a web server that knows no ranges, over the folder of the tars."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tars[0].parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def in_memory(tars: list[Path]) -> Iterator[str]:
    """The URL of an object store with the tars and no index."""
    url = f"memory://{uuid.uuid4().hex}"
    files, root = fsspec.core.url_to_fs(url)
    for path in tars:
        files.pipe_file(f"{root}/{path.name}", path.read_bytes())
    yield url
    files.rm(root, recursive=True)


@pytest.mark.parametrize("kind", ["path", "text", "pipe", "http", "object store", "open file", "one pipe for both"])
def test_every_road_gives_the_bytes_of_the_parts(kind: str, tars: list[Path], served: str, in_memory: str) -> None:
    """Whatever it comes through, the rows are the parts' bytes and starts, end to end."""
    roads: dict[str, Callable[[], list[Any]]] = {
        "path": lambda: list(tars),
        "text": lambda: [str(path) for path in tars],
        "pipe": lambda: [pipe(path) for path in tars],
        "http": lambda: [f"{served}/{path.name}" for path in tars],
        "object store": lambda: [f"{in_memory}/{path.name}" for path in tars],
        "open file": lambda: [io.BytesIO(path.read_bytes()) for path in tars],
        "one pipe for both": lambda: [f"pipe:cat {tars[0]} {tars[1]}"],
    }
    batches = list(stream_of(roads[kind]()))

    assert joined(batches) == wanted()
    assert sum(batch.n_bytes for batch in batches) == TEXT.size


def test_standard_input(tars: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`cat *.tar | program` with "-" as the source; input stays open."""
    with (tars[0]).open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        batches = list(stream_of("-"))

        assert joined(batches) == wanted(PARTS[0].text, PARTS[0].starts)
        assert not sys.stdin.buffer.closed
        sys.stdin.detach()


def test_batches_are_as_those_of_a_byte_stream(tars: list[Path]) -> None:
    """Full batches, then a short one whose last row is short; padding is zeros, bits and patches fit the starts."""
    batches = list(stream_of(tars))
    rows = -(-TEXT.size // WIDTH)
    last = batches[-1]

    assert [len(batch.bytes) for batch in batches] == [BATCH] * (rows // BATCH) + [rows % BATCH]
    assert [batch.position for batch in batches] == list(range(0, rows, BATCH))
    assert last.lengths.tolist() == [WIDTH] * (rows % BATCH - 1) + [TEXT.size % WIDTH]
    assert not last.bytes[-1, TEXT.size % WIDTH :].any()
    for batch in batches:
        assert batch.bits.shape == (len(batch.bytes), 8 * -(-WIDTH // 64))
        assert bool(batch.starts[:, 0].all())
        assert batch.patches == int(batch.starts[:, : WIDTH - 1].sum(1).max())
        assert not batch.starts[~batch.data].any()


@pytest.mark.parametrize("compressed", [False, True])
def test_tars_of_plain_webdataset(compressed: bool, tmp_path: Path) -> None:
    """Tars of webdataset's own writer, with whatever other fields, are read; a command may unpack them."""
    path = tmp_path / ("theirs.tar.gz" if compressed else "theirs.tar")
    lengths = [5, 0, 2000, 7, 1500]
    cuts = list(itertools.pairwise([0, *np.cumsum(lengths).tolist()]))
    with webdataset.TarWriter(str(path), encoder=False, compress=compressed) as writer:
        for number, (begin, end) in enumerate(cuts):
            sample = {"starts": np.packbits(STARTS[begin:end], bitorder="little").tobytes(), "cls": b"1"}
            writer.write({"__key__": f"a/{number}", **sample, "bytes": TEXT[begin:end].tobytes()})
    batches = list(stream_of(f"pipe:gzip -dc {path}" if compressed else path))

    assert joined(batches) == wanted(TEXT[: sum(lengths)], STARTS[: sum(lengths)])


def small_index() -> bytes:
    """Return the index of the small tar."""
    return b"".join(encode_part(part_of(SMALL, 5), "00000.tar")[0].pieces)


def small_tar() -> tuple[bytes, list[int]]:
    """Return a tar of ours with four short documents, and where its members' headers begin."""
    _, stored = encode_part(part_of(SMALL, 5), "00000.tar")
    data = b"".join(stored.pieces)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        return data, [member.offset for member in members] + [tar.offset]


def test_a_cut_anywhere_is_noticed() -> None:
    """In a header, in a payload, and where webdataset notices nothing: on the edge of a member or a sample."""
    data, edges = small_tar()
    end = edges[-1]
    cuts = {place for edge in edges for place in (edge, edge + 1, edge + 300, edge + 512, edge + 513) if place <= end}
    for cut in sorted(cuts):
        with pytest.raises(StoreError, match="BytesIO") as found:
            list(stream_of(io.BytesIO(data[:cut])))

        assert found.value.offset is not None
        assert found.value.offset <= cut
    assert len(cuts) > 60


def test_cut_member_names_the_place(tars: list[Path], tmp_path: Path) -> None:
    """The message says which source, and how far it goes."""
    path = tmp_path / "cut.tar"
    path.write_bytes(tars[0].read_bytes()[:200_000])
    with pytest.raises(StoreError, match=rf"{path}: truncated tar: it ends at byte 200,000, inside a member"):
        list(stream_of(path))


def without(data: bytes, begin: int, end: int) -> bytes:
    """Return bytes without some."""
    return data[:begin] + data[end:]


@pytest.mark.parametrize("lost", range(16))
def test_a_lost_member_is_noticed(lost: int) -> None:
    """A tar of ours from which one member is cut out, header and all, is not whole."""
    data, edges = small_tar()
    with pytest.raises(StoreError, match=r"at byte [\d,]+, (has no member|has members|is not the next)"):
        list(stream_of(io.BytesIO(without(data, edges[lost], edges[lost + 1]))))


@pytest.mark.parametrize("lost", range(4))
def test_a_lost_sample_is_noticed(lost: int, tmp_path: Path) -> None:
    """So is one without a whole sample, the last one too, and one where zeros are in its place.

    With zeros for its last document it is what a tar of one document less looks like; then the index tells.
    """
    data, edges = small_tar()
    begin, end = edges[4 * lost], edges[4 * lost + 4]
    blank = data[:begin] + bytes(end - begin) + data[end:]
    (tmp_path / "blank.tar").write_bytes(blank)
    (tmp_path / "blank.index").write_bytes(small_index())
    for harmed in (without(data, begin, end), *([blank] if lost < 3 else [])):
        with pytest.raises(StoreError, match=r"is not the next sample|are lost there"):
            list(stream_of(io.BytesIO(harmed)))
    with pytest.raises(StoreError, match=r"are lost"):
        list(stream_of(tmp_path / "blank.tar"))


def test_samples_out_of_order_are_noticed() -> None:
    """Two samples exchanged, one twice, a tar that follows an unfinished one."""
    data, edges = small_tar()
    first, second = data[: edges[4]], data[edges[4] : edges[8]]
    for harmed in (second + first + data[edges[8] :], first + first + second + data[edges[8] :]):
        with pytest.raises(StoreError, match=r"is not the next sample|comes twice"):
            list(stream_of(io.BytesIO(harmed)))


def test_a_flipped_bit_in_a_header_is_noticed() -> None:
    """Each bit of a header that its checksum covers; the checksum's own end may be spelled in more ways than one."""
    data, edges = small_tar()
    missed = []
    for place in range(512):
        flipped = bytearray(data)
        flipped[edges[4] + place] ^= 1 << place % 8
        try:
            list(stream_of(io.BytesIO(bytes(flipped))))
        except StoreError:
            continue
        missed.append(place)

    assert set(missed) <= set(range(148, 156))


def test_flipped_contents_are_noticed_by_the_index(tars: list[Path], tmp_path: Path, served: str) -> None:
    """Beside a path and a URL the index tells; a pipe has no checksums of what is in it."""
    data = bytearray(tars[1].read_bytes())
    data[600] ^= 4
    for folder in (tmp_path, tars[1].parent):
        (folder / "flipped.tar").write_bytes(data)
        (folder / "flipped.index").write_bytes(tars[1].with_suffix(".index").read_bytes())
    try:
        for source in (tmp_path / "flipped.tar", f"{served}/flipped.tar"):
            with pytest.raises(StoreError, match=r"'00001-00000000.bytes', at byte 512, is damaged") as found:
                list(stream_of(source))

            assert found.value.offset == 512
        assert len(list(stream_of(pipe(tmp_path / "flipped.tar")))) == 1
    finally:
        for suffix in (".tar", ".index"):
            (tars[1].parent / f"flipped{suffix}").unlink()


def test_an_index_of_another_tar_is_noticed(tars: list[Path], tmp_path: Path) -> None:
    """An index that does not fit, has more rows than there are samples, or is none."""
    short = encode_part(part_of([700, 701], 1), "00001.tar")[0]
    path = tmp_path / "00001.tar"
    path.write_bytes(tars[1].read_bytes())
    for content, said in (
        (tars[0].with_suffix(".index").read_bytes(), "the checksum in the index is another"),
        (b"".join(short.pieces), "the checksum in the index is another|one more than the 2 samples"),
        (b"no table", "its index makes no sense"),
    ):
        path.with_suffix(".index").write_bytes(content)
        with pytest.raises(StoreError, match=said):
            list(stream_of(path))


def member(name: str, data: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """Return what adds a file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, io.BytesIO(data)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.bytes", b"ten bytes!")], "has no member a.starts"),
        ([("a.starts", b"..")], "has no member a.bytes"),
        ([("a.bytes", b"ten bytes!"), ("a.starts", b"1")], "has 1 bytes, which is not a bit for each of 10"),
        ([("a.bytes", b"2"), ("a.starts", b"1"), ("a.bytes", b"2")], "'a.bytes', at byte 2,048, comes twice"),
        ([("noname", b"2")], "'noname', at byte 0, is no file KEY.FIELD"),
        ([], "holds no sample"),
    ],
)
def test_tars_that_lack_something(members: list[tuple[str, bytes]], said: str) -> None:
    """Each is named with the member and its place."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            tar.addfile(*member(name, data))
    with pytest.raises(StoreError, match=said):
        list(stream_of(io.BytesIO(out.getvalue())))


def test_links_are_refused() -> None:
    """A member that is no regular file holds no bytes of a sample."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("a.bytes")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(info)
    with pytest.raises(StoreError, match=r"'a.bytes', at byte 0, is no file"):
        list(stream_of(io.BytesIO(out.getvalue())))


def test_a_failing_command_is_an_error(tars: list[Path], tmp_path: Path) -> None:
    """Also where what it printed was whole, and where it was cut short; the exit code is named."""
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tars[1].read_bytes()[:3000])
    with pytest.raises(StoreError, match="ended with exit code 7, although it printed a whole tar"):
        list(stream_of(pipe(tars[1], 7)))
    with pytest.raises(StoreError, match=r"ended with exit code 7 \(.*truncated"):
        list(stream_of(pipe(cut, 7)))
    with pytest.raises(StoreError, match="truncated tar"):
        list(stream_of(pipe(cut)))


def test_a_command_is_ended_with_its_reader(tars: list[Path]) -> None:
    """Who stops early leaves no process behind, however much it would still print."""
    script = f"import os, sys; d = open({str(tars[0])!r}, 'rb').read()\nwhile True: sys.stdout.buffer.write(d)"
    batches = iter(stream_of(f"pipe:{sys.executable} -c {shlex.quote(script)}"))
    next(batches)
    batches.close()  # type: ignore[attr-defined]

    assert [
        child for child in psutil.Process().children() if any("while True" in word for word in child.cmdline())
    ] == []


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("none/such.tar", StoreError, "none/such.tar: cannot be read"),
        ("pipe:no-such-program a.tar", StoreError, "no-such-program a.tar: cannot be read"),
        ("pipe:cat a.tar | head", ConfigError, "is run without a shell"),
        ("pipe:cat 'a.tar", ConfigError, "No closing quotation"),
        ("pipe:", ConfigError, "must be one command"),
        ("http://127.0.0.1:9/a.tar", StoreError, "cannot be read .*refused"),
        ("memory://nothing/a.tar", StoreError, "memory://nothing/a.tar: there is no such file"),
    ],
)
def test_sources_that_are_not_there(source: str, error: type[Exception], said: str) -> None:
    """Each is named, with what was said."""
    with pytest.raises(error, match=said):
        list(stream_of(source))


def test_a_server_that_cuts_or_lacks_a_file(served: str) -> None:
    """An answer that ends early, and one that is 404."""
    with pytest.raises(StoreError, match=r"00000.tar-cut: (truncated|cannot be read on)"):
        list(stream_of(f"{served}/00000.tar-cut"))
    with pytest.raises(StoreError, match=r"absent.tar: cannot be read \(.*404"):
        list(stream_of(f"{served}/absent.tar"))


def test_settings_that_cannot_be(tars: list[Path]) -> None:
    """Each is refused before anything is read."""
    for settings, said in (
        ({"batch": 0}, "must be at least 1"),
        ({"context": 0}, "must be at least 1"),
        ({"rank": 2, "ranks": 2}, "rank 2 is none of 2"),
        ({"ranks": 3}, "2 sources for 3 ranks"),
    ):
        with pytest.raises(ConfigError, match=said):
            stream_of(tars, **settings)


def test_ranks_and_workers_share_sources(tars: list[Path]) -> None:
    """Each source is read by one rank, in turn, and there by one worker."""
    texts = [joined(list(stream_of(tars, rank=rank, ranks=2)))[0] for rank in (0, 1)]
    loader = DataLoader(stream_of(tars), batch_size=None, num_workers=2, multiprocessing_context="fork")
    batches: list[ByteBatch] = list(loader)
    (second,) = [batch for batch in batches if batch.n_bytes == PARTS[1].text.size]

    assert texts == [part.text.tobytes() for part in PARTS]
    assert joined([batch for batch in batches if batch is not second])[0] == PARTS[0].text.tobytes()
    assert joined([second])[0] == PARTS[1].text.tobytes()


@pytest.mark.parametrize("cut", [0, 1, 7, 21, 22])
def test_resume_continues_exactly(cut: int, tars: list[Path]) -> None:
    """Behind any batch, through JSON, with another batch size; a finished pass has nothing left and begins again."""
    stream = stream_of(tars)
    before = list(itertools.islice(stream, cut))
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = stream_of(tars, batch=5)
    resumed.load_state_dict(state)
    after = list(resumed)
    bytes_of, starts_of = (one + other for one, other in zip(joined_or(before), joined_or(after), strict=True))

    assert (bytes_of, starts_of) == wanted()
    assert joined(list(resumed)) == wanted()
    assert len(json.dumps(state)) < 256


def joined_or(batches: list[ByteBatch]) -> tuple[bytes, bytes]:
    """Return what `joined` does, nothing of nothing."""
    return joined(batches) if batches else (b"", b"")


def test_resume_with_another_context_loses_no_byte(tars: list[Path]) -> None:
    """Windows of the new width go on from the byte where the old ones ended."""
    stream = stream_of(tars)
    before = list(itertools.islice(stream, 3))
    resumed = stream_of(tars, context=130)
    resumed.load_state_dict(stream.state_dict())

    assert joined(before)[0] + joined(list(resumed))[0] == TEXT.tobytes()


def test_resume_notices_other_sources(tars: list[Path], tmp_path: Path) -> None:
    """Another order, other ranks, sources whose begin has changed or that are shorter now; a state that is none."""
    stream = stream_of(tars)
    next(iter(stream))
    state = stream.state_dict()
    for other in (stream_of(tars[::-1]), stream_of(tars, ranks=2)):
        other.load_state_dict(state)
        with pytest.raises(StoreError, match="of other sources, ranks or workers"):
            next(iter(other))
    for part, said in ((part_of(ENDS[0], 9), "not those that were delivered before"), (PARTS[1], "the sources end")):
        path = tmp_path / "changing.tar"
        path.write_bytes(tars[0].read_bytes())
        stream = stream_of(path)
        next(iter(stream))
        path.write_bytes(b"".join(encode_part(part, "00000.tar")[1].pieces))
        resumed = stream_of(path)
        resumed.load_state_dict(stream.state_dict())
        with pytest.raises(StoreError, match=said):
            next(iter(resumed))
    for wrong in ({}, {"bytes": "x", "crcs": [0, 0], "sources": ""}, {"bytes": 1, "crcs": [0], "sources": ""}):
        with pytest.raises(StoreError, match="not the state of a stream of tars"):
            stream.load_state_dict(wrong)
