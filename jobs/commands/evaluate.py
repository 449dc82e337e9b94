"""`bytropix evaluate`: bits per byte of a run, beside those of xz and an n-gram model on the same bytes."""

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytropix.datasets.store import Part, Store
from bytropix.errors import StoreError
from bytropix.jobs.evaluation import bits_per_byte
from bytropix.jobs.ngram import ORDER, NgramModel
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Print the bits per byte of a trained model on a split of a store.

    Every byte is scored once, cut into patches as the run's own store was, whatever store it stands in. Beside the
    model stand `xz -9e` on the same bytes, document after document, and an order-4 n-gram model (Witten-Bell) fitted on
    the store's train split.
    """

    run: Path
    """The run folder; its latest checkpoint is read."""
    store: str
    """The store whose split is scored: its folder or URL."""
    split: str = "val"
    """The split."""
    stride: int = 0
    """Bytes by which a window moves on; every byte after a window's length has at least context - stride bytes before
    it. 0 is half the context."""
    batch: int = 16
    """Windows scored at a time."""
    device: str = "auto"
    """auto takes a GPU where there is one."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> int:
        """Evaluate and print."""
        figures = compare(
            RunFolder(self.run),
            Store.open(self.store),
            split=self.split,
            stride=self.stride or None,
            batch=self.batch,
            device=self.device,
        )
        print(json.dumps(figures) if self.json else report(figures))
        return 0


def compare(
    run: RunFolder, store: Store, *, split: str, stride: int | None = None, batch: int = 16, device: str = "auto"
) -> dict[str, Any]:
    """Score a split with a run's latest checkpoint, xz and the n-gram model; return the figures by name.

    Raises:
        ConfigError: The stride is not in 1..context.
        RunError: There is no checkpoint, or it cannot be read.
        StoreError: The split holds no bytes.
    """
    model = run.model().to(choose_device(device))
    context = run.recipe().train.context
    parts = store.parts(split)
    if not parts:
        raise StoreError(
            f"{store.url}: split '{split}' holds no bytes (splits: {', '.join(store.splits)}); "
            "ingest with a larger --val-fraction or choose another --split"
        )
    with progress_bar("evaluate", sum(part.n_bytes for part in parts)) as bar:
        result = bits_per_byte(
            model,
            store,
            split=split,
            context=context,
            stride=stride,
            batch=batch,
            patcher=run.patcher(),
            progress=bar.update,
        )
    ngram = NgramModel.fit(store.parts("train"))
    return {
        "run": str(run.path),
        "checkpoint": run.latest().name,
        "store": store.url,
        "split": split,
        "bytes": result.n_bytes,
        "context": context,
        "stride": result.stride,
        "minimum_context": context - result.stride,
        "nats": result.nats,
        "bits_per_byte": result.bits_per_byte,
        "xz_bits_per_byte": xz_bits_per_byte(parts),
        "ngram_bits_per_byte": ngram.bits_per_byte(parts),
        "ngram_order": ORDER,
        "ngram_fitted_bytes": ngram.fitted_bytes,
    }


def xz_bits_per_byte(parts: Sequence[Part]) -> float:
    """Return the size of what `xz -9e` makes of the parts' bytes, in bits per byte."""
    packer = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME)
    packed = sum(len(packer.compress(part.read("bytes", 0, part.n_bytes).tobytes())) for part in parts)
    return 8 * (packed + len(packer.flush())) / sum(part.n_bytes for part in parts)


def report(figures: dict[str, Any]) -> str:
    """Return the figures as lines for a reader."""
    rows = (("model", "bits_per_byte"), ("xz -9e", "xz_bits_per_byte"), ("order-4 n-gram", "ngram_bits_per_byte"))
    lines = [f"{name:15} {figures[key]:.4f} bits per byte" for name, key in rows]
    lines.append(
        f"{figures['bytes']:,} bytes of split '{figures['split']}', each scored once, with at least "
        f"{figures['minimum_context']} bytes of context beyond a document's first {figures['context']}"
    )
    return "\n".join(lines)
