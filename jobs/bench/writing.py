"""Speed of writing alone.

text, scored and cut -> PartArrays -> a part of each layout, flushed to disk, against one plain write of the same arrays
                     -> the same documents through the writers of other formats, where those are installed
"""

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import PartArrays, PartLayout, doc_meta_line, open_storage, write_part
from bytropix.jobs.bench.corpus import documents, some_text
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, alone
from bytropix.patching import PatchConfig, fit_patcher

LAYOUTS = {
    "Zarr none": PartLayout(codec="none"),
    "WebDataset": PartLayout(format="webdataset"),
    "Zarr zstd": PartLayout(),
}
COUNTED = "MB of text, which comes with as many bytes of entropy and an eighth of starts"


def writing_rows(settings: BenchSettings) -> list[BenchRow]:
    """Measure one process that writes one part, checksums, hashes and flushing included."""
    text, ends = documents(some_text(settings.data, int(settings.megabytes * 1e6)))
    entropy, starts = fit_patcher([text[: 1 << 22]], PatchConfig()).patch(text, ends)
    begins = np.append(0, ends[:-1]).tolist()
    meta = b"".join(doc_meta_line(source="text.txt", offset=begin) for begin in begins)
    arrays = PartArrays(text, entropy, starts, ends, meta)
    megabytes = len(text) / 1e6
    plain = Contender(work=lambda: _plain_write(settings.folder / "plain", arrays), amount=megabytes)
    rows = [
        against(
            f"ingest: writing alone, {name}, one core",
            "MB/s",
            Contender(work=partial(_write, settings.folder / "written", arrays, layout), amount=megabytes),
            plain,
            settings.repeats,
            called="numpy's tofile and fsync",
            clock="processor",
            targets=(Target("value", ">=", 200),),
            note=COUNTED,
        )
        for name, layout in LAYOUTS.items()
    ]
    return rows + [_peer(name, work, arrays, settings) for name, work in PEERS.items()]


def _write(folder: Path, arrays: PartArrays, layout: PartLayout) -> None:
    name = layout.part_name(0)
    write_part(open_storage(folder), "train", name, arrays, layout=layout, spans=(), patch_lengths=())


def _plain_write(folder: Path, arrays: PartArrays) -> None:
    """Write the same arrays with nothing but numpy."""
    folder.mkdir(exist_ok=True)
    bits = np.packbits(arrays.starts, bitorder="little")
    kept: dict[str, NDArray[Any]] = {
        "bytes": arrays.text,
        "entropy": arrays.entropy,
        "starts": bits,
        "ends": arrays.doc_ends,
    }
    for name, values in kept.items():
        with (folder / name).open("wb") as file:
            values.tofile(file)
            file.flush()
            os.fsync(file.fileno())


def _peer(name: str, work: Callable[[Path, PartArrays], None], arrays: PartArrays, settings: BenchSettings) -> BenchRow:
    """Measure the writer of another format, or say that it is not there."""
    row = f"ingest: writing alone, {name}"
    folder = settings.folder / "peer"
    try:
        return alone(
            row,
            "MB/s",
            Contender(work=lambda: _anew(folder, work, arrays), amount=len(arrays.text) / 1e6),
            settings.repeats,
            clock="processor",
            note="the same documents, no flush to disk",
        )
    except ImportError as error:
        return BenchRow(name=row, value=None, unit="MB/s", note=f"not measured: {error}")


def _anew(folder: Path, work: Callable[[Path, PartArrays], None], arrays: PartArrays) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    work(folder, arrays)


def _samples(arrays: PartArrays) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Give key and arrays of each document, as bytes."""
    begin = 0
    for number, end in enumerate(arrays.doc_ends.tolist()):
        stretch = slice(begin, end)
        bits: NDArray[np.uint8] = np.packbits(arrays.starts[stretch], bitorder="little")
        columns = {"bytes": arrays.text[stretch], "entropy": arrays.entropy[stretch], "starts": bits}
        yield f"{number:08}", {name: values.tobytes() for name, values in columns.items()}
        begin = end


def _tarfile(folder: Path, arrays: PartArrays) -> None:
    """Write a tar with the standard library."""
    with tarfile.open(folder / "0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in _samples(arrays):
            for name, content in sample.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _webdataset(folder: Path, arrays: PartArrays) -> None:
    import webdataset

    with webdataset.TarWriter(str(folder / "0.tar"), mtime=0) as writer:
        for key, sample in _samples(arrays):
            writer.write({"__key__": key, **sample})


def _mds(folder: Path, arrays: PartArrays) -> None:
    import streaming

    columns = {"key": "str", "bytes": "bytes", "entropy": "bytes", "starts": "bytes"}
    with streaming.MDSWriter(out=str(folder / "mds"), columns=columns) as writer:
        for key, sample in _samples(arrays):
            writer.write({"key": key, **sample})


def _litdata(folder: Path, arrays: PartArrays) -> None:
    from litdata.streaming import Cache

    cache = Cache(str(folder), chunk_bytes=1 << 26)
    for number, (_, sample) in enumerate(_samples(arrays)):
        cache[number] = sample
    cache.done()
    cache.merge()


PEERS: dict[str, Callable[[Path, PartArrays], None]] = {
    "tarfile": _tarfile,
    "webdataset": _webdataset,
    "MDSWriter": _mds,
    "litdata": _litdata,
}
