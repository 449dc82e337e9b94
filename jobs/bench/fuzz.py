"""Nonsense in every file of a store, under right checksums: whoever reads it gets an error of ours, or sense.

a small store of each layout -> one file is changed, by seed -> the manifest vouches for it -> everything is read

    manifest.json   zarr.json   .index   doc_ends, doc_meta   any file   receipts/
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from bytropix.datasets.store import PartArrays, PartLayout, Store, open_storage
from bytropix.datasets.store.formats import encode
from bytropix.datasets.store.manifest import MANIFEST
from bytropix.datasets.stream import ByteStream
from bytropix.datasets.validation import ValidationWindows
from bytropix.errors import BytropixError
from bytropix.jobs.bench.forge import signed, signed_text, vouched
from bytropix.jobs.bench.fuzz_sources import fuzz_sources
from bytropix.jobs.bench.nonsense import VALUES, changed, edited
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target
from bytropix.jobs.bench.victim import LAYOUTS, files_of, write_victim
from bytropix.pipelines.receipts import finished, keep_receipt, receipt_name

CASES = 10_000  # of stores, and as many of sources
SIZES = 3_000, 2_000, 1_500
CONTEXT = 63
SPARE_BYTES = 1 << 30  # what reading nonsense may take of memory; a size that is believed takes more


def bench_fuzz(settings: BenchSettings) -> list[BenchRow]:
    """Read 10,000 stores and 10,000 source files that hold nonsense."""
    found = {"stores": fuzz_stores(settings.folder, CASES, seed=0), "sources": fuzz_sources(CASES, seed=0)}
    rows = [
        BenchRow(
            name=f"fuzz: {what}",
            value=len(failures),
            unit="failures",
            targets=(Target("value", "<=", 0),),
            note=f"of {CASES} cases",
        )
        for what, failures in found.items()
    ]
    return rows + [
        BenchRow(name=f"fuzz: {what}, FAILED", value=1, unit="failure", note=line)
        for what, failures in found.items()
        for line in failures
    ]


def fuzz_stores(folder: Path, cases: int, seed: int) -> list[str]:
    """Read stores that hold nonsense, the layouts and the files in turn; return one line for each that came to harm."""
    stores = [small_store(folder, layout) for layout in LAYOUTS.values()]
    read_everything(stores[0].path, table=True)  # compiles what must not count as memory
    harm = []
    with little_memory():
        for case in range(cases):
            kind = list(KINDS)[case // len(stores) % len(KINDS)]
            said = harm_done(stores[case % len(stores)], kind, seed + case)
            if said:
                harm.append(said)
    return harm


@dataclass(frozen=True, slots=True, eq=False)
class SmallStore:
    """A store of a few kB, as it is on disk and in memory."""

    path: Path
    layout: PartLayout
    files: dict[str, bytes]
    part: PartArrays
    """Its first train part."""

    @property
    def part_name(self) -> str:
        """The first train part, below the store."""
        return f"parts/train/{self.layout.part_name(0)}"


def small_store(folder: Path, layout: PartLayout) -> SmallStore:
    """Write a store of three parts."""
    path = folder / f"small-{layout.format}-{layout.used_codec}.bx"
    parts = write_victim(path, layout, SIZES, seed=0)
    return SmallStore(path, layout, files_of(path), parts["train", layout.part_name(0)])


def harm_done(store: SmallStore, kind: str, seed: int) -> str:
    """Change a store, read it, mend it; return what no reader may do: errors other than ours. Else nothing."""
    changes = KINDS[kind](store, random.Random(seed))
    try:
        for name, content in changes.items():
            _put(store.path / name, content)
        read_everything(store.path, table=any(name == MANIFEST or name.startswith("babylon/") for name in changes))
    except BytropixError as error:
        return f"{kind}, {store.layout}, seed {seed}: {error!r} has two lines" if "\n" in str(error) else ""
    except Exception as error:  # whatever it is, it is what we look for
        return f"{kind}, {store.layout}, seed {seed}: {type(error).__name__}: {error}"
    finally:
        for name in changes:
            _put(store.path / name, store.files.get(name))
    return ""


def read_everything(path: Path, *, table: bool) -> None:
    """Read all that there is to read of a store, and if asked its table, which takes longest."""
    store = Store.open(path)
    store.quarantine()
    for split in store.splits:
        for part in store.parts(split):
            for file in part.record.files:
                part.first_damage(file.path)
            part.arrays()
            part.doc_meta()
        list(islice(ByteStream(store, split=split, context=CONTEXT, batch=4), 1))
        list(islice(ValidationWindows(store, split=split, context=CONTEXT, batch=4), 2))
    for name in store.storage.sizes("receipts"):
        finished(store.storage, "train", Path(name).stem.removeprefix("train-"), "key")
    if table:
        store.patcher().patch(np.arange(10, dtype=np.uint8), np.array([10]))


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process have a little more memory than it has, where the system can see to that."""
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        return
    yield


