"""`bytropix convert`: a store in another layout, without loss.

STORE -> convert, with a progress bar -> summary lines on stderr, or one JSON object on stdout
"""

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bytropix.datasets.store import PartLayout, Store, VideoLayout
from bytropix.datasets.store.video_formats import FrameCodecName
from bytropix.errors import ConfigError
from bytropix.jobs.progress import stage_bars
from bytropix.jobs.store_report import printable
from bytropix.jobs.working import Working
from bytropix.pipelines.tools.convert import convert, same_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Convert:
    """Make a store of the same content in another format or codec."""

    store: tyro.conf.Positional[str]
    """The store, a folder or a URL; it stays as it is."""
    out: tyro.conf.Positional[str]
    """The store to make."""
    layout: Annotated[PartLayout, tyro.conf.OmitArgPrefixes] = field(default_factory=PartLayout)
    """How its parts lie on disk."""
    frame_codec: FrameCodecName | None = None
    """Of a store of video: keep frames as raw, zstd, jpeg or h264; by default as they are, coded ones untouched."""
    quality: int = 90
    """Of video that becomes jpeg: 1 to 100, the best."""
    crf: int = 20
    """Of video that becomes h264: 51 to 0, the best."""
    version: int | None = None
    """Convert this version; the newest by default. Other versions are not carried along."""
    working: Annotated[Working, tyro.conf.OmitArgPrefixes] = field(default_factory=Working)
    """Who does the work."""
    resume: bool = False
    """Complete what an earlier run of the same conversion left."""
    overwrite: bool = False
    """Replace a store that is there."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __call__(self) -> int:
        """Make the store and say what it is."""
        begin = time.perf_counter()
        layout = self._layout()
        with stage_bars() as progress, self.working.runner(self.store) as runner:
            converted = convert(
                self.store,
                self.out,
                layout,
                runner,
                version=self.version,
                resume=self.resume,
                overwrite=self.overwrite,
                progress=progress,
            )
        seconds = time.perf_counter() - begin
        manifest = converted.store.manifest
        n_bytes = sum(part.n_bytes for part in manifest.parts)
        on_disk = sum(file.size for part in manifest.parts for file in part.files)
        report = {
            "store": converted.store.url,
            "fingerprint": converted.store.fingerprint,
            "bytes": n_bytes,
            "bytes_stored": on_disk,
            "parts": len(manifest.parts),
            "parts_skipped": converted.skipped,
            "seconds": round(seconds, 3),
            "mb_per_second": round(n_bytes / 1e6 / seconds, 1),
        }
        if self.json:
            print(json.dumps(report, sort_keys=True))
            return 0
        beside = "their regions and times" if manifest.kind == "video" else "their entropies and patches"
        lines = [
            f"store        {printable(converted.store.url)}",
            f"layout       {layout.format}, codec {layout.used_codec}",
            f"bytes        {n_bytes:,}, stored with {beside} in {on_disk:,}",
            f"parts        {len(manifest.parts):,}, {converted.skipped:,} there from an earlier run",
            f"time         {seconds:.1f} s, {report['mb_per_second']:,} MB/s",
        ]
        print("\n".join(lines), file=sys.stderr)
        return 0

    def _layout(self) -> PartLayout | VideoLayout:
        """Return the layout that is meant for a store of this kind.

        Raises:
            ConfigError: Flags of the other kind.
            StoreError: There is no such store.
        """
        manifest = Store.open(self.store, self.version).manifest
        if manifest.kind != "video":
            if self.frame_codec is not None:
                raise ConfigError(f"--frame-codec {self.frame_codec}: {self.store} holds bytes; --codec packs them")
            return self.layout
        if self.layout.codec is not None:
            raise ConfigError(f"--codec {self.layout.codec}: {self.store} holds video; --frame-codec packs its frames")
        wanted = VideoLayout(
            format=self.layout.format, frame_codec=self.frame_codec, quality=self.quality, crf=self.crf
        )
        return wanted if self.frame_codec else same_frames(manifest, wanted)
