"""Training a byte model, as the loop sees it.

store or mixture -> ByteStream -> ByteModel -> nats of the bytes that are data
    val split -> bits per byte        nothing -> a text sample        batch -> lengths of its patches
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bytropix.byte_lm.layers import Block
from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.gather import CACHE_BYTES
from bytropix.datasets.mixture import Mixture
from bytropix.datasets.resumable import ResumableStream
from bytropix.datasets.store import open_storage, write_patcher
from bytropix.datasets.stream import ByteStream
from bytropix.errors import ConfigError
from bytropix.jobs.evaluation import Evaluation, bits_per_byte
from bytropix.jobs.metrics import RunLog, Unit
from bytropix.jobs.ranks import Ranks
from bytropix.jobs.recipe import ByteModel, Recipe, build_model
from bytropix.jobs.sharding import Shares, plain_copy
from bytropix.jobs.source import Source, facts_of, names_of, progress_of, stores_of
from bytropix.jobs.writing import sample_text
from bytropix.patching import Patcher


def _words(nats: float, per_second: float) -> str:
    return f"{nats / math.log(2):.3f} bits/byte, {per_second / 1e3:.1f} kB/s"


BYTES = Unit(name="bytes", loss="nats", words=_words)


class TotalNats(nn.Module):
    """The nats of all data bytes of a batch; what DDP calls, as models are not called by their `forward`."""

    def __init__(self, model: ByteModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ByteBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum, a tensor of no dimensions, and no tallies; padding counts nothing."""
        nats_BT = self.model.nats(batch.bytes, batch.starts, batch.patches, batch.documents)
        total = nats_BT.sum() if batch.full else torch.where(batch.data, nats_BT, 0).sum()
        return total, torch.zeros(0, 2, device=total.device)


@dataclass(slots=True)
class ByteTask:
    """A byte model on a store, or on a mixture of several, of which the run keeps the patcher of the first."""

    recipe: Recipe
    source: Source
    unit: Unit = field(default=BYTES, init=False)
    _patcher: Patcher = field(init=False)

    def stream(self, device: torch.device, ranks: Ranks) -> ByteStream:
        """Return this rank's stream of windows, once the patcher that samples are cut with has been read.

        Raises:
            ConfigError: The split is shorter than the context, or the ranks do not divide the batch.
            StoreError: A store cannot be read so.
        """
        train = self.recipe.train
        stream = ByteStream(
            self.source,
            context=train.context,
            batch=train.batch,
            seed=train.seed,
            rank=ranks.rank,
            ranks=ranks.count,
            pack=train.pack,
            checks=train.checks,
            budget=train.damage_budget,
            # Each store of a mixture has a round of blocks of its own under way.
            cache_bytes=CACHE_BYTES // 2 * max(2, len(stores_of(self.source))),
            pinned=device.type == "cuda",
        )
        if stream.n_bytes < train.context:
            raise ConfigError(
                f"train.context is {train.context} bytes, but there are only {stream.n_bytes} to train on; take a "
                "shorter context or ingest more"
            )
        self._patcher = stores_of(self.source)[0].patcher()
        return stream

    def build(self) -> ByteModel:
        """Return a freshly initialized model."""
        return build_model(self.recipe)

    def prepare(self, model: nn.Module, device: torch.device, ranks: Ranks) -> None:
        """Leave the model as it is."""

    def loss(self, model: nn.Module) -> TotalNats:
        """Return the nats of a batch."""
        return TotalNats(cast(ByteModel, model))

    def shares(self, model: nn.Module, loss: nn.Module) -> Shares:
        """Split by blocks below the model, which evaluation calls without the loss."""
        return Shares(model, (Block,), ("nats",))

    def units(self, batch: ByteBatch) -> int:
        """Return the bytes that are data."""
        return batch.n_bytes

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the model's direct children."""
        return dict(model.named_children())

    def scalars(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return curvature, scale and spread of each level."""
        return cast(ByteModel, model).scalars()

    def tallied(self, tallies: Tensor) -> Mapping[str, float]:
        """Return nothing: there are no tallies."""
        return {}

    def reading(self, stream: ResumableStream[ByteBatch], position: int, since: int) -> Mapping[str, float]:
        """Return shares and epochs of a mixture's stores."""
        return progress_of(self.source, cast(ByteStream, stream).order, position, since)

    def show(self, batch: ByteBatch, step: int, log: RunLog) -> None:
        """Log the lengths of patches."""
        lengths = patch_lengths(batch.starts)
        if len(lengths):
            log.histogram(step, "patches/length_bytes", lengths)
            log.scalars(step, {"patches/mean_length_bytes": float(lengths.mean())})

    def evaluate(self, model: nn.Module, step: int, log: RunLog, ranks: Ranks) -> None:
        """Log bits per byte on the val split and a text sample; every rank scores the same windows."""
        train, bytes_model = self.recipe.train, cast(ByteModel, model)
        with ranks.together():
            named = zip(names_of(self.source), stores_of(self.source), strict=True)
            stores = {name: store for name, store in named if store.parts("val")}
            at_most = -(-train.evaluate_bytes // max(1, len(stores)))
            found = {
                name: bits_per_byte(bytes_model, store, split="val", context=train.context, at_most=at_most)
                for name, store in stores.items()
            }
            if found:
                log_evaluation(log, step, found)
        if train.sample_bytes:
            whole = plain_copy(bytes_model, self.build)
            if ranks.speaks:
                log.text(step, sample_text(whole, self._patcher, train.context, train.sample_bytes))

    def kept(self, folder: Path) -> dict[str, Any]:
        """Write the patcher of the first store, and return what else generation and evaluation need of it."""
        store = stores_of(self.source)[0]
        kept: dict[str, Any] = {
            "name": store.name,
            "fingerprint": store.fingerprint,
            "config": store.manifest.config,
            "patcher": write_patcher(open_storage(folder), store.patcher())[0],
        }
        if isinstance(self.source, Mixture):
            kept["mixture"] = {**facts_of(self.source), "step_windows": self.recipe.train.step_windows}
        return kept


def patch_lengths(starts: Tensor) -> Tensor:
    """Return the lengths f32 [n] in bytes of the patches of starts (B, T); what a row's end cuts is left out."""
    row, column = starts.nonzero().T
    lengths: Tensor = column.diff()[row.diff() == 0].float()
    return lengths


def log_evaluation(log: RunLog, step: int, found: Mapping[str, Evaluation]) -> None:
    """Log an evaluation of one store, or of each of several and all together, by name."""
    n_bytes = sum(one.n_bytes for one in found.values())
    together = sum(one.nats for one in found.values()) / (math.log(2) * n_bytes)
    each = {name: one.bits_per_byte for name, one in found.items()} if len(found) > 1 else {}
    log.note(f", val {together:.3f}")
    log.scalars(step, {"eval/bits_per_byte": together})
    log.scalars(step, {f"eval/{name}/bits_per_byte": value for name, value in each.items()})
    row = {"event": "evaluate", "step": step, "bits_per_byte": together, "bytes": n_bytes}
    log.line({**row, "each": each} if each else row)
