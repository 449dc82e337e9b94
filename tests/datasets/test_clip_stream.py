"""Clips of real stores: each once an epoch on any ranks and workers, exact resume, the frames that the store holds."""

import json
import pickle
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from bytropix.datasets import ClipBatch, ClipStream, resumable
from bytropix.datasets.store import Store
from bytropix.jobs.bench.clip_store import LAYOUTS, LITTLE_BOXES, LITTLE_PARTS, LITTLE_SHAPE

CLIP, HEIGHT, WIDTH, _ = LITTLE_SHAPE
REGIONS, MOTION = LITTLE_BOXES
VIDEOS = [18, 25, 4, 38]  # frames of each
BATCH = 24  # all numbers of ranks below divide it
Row = tuple[int, int, int, bool, bytes]


def stream_of(path: Path | str, **flags: Any) -> ClipStream:
    """Return a stream of an epoch, in which clips overlap, take steps and are mirrored."""
    usual = {"batch": BATCH, "seed": 7, "last": "short", "epochs": 1, "hop": 1, "steps": (1, 2), "flip": 0.5}
    return ClipStream(Store.open(path), **(usual | flags))


def rows_of(batch: ClipBatch) -> list[Row]:
    """Return the rows of a batch as values that compare."""
    fields = (batch.video.tolist(), batch.start.tolist(), batch.step.tolist(), batch.flipped.tolist())
    contents = [
        b"".join(tensor[row].numpy().tobytes() for tensor in (batch.frames, batch.regions, batch.motion, batch.pts))
        for row in range(len(batch.video))
    ]
    return list(zip(*fields, contents, strict=True))