def _put(path: Path, content: bytes | None) -> None:
    """Give a file a content, or remove it; not written over, since what has been mapped should stay as it was."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _manifest(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Change values of the manifest."""
    return {MANIFEST: signed(changed(json.loads(store.files[MANIFEST]), chance))}


def _manifest_text(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Change the text of the manifest, or name a key twice."""
    plain = json.loads(store.files[MANIFEST]) | {"checksum": ""}
    text = json.dumps(plain, indent=1, sort_keys=True).encode() + b"\n"
    if chance.random() < 0.3:
        key, value = chance.choice(list(plain)), json.dumps(chance.choice(VALUES)).encode()
        return {MANIFEST: signed_text(text.replace(b"{", b'{"%b": %b, ' % (key.encode(), value), 1))}
    return {MANIFEST: signed_text(edited(text, chance))}


def _metadata(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Change values of a zarr.json, of a part or of the table."""
    name = chance.choice([name for name in store.files if name.endswith("zarr.json")])
    return vouched(store.files, {name: json.dumps(changed(json.loads(store.files[name]), chance)).encode()})


def _index(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Change the index of a tar: a number in it, or what its header says of its type and shape."""
    name = store.part_name.replace(".tar", ".index")
    if store.layout.format != "webdataset":
        return _metadata(store, chance)
    data = store.files[name]
    if chance.random() < 0.6:
        rows = np.lib.format.read_array(io.BytesIO(data))
        for _ in range(chance.randint(1, 3)):
            field = rows[chance.choice(rows.dtype.names or ())]
            field[chance.randrange(len(field))] = chance.choice((-1, 0, 1, 5, 2**31 - 1, -(2**31), 1 << 20)) % (1 << 31)
        if chance.random() < 0.3:
            rows["n_bytes"][chance.randrange(len(rows))] = chance.choice((-5, 2**62, -(2**62), 2**63 - 1))
        file = io.BytesIO()
        np.lib.format.write_array(file, rows)
        return vouched(store.files, {name: file.getvalue()})
    swaps = [(b"'<i8'", b"'|O'"), (b"(1,)", b"(10**9,)"), (b"(1,)", b"(9999999999999,)"), (b"(1,)", b"(1, 1)")]
    swaps += [
        (b"False", b"True"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x03"),
        (b"(1,)", b"(-1,)"),
        (b"'n_bytes'", b"'n_json'"),
    ]
    swaps += [(b"(1,)", b"(999999999,)"), (b"'descr'", b"'descr' * 9"), (b"(1,)", b"((1),)"), (b"{", b"[" * 90)]
    old, new = chance.choice(swaps)
    return vouched(store.files, {name: data.replace(old, new)})


def _rows(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Change where documents end, or the rows about them."""
    meta, ends = store.part.doc_meta, store.part.doc_ends.copy()
    if chance.random() < 0.5 and store.layout.format == "zarr":
        ends[chance.randrange(len(ends))] = chance.choice((-1, 0, 1, 2**62, -(2**63), 2_999, 3_001))
    elif chance.random() < 0.5:
        meta = edited(meta, chance) or b"\n"
    else:
        rows = [changed(json.loads(line), chance) for line in meta.splitlines()]
        if chance.random() < 0.5 and isinstance(rows[0], dict):
            rows[0]["piece"] = chance.choice((0, [], [1, 2], [0, 2], ["x"], None, {}))
        meta = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    folder = store.part_name if store.layout.format == "zarr" else "parts/train"
    with suppress(BytropixError, IndexError, ValueError, TypeError):  # the writer of tars looks at rows itself
        files = encode(replace(store.part, doc_ends=ends, doc_meta=meta), store.layout, store.layout.part_name(0))
        return vouched(store.files, {f"{folder}/{file.name}": b"".join(file.pieces) for file in files})
    return {}


def _any_file(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Edit any file."""
    name = chance.choice([name for name in store.files if name != MANIFEST])
    return vouched(store.files, {name: edited(store.files[name], chance)})


def _receipt(store: SmallStore, chance: random.Random) -> dict[str, bytes]:
    """Put a receipt beside the store, changed in its values or in its text."""
    storage = open_storage(store.path)
    part = Store.open(store.path).parts("train")[0]
    keep_receipt(storage, part.record, "key")
    name = receipt_name("train", part.name)
    text = storage.read(name).tobytes()
    if chance.random() < 0.3:
        return {name: edited(text, chance)}
    return {name: json.dumps(changed(json.loads(text), chance)).encode()}


KINDS: dict[str, Callable[[SmallStore, random.Random], dict[str, bytes]]] = {
    "manifest": _manifest,
    "manifest's text": _manifest_text,
    "zarr.json": _metadata,
    "index": _index,
    "rows": _rows,
    "any file": _any_file,
    "receipt": _receipt,
}
