"""Decoders that give up on a film, one after the other: the frames of the one that got furthest are kept on request."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bytropix.jobs.film import FilmSet
from bytropix.pipelines.decoders.contract import Frames, VideoFault, Wanted
from bytropix.pipelines.decoders.process import DecoderProcess
from bytropix.pipelines.decoders.registry import installed
from bytropix.pipelines.video import part_task
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video

BATCH = 12  # frames


class GivingUp(DecoderProcess):
    """A decoding process that is killed after so many batches, by the decoder it is asked for, the first time.

    The second time all goes well.
    """

    def __init__(self, batches: dict[str, int]) -> None:
        super().__init__()
        self.batches = batches
        self.asked: list[str] = []

    def frames(self, path: Any, wanted: Wanted) -> Iterator[Frames]:
        """Give frames in batches of one size, up to the decoder's fault."""
        first, why = wanted.decoder not in self.asked, f"{wanted.decoder} gave up"
        self.asked.append(wanted.decoder)
        left = BATCH * self.batches[wanted.decoder] if first else sys.maxsize
        for frames in super().frames(path, replace(wanted, decoder="pyav")):
            for begin in range(0, len(frames.times), BATCH):
                if left <= 0:
                    self.kill()
                    raise VideoFault(str(path), why, retry=True)
                taken = slice(begin, begin + min(BATCH, left))
                left -= BATCH
                yield Frames(frames.images[taken], frames.times[taken])


@pytest.mark.parametrize(
    ("batches", "asked", "by", "reason"),
    [
        ({"pyav": 7, "decord": 0}, ["pyav", "decord"], "pyav", "pyav gave up"),
        ({"pyav": 7, "decord": 2}, ["pyav", "decord", "pyav"], "pyav", "pyav gave up"),
        ({"pyav": 0, "decord": 7}, ["pyav", "decord"], "decord", "decord gave up"),
        ({"pyav": 2, "decord": 7}, ["pyav", "decord"], "decord", "decord gave up"),
        ({"pyav": 7, "decord": 7}, ["pyav", "decord"], "decord", "pyav: pyav gave up; decord: decord gave up"),
    ],
)
def test_the_decoder_that_got_furthest_counts(
    film_set: FilmSet,
    small_video: VideoConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches: dict[str, int],
    asked: list[str],
    by: str,
    reason: str,
) -> None:
    """Its frames and no more are kept, once, over several parts; the quarantine has their number and its reason."""
    monkeypatch.setattr(part_task, "installed", lambda: ["pyav", "decord"])
    config = replace(small_video, val_fraction=0.0, keep_partial=True)
    with GivingUp(batches) as decoder:
        monkeypatch.setattr(part_task, "decoder_process", lambda: decoder)
        store = ingest_video([film_set["cuts"].path], tmp_path / "s.bx", config, max_bad=1.0).store
    rows = [row for part in store.video_parts("train") for row in part.video_meta()]
    (refused,) = store.quarantine()
    read = sum(row["frames"] for row in rows)

    assert decoder.asked == asked
    assert len(rows) > 1
    assert {row["decoder"] for row in rows} == {by}
    assert (refused["reason"], refused["frames_read"], refused["frames_kept"]) == (reason, read, read)
    assert max(batches.values()) * BATCH - BATCH < read <= max(batches.values()) * BATCH


def test_nothing_is_decoded_again_for_nothing(
    film_set: FilmSet, small_video: VideoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --keep-partial each decoder tries once, all is taken back, and the furthest one's reason is told."""
    monkeypatch.setattr(part_task, "installed", lambda: ["pyav", "decord"])
    sources = [film_set["cuts"].path, film_set["tall"].path]
    with GivingUp({"pyav": 4, "decord": 3}) as decoder:
        monkeypatch.setattr(part_task, "decoder_process", lambda: decoder)
        store = ingest_video(sources, tmp_path / "s.bx", replace(small_video, val_fraction=0.0), max_bad=0.5).store

    assert decoder.asked == ["pyav", "decord", "pyav"]
    assert {span.source for part in store.manifest.parts for span in part.spans} == {"tall.mp4"}
    assert [(row["path"], row["reason"]) for row in store.quarantine()] == [("cuts.mp4", "pyav gave up")]


def test_only_what_is_installed_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library or a program that is not there is no decoder that fails."""
    there = ["pyav"] + ["decord"] * (importlib.util.find_spec("decord") is not None)
    monkeypatch.setenv("PATH", str(tmp_path))
    without = installed()
    program = tmp_path / "ffmpeg"
    program.write_text("")
    program.chmod(0o755)

    assert (without, installed()) == (there, [*there, "ffmpeg"])