def put_together(batches: list[list[ClipBatch]]) -> list[tuple[int, list[Row]]]:
    """Return global batches, from those of each rank: row i is row i // R of rank i % R."""
    found = []
    for shares in zip(*batches, strict=True):
        rows = [rows_of(share) for share in shares]
        assert {share.position for share in shares} == {shares[0].position}
        count = sum(map(len, rows))
        found.append((shares[0].position, [rows[i % len(rows)][i // len(rows)] for i in range(count)]))
    return found


def dealt(stream: ClipStream, workers: int, patch: pytest.MonkeyPatch) -> list[ClipBatch]:
    """Return what a loader with worker processes gives: a batch of each worker's copy in turn."""
    if not workers:
        return list(stream)
    found = []
    for worker in range(workers):
        copy = pickle.loads(pickle.dumps(stream))
        told = SimpleNamespace(id=worker, num_workers=workers)
        patch.setattr(resumable, "get_worker_info", lambda told=told: told)
        found.append(list(copy))
    patch.undo()
    return [batch for turn in range(len(found[0])) for batches in found for batch in batches[turn : turn + 1]]


class Truth:
    """The videos of the split, put together from the arrays of the parts that the store says it has."""

    def __init__(self, path: Path) -> None:
        parts = [part.arrays() for part in Store.open(path).video_parts("train")]
        frames = np.concatenate([part.read_frames(0, part.frames) for part in Store.open(path).video_parts("train")])
        fields = [np.concatenate([getattr(part, name) for part in parts]) for name in ("regions", "motion", "pts")]
        self.videos = [np.split(field, np.cumsum(VIDEOS)[:-1]) for field in (frames, *fields)]

    def row(self, video: int, start: int, step: int, *, flipped: bool) -> Row:
        """Return the row of a clip."""
        frames, regions, motion, pts = (
            field[video][start : start + (CLIP - 1) * step + 1 : step] for field in self.videos
        )
        if flipped:
            frames, regions, motion = frames[:, :, ::-1], mirrored(regions), mirrored(motion)
        return video, start, step, flipped, b"".join(field.tobytes() for field in (frames, regions, motion, pts))


def mirrored(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return boxes in the mirror."""
    found = boxes.copy()
    real = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    found[real, 0], found[real, 2] = WIDTH - boxes[real, 2], WIDTH - boxes[real, 0]
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clips_are_what_the_store_holds(layout: str, clip_store: Callable[[str], Path]) -> None:
    """In every layout, frames, boxes and times of each row are those of the video, step and mirror that it names."""
    path = clip_store(layout)
    truth, stream = Truth(path), stream_of(path, epochs=2)
    rows = [row for batch in stream for row in rows_of(batch)]

    assert rows == [truth.row(*row[:3], flipped=row[3]) for row in rows]
    assert {row[2] for row in rows} == {1, 2}
    assert {row[3] for row in rows} == {False, True}
    assert len(rows) == 2 * stream.clips
    assert rows[: stream.clips] != rows[stream.clips :]


@pytest.mark.parametrize("cross_cuts", [False, True])
def test_each_clip_once_within_scene_and_part(clip_store: Callable[[str], Path], *, cross_cuts: bool) -> None:
    """All places where a clip fits come once; cuts are crossed on request only, borders of videos and parts never."""
    stream = stream_of(clip_store("zarr raw"), cross_cuts=cross_cuts, steps=(1,), batch=5)
    rows = [row for batch in stream for row in rows_of(batch)]
    expected, videos = [], -1
    for video_lengths, first in (video for part in LITTLE_PARTS for video in part):
        videos += first == 0
        begin = first
        for length in [sum(video_lengths)] if cross_cuts else video_lengths:
            expected += [(videos, begin + start, 1) for start in range(length - CLIP + 1)]
            begin += length

    assert sorted(row[:3] for row in rows) == sorted(expected)
    assert (stream.left_out.scenes, stream.left_out.frames) == ((0, 0) if cross_cuts else (2, 5))
    assert str(stream_of(clip_store("zarr raw")).left_out) == (
        "5 frames of 2 scenes, each shorter than the 4 frames of a clip"
    )


@pytest.mark.parametrize(("ranks", "workers"), list(product((1, 2, 3, 4, 8), (0, 1, 2))))
def test_ranks_workers_and_a_resume_elsewhere(
    ranks: int, workers: int, clip_store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The global batches are those of one rank, before and behind a resume on other ranks and workers."""
    path = clip_store(list(LAYOUTS)[(ranks + workers) % len(LAYOUTS)])
    whole = put_together([list(stream_of(path))])
    cut = (ranks + 2 * workers) % len(whole)
    shares = [dealt(stream_of(path, rank=rank, ranks=ranks), workers, monkeypatch) for rank in range(ranks)]
    stream = stream_of(path, rank=ranks - 1, ranks=ranks)
    stream.skip(cut)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = []
    for rank in range(3):
        stream = stream_of(path, rank=rank, ranks=3)
        stream.load_state_dict(state)
        resumed.append(dealt(stream, 2 - workers, monkeypatch))

    assert len(whole) > 2
    assert put_together(shares) == whole
    assert put_together(resumed) == whole[cut:]


@pytest.mark.parametrize("last", ["fill", "drop", "short", "pad"])
def test_a_resume_at_every_place(last: str, clip_store: Callable[[str], Path]) -> None:
    """Behind every batch of two epochs, also behind the last, a fresh stream goes on as if nothing had happened."""
    flags: dict[str, Any] = {"last": last, "epochs": 2, "batch": 6}
    stream = stream_of(clip_store("zarr raw"), **flags)
    states, batches = [stream.state_dict()], []
    for batch in stream:
        batches.append(batch)
        states.append(stream.state_dict())
    whole = put_together([batches])
    for place, state in enumerate(states):
        resumed = stream_of(clip_store("zarr raw"), rank=place % 2, ranks=2, **(flags | {"seed": 0}))
        resumed.load_state_dict(json.loads(json.dumps(state)))
        rest = [(batch.position, rows_of(batch)) for batch in islice(resumed, 2)]

        assert rest == [(position, rows[place % 2 :: 2]) for position, rows in whole[place : place + 2]]


def test_the_short_last_batch_is_as_asked(clip_store: Callable[[str], Path]) -> None:
    """Filled from the next epoch, dropped, short, or padded with empty rows that say so."""
    clips = stream_of(clip_store("zarr raw")).clips
    whole, rest = divmod(clips, 9)
    assert rest
    shapes = {}
    for last in ("fill", "drop", "short", "pad"):
        batches = list(islice(stream_of(clip_store("zarr raw"), last=last, batch=9, epochs=2), whole + 1))
        shapes[last] = [(len(one.frames), int(one.filled.sum()), one.position) for one in batches[whole:]]
        assert all((one.rows, one.clips) == (len(one.frames), int(one.filled.sum())) for one in batches)
    empty = batches[whole]

    assert shapes == {
        "fill": [(9, 9, whole * 9)],
        "drop": [(9, 9, clips)],
        "short": [(rest, rest, whole * 9)],
        "pad": [(9, rest, whole * 9)],
    }
    assert set(empty.video[rest:].tolist()) == {-1}
    assert not any(tensor[rest:].any() for tensor in (empty.frames, empty.regions, empty.motion, empty.pts, empty.step))


def test_prefetch_and_threads_change_nothing(
    clip_store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches made when they are asked for are those that any number of threads make ahead."""
    expected = put_together([list(stream_of(clip_store("zarr h264"), prefetch=False))])
    for threads in (1, 2, 5):
        monkeypatch.setattr(ClipStream, "_threads", threads)

        assert put_together([list(stream_of(clip_store("zarr h264")))]) == expected


def test_what_was_delivered_never_changes(clip_store: Callable[[str], Path]) -> None:
    """Buffers come back only when nobody can see them any more."""
    stream = stream_of(clip_store("zarr raw"), batch=3, epochs=4)
    kept = [(batch, rows_of(batch)) for batch in stream]

    assert all(rows_of(batch) == rows for batch, rows in kept)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("workers", "how"), [(1, "spawn"), (2, "fork")])
def test_a_loader_with_processes(clip_store: Callable[[str], Path], workers: int, how: str) -> None:
    """Processes of a loader deal the same batches, which travel whole, in place of those made here."""
    path = clip_store("zarr jpeg")
    loader = DataLoader(stream_of(path), batch_size=None, num_workers=workers, multiprocessing_context=how)

    assert put_together([list(loader)]) == put_together([list(stream_of(path))])


@pytest.mark.filterwarnings("ignore")  # torchdata asks torch for what torch calls deprecated; more workers than cores
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes(clip_store: Callable[[str], Path], workers: int) -> None:
    """The loader of torchdata takes the states of its workers and goes on with the batch behind."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader() -> Any:
        return StatefulDataLoader(stream_of(clip_store("zarr raw"), batch=5), batch_size=None, num_workers=workers)

    whole = put_together([list(stream_of(clip_store("zarr raw"), batch=5))])
    stopped, resumed = loader(), loader()
    begun = list(islice(stopped, 3))
    resumed.load_state_dict(stopped.state_dict())

    assert put_together([begun]) + put_together([list(resumed)]) == whole


def test_types_and_places(clip_store: Callable[[str], Path]) -> None:
    """Fields are as they are said to be, and a batch moves as a whole."""
    batch = next(iter(stream_of(clip_store("zarr raw"))))
    moved = batch.to("cpu")

    assert (batch.frames.dtype, batch.frames.shape) == (torch.uint8, (BATCH, CLIP, HEIGHT, WIDTH, 3))
    assert (batch.regions.dtype, batch.regions.shape) == (torch.float32, (BATCH, CLIP, REGIONS, 4))
    assert (batch.motion.dtype, batch.motion.shape) == (torch.float32, (BATCH, CLIP, MOTION, 4))
    assert (batch.pts.dtype, batch.pts.shape) == (torch.float64, (BATCH, CLIP))
    assert rows_of(moved) == rows_of(batch) == rows_of(pickle.loads(pickle.dumps(batch)))
    assert moved.position == 0


def test_the_store_says_how_clips_are(clip_store: Callable[[str], Path]) -> None:
    """What is not asked for is as the store was made: its frames of a clip, and its stride."""
    stream = ClipStream(Store.open(clip_store("zarr raw")), batch=1)

    assert (stream.rule.frames, stream.rule.hop, stream.rule.steps) == (CLIP, CLIP, (1,))
