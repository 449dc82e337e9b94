"""`bytropix evaluate`: how good a run is on a split of a store, beside what costs little.

run of bytes -> bits per byte, beside those of xz and an n-gram model on the same bytes
run of video -> errors of predicted frames, beside those of plain guesses: see `evaluate_video`
"""

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bytropix.datasets.store import Part, Store
from bytropix.errors import ConfigError, StoreError
from bytropix.jobs.commands.evaluate_video import compare_video, report_video
from bytropix.jobs.evaluation import bits_per_byte
from bytropix.jobs.ngram import ORDER, NgramModel
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.video.sampling import SamplingConfig

SAMPLING = SamplingConfig(steps=20, guidance=1.0)  # guidance beyond 1 makes bolder frames, not nearer ones
FOREIGN: dict[str, dict[str, Any]] = {  # flags of the other kind of run, and what they are where nobody set them
    "bytes": {"clips": 0, "sampling": SAMPLING, "encoder": None, "out": None},
    "video": {"stride": 0},
}


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Print how good a trained model is on a split of a store.

    Of a byte model, bits per byte. Every byte is scored once, cut into patches as the run's own store was, whatever
    store it stands in. Beside the model stand `xz -9e` on the same bytes, document after document, and an order-4
    n-gram model (Witten-Bell) fitted on the store's train split.

    Of a video model, PSNR and SSIM of each predicted frame, and a Frechet distance. Every clip is predicted once from
    its first frames. Beside the model stand the last frame copied, the mean of the given ones, the last two
    extrapolated, and the true frames once through the autoencoder: all that its latents hold of them.
    """

    run: Path
    """The run folder; its latest checkpoint is read."""
    store: str
    """The store whose split is scored: its folder or URL."""
    split: str = "val"
    """The split."""
    stride: int = 0
    """Bytes by which a window moves on, of bytes; every byte after a window's length has at least context - stride
    bytes before it. 0 is half the context."""
    batch: int = 16
    """Windows, or clips, scored at a time."""
    clips: int = 0
    """Of video: stop after the batch that reaches this many clips; 0 scores all."""
    sampling: Annotated[SamplingConfig, tyro.conf.OmitArgPrefixes] = SAMPLING
    """Of video: how frames are predicted."""
    encoder: Path | None = None
    """Of video: a safetensors file with the weights of the encoder whose features the Frechet distance is taken of, in
    place of random ones."""
    out: Path | None = None
    """Of video: where to draw the worst, the median and the best clip: given, true and predicted frames (.png), or the
    last given frame held, the truth and the prediction side by side (.mp4, .gif, .webp)."""
    device: str = "auto"
    """auto takes a GPU where there is one."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> int:
        """Evaluate and print."""
        run = RunFolder(self.run)
        kind = run.kind()
        self._check(kind)
        figures = self._video(run) if kind == "video" else self._bytes(run)
        words = report_video(figures) if kind == "video" else report(figures)
        figures.pop("table", None)
        print(json.dumps(figures) if self.json else words)
        return 0

    def _check(self, kind: str) -> None:
        """Refuse flags that mean nothing for a kind of run, and values that cannot be."""
        for name, default in FOREIGN[kind].items():
            if getattr(self, name) != default:
                asked = "a flag of sampling" if name == "sampling" else f"--{name}"
                raise ConfigError(f"{asked} means nothing for {self.run}, a run of a {kind} model: leave it out")
        if self.batch < 1 or self.clips < 0:
            raise ConfigError(f"--batch must be at least 1 and --clips not negative, got {self.batch}, {self.clips}")

    def _bytes(self, run: RunFolder) -> dict[str, Any]:
        return compare(
            run,
            Store.open(self.store),
            split=self.split,
            stride=self.stride or None,
            batch=self.batch,
            device=self.device,
        )

    def _video(self, run: RunFolder) -> dict[str, Any]:
        return compare_video(
            run,
            Store.open(self.store),
            split=self.split,
            sampling=self.sampling,
            at_most=self.clips,
            batch=self.batch,
            device=self.device,
            encoder=self.encoder,
            out=() if self.out is None else (self.out,),
        )


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
