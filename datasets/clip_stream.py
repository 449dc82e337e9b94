"""A resumable stream of shuffled batches of clips.

    position -> clips of a batch (closed form) -> read into one buffer, in a thread -> queue -> ClipBatch
                                                                                    -> position moves on

The only state is the number of clips delivered so far, by all ranks together; see `ByteStream`, whose promises hold
here too.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.batches import Batches, LastBatch, check_whole
from bytropix.datasets.clip_batch import ClipBatch
from bytropix.datasets.clip_order import ClipOrder
from bytropix.datasets.clip_reader import ClipReader
from bytropix.datasets.clips import ClipRule, ClipTable, LeftOut, Scenes
from bytropix.datasets.order import ORDER_VERSION
from bytropix.datasets.quarantine import Checks, Quarantine
from bytropix.datasets.resumable import ResumableStream
from bytropix.datasets.state import damaged, read_place
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, StoreError

_REMOTE_THREADS = 16  # questions under way to a server
_MOST_THREADS = 8


class ClipStream(ResumableStream[ClipBatch]):
    """The clips of a split in shuffled order, a batch at a time, epoch after epoch.

    The sequence of global batches depends on the store, split, clips and seed alone. Rank r of R delivers rows r,
    r + R, ... of each, and workers of a torch `DataLoader` (with `batch_size=None`) share them as those of a
    `ByteStream` do. Each clip comes exactly once an epoch; its step and whether it is mirrored are functions of seed,
    epoch and clip. Clips never cross videos or the borders of parts, nor scenes unless `cross_cuts`.

    Memory: a few batches made ahead, one or 16 MiB of them a thread. Nothing decoded is kept.

    Args:
        store: An open store of videos.
        split: Name of the split.
        clip_frames: Frames of a clip; those the store was made for if `None`.
        steps: Frame steps to choose from, of those that fit in the clip's scene; one named twice comes twice as often.
        hop: Frames from the beginning of one clip to that of the next; the store's stride if `None`.
        flip: Share of the clips that are mirrored, left for right, boxes with them.
        cross_cuts: Whether clips may go on behind a cut.
        batch: Clips in a global batch, of all ranks together.
        seed: Names the order and the choices.
        rank: Which rank this is.
        ranks: How many there are; they must divide `batch`.
        last: What becomes of the short batch at an epoch's end, see `Batches`.
        epochs: Epochs to deliver, counted from the stream's very beginning; `None` for no end.
        checks: "raise": damage is an error. "quarantine": clips that touch it come empty (video -1) and it is counted.
            "off": mapped frames are not checked.
        budget: Most damaged places that quarantine may leave out; one more is an error.
        prefetch: Whether batches are made ahead, in threads.
        pinned: Whether batches lie in pinned memory, from which a GPU copies without waiting.

    Raises:
        ConfigError: A setting is out of its range, or the ranks do not divide the batch.
        StoreError: The store holds no videos, has no such split, or no clip fits in any of its scenes.

    Attributes:
        split: Name of the split.
        rule: How scenes are cut into clips.
    """

    _threads = min(_MOST_THREADS, max(2, os.cpu_count() or 1))  # frames may have to be decoded

    def __init__(
        self,
        store: Store,
        *,
        split: str = "train",
        clip_frames: int | None = None,
        steps: Sequence[int] = (1,),
        hop: int | None = None,
        flip: float = 0.0,
        cross_cuts: bool = False,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        last: LastBatch = "fill",
        epochs: int | None = None,
        checks: Checks = "raise",
        budget: int = 0,
        prefetch: bool = True,
        pinned: bool = False,
    ) -> None:
        made_with = {name: value for name, value in locals().items() if name not in ("self", "__class__", "store")}
        check_whole(seed=seed)
        if not isinstance(flip, int | float | np.floating) or isinstance(flip, bool) or not 0 <= flip <= 1:
            raise ConfigError(f"flip is the share of clips that are mirrored and must be in 0..1, got {flip!r}")
        self._store, self.split, self._flip = store, split, flip
        self._parts = store.video_parts(split)  # first of all: a store of bytes says what it is
        self.rule = ClipRule.of(store, clip_frames, hop, steps, cross_cuts=cross_cuts)
        if not len(self._parts):
            raise StoreError(
                f"{store.url}: split {split!r} holds no videos (splits: {', '.join(store.splits)}); choose another "
                "split or ingest more"
            )
        self._remote = store.storage.local is None
        scenes = Scenes.of(self._parts, cross_cuts=cross_cuts, threads=_REMOTE_THREADS if self._remote else 1)
        self._table = ClipTable(scenes, self.rule)
        if not self._table.clips:
            raise StoreError(
                f"{store.url}: split {split!r} has no clip: each of its {scenes.lengths.size} scenes is shorter than "
                f"{self._table.left_out.needed} frames, the longest has {self._table.longest}; take fewer clip_frames, "
                "a smaller step, or cross_cuts=True"
            )
        batches = Batches(
            windows=self._table.clips, batch=batch, last=last, epochs=epochs, rank=rank, ranks=ranks, row="clip"
        )
        super().__init__(store, batches, made_with, quarantine=Quarantine(checks, budget), prefetch=prefetch)
        self._read = ClipReader(self._parts, clip_frames=self.rule.frames, quarantine=self._quarantine, pinned=pinned)
        self._use_seed(int(seed))

    @property
    def clips(self) -> int:
        """Clips in an epoch."""
        return self._table.clips

    @property
    def left_out(self) -> LeftOut:
        """What is in no clip, since its scene is shorter than one."""
        return self._table.left_out

    @property
    def order(self) -> ClipOrder:
        """Which clip comes at which position."""
        return self._order

    @property
    def position(self) -> int:
        """Clips that all ranks together have been given: epoch * clips + place in the epoch."""
        return self._position

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands after the last batch delivered; whatever was prefetched does not count.

        Returns:
            Plain data of at most 256 bytes as JSON: `epoch`, `position` (clips delivered in that epoch, by all ranks),
            `seed`, and what these are about: the store's `fingerprint`, `split`, `clips` (frames, hop and steps) and
            `order`. It is the same on every rank, and good for any number of ranks.
        """
        epoch, position = divmod(self._position, self.clips)
        state = {"epoch": epoch, "position": position, "seed": self._seed, "order": ORDER_VERSION}
        lead = {} if self._told_lead is None else {"lead": self._told_lead}
        return state | self._about() | lead

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly behind the last batch delivered when `state` was taken; iterate anew afterwards.

        Batch size, ranks and workers may be others than they were; so may `flip`, which moves no clip.

        Raises:
            StoreError: The state is of another store, split or cut, or no state at all.
        """
        found = read_place(state, lambda _: self._about(), place=self._store.url, stream="clip stream")
        if found.position >= self.clips or found.epoch * self.clips >= 1 << 62:
            raise damaged(found, f"an epoch has {self.clips} clips", place=self._store.url)
        self._use_seed(found.seed)
        self._moved(found.epoch * self.clips + found.position, found.lead)

    def _about(self) -> dict[str, str]:
        return {"fingerprint": self._store.fingerprint, "split": self.split, "clips": self.rule.name}

    def _use_seed(self, seed: int) -> None:
        self._seed = seed
        frame_bytes = int(np.prod(self._read.frame_shape))
        self._order = ClipOrder(self._table, frame_bytes=frame_bytes, seed=seed, flip=self._flip)

    @property
    def _batch_bytes(self) -> int:
        return self._batches.rows * self._read.clip_bytes

    def _ask_ahead(self, position: int, residue: int) -> None:
        """Let remote parts fetch what the round at hand needs, all of it at once."""
        if self._remote:
            self._expect(self._order.at_hand(position, residue=residue, ranks=self._batches.ranks))

    def _expect(self, stretches: NDArray[np.int64]) -> None:
        """Tell the parts which frames will be wanted soon."""
        for part, start, stop in stretches.tolist():
            self._parts[part].prefetch_frames(start, stop)

    def _gather(self, firsts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[ClipBatch]:
        positions, counts = self._batches.rows_of(firsts, sizes)
        if self._remote:
            self._expect(self._order.coming(positions))
        clips = self._order.clips(positions)
        ends = np.cumsum(counts)
        rows = np.full_like(counts, self._batches.rows) if self._batches.last == "pad" else counts
        places = zip((ends - counts).tolist(), ends.tolist(), rows.tolist(), firsts.tolist(), strict=True)
        return [self._read(clips[begin:end], rows=count, position=first) for begin, end, count, first in places]
