"""`bytropix convert-video`: videos of any kind to H.264 files of one size and frame rate.

IN, OUT -> plan_conversions -> convert_videos, a line for each file -> summary; exit code 2 where a file failed

A single file that fails is an error like any other: one line.
"""

import json
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from bytropix.errors import SourceError
from bytropix.jobs.progress import stage_bars
from bytropix.jobs.store_report import printable
from bytropix.pipelines.video.convert_video import Conversion, ConvertConfig, convert_videos, plan_conversions
from bytropix.pipelines.video.encode import choose_encoder

FAILED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertVideo:
    """Turn a video, or a folder of videos, into H.264 MP4 files of one size and frame rate, without sound."""

    source: tyro.conf.Positional[str]
    """A video, or a folder of them."""
    out: tyro.conf.Positional[Path]
    """The file to make, or the folder for the files."""
    config: Annotated[ConvertConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ConvertConfig)
    """What becomes of a video."""
    overwrite: bool = False
    """Replace files that are there."""
    dry_run: bool = False
    """Say what would be made, from the headers alone, and write nothing."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __call__(self) -> int:
        """Convert, and say what was made and what was not.

        Raises:
            SourceError: A file that was named itself cannot be converted, and no JSON was asked for.
        """
        begin = time.perf_counter()
        encoder = choose_encoder(self.config.encoder)
        todo = plan_conversions(self.source, self.out)
        single = not Path(self.source).is_dir()
        # Of a single file that fails one line is to stay; a bar that vanishes needs a terminal.
        bars = not self.dry_run and (sys.stderr.isatty() or not single)
        done = []
        with ExitStack() as stack:
            progress = {"progress": stack.enter_context(stage_bars(leave=not single))} if bars else {}
            videos = convert_videos(todo, self.config, overwrite=self.overwrite, dry_run=self.dry_run, **progress)
            for one in stack.enter_context(closing(videos)):
                done.append(one)
                if single and one.fault and not self.json:
                    raise SourceError(self._line(one))
                if not self.json:
                    tqdm.write(self._line(one), file=sys.stderr)  # above the bar
        failed = sum(bool(one.fault) for one in done)
        report = {
            "encoder": encoder,
            "dry_run": self.dry_run,
            "files": [self._row(one) for one in done],
            "to_convert" if self.dry_run else "converted": len(done) - failed,
            "failed": failed,
            "seconds": round(time.perf_counter() - begin, 3),
        }
        if self.json:
            print(json.dumps(report, sort_keys=True))
        else:
            what = "to convert" if self.dry_run else "converted"
            print(f"{len(done) - failed:,} {what} by {encoder}, {failed:,} failed", file=sys.stderr)
        return FAILED if failed else 0

    def _line(self, one: Conversion) -> str:
        """Return a file's line."""
        if one.fault or one.info is None:
            return f"{printable(one.source)}: {printable(one.fault)}"
        info, out = one.info, printable(one.target)
        there = f"{info.codec} {info.width} x {info.height}, {info.fps:.5g} fps, {info.duration:.2f} s"
        trimmed = ", a pixel less since H.264 needs even sides" if one.trimmed else ""
        made = "" if self.dry_run else f", {one.frames:,} frames"
        return f"{printable(one.source)} ({there}) -> {out} ({one.width} x {one.height}{trimmed}{made})"

    def _row(self, one: Conversion) -> dict[str, Any]:
        """Return a file as plain data."""
        if one.fault:
            return {"source": one.source, "fault": one.fault}
        made = {} if self.dry_run else {"frames": one.frames}
        return {"source": one.source, "target": one.target, "height": one.height, "width": one.width, **made}
