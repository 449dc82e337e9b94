"""Videos into H.264 files of one size and frame rate.

    IN -> pairs of source and target -> probe -> decode, pick, shape -> encode -> target, whole or not at all

A file that cannot be read, or has no size that H.264 can take, is named and the rest are done.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bytropix.datasets.store.manifest import MANIFEST
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.pipelines.decoders import DecoderProcess, VideoFault, VideoInfo, Wanted
from bytropix.pipelines.decoders.contract import Fit
from bytropix.pipelines.sources.files import find_files
from bytropix.pipelines.video.encode import EncoderName, check_even, choose_encoder, write_video

Progress = Callable[[str, int, int], None]
USUAL_FPS = 25.0  # for the header, where the source does not say
NEAR = 0.0005  # seconds: times are sums of fractions


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """What becomes of a video. Sound is left out.

    Raises:
        ConfigError: A value is out of its range.
    """

    size: tuple[int, int] | None = None
    """Height and width in pixels, both even; by default the source's, less a row or column where it is odd."""
    fit: Fit = "crop"
    """How a picture of another shape gets the size: cut at two sides, padded with black, or stretched."""
    fps: float = 0.0
    """Frames a second, picked by time; 0 keeps every frame and its time."""
    crf: int = 18
    """Quality: 0 loses nothing, 18 is hard to tell from the source, 51 is the worst."""
    encoder: EncoderName = "auto"
    """NVENC, the CPU, or whichever of them works on this machine, in this order."""
    start: float = 0.0
    """Seconds from the beginning that are left out."""
    duration: float = 0.0
    """Seconds that are kept from there on; 0: all."""

    def __post_init__(self) -> None:
        if self.size is not None:
            check_even(*self.size)
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"crf must lie in 0 to 51, got {self.crf}")
        if not 0 <= self.fps <= 1000:
            raise ConfigError(f"fps must lie in 0 (keep) to 1000, got {self.fps}")
        if not (self.start >= 0 and self.duration >= 0):
            raise ConfigError(f"start and duration must not be negative, got {self.start} and {self.duration}")


@dataclass(frozen=True, slots=True)
class Conversion:
    """One file, done, to do, or failed."""

    source: str
    """Path of the source."""
    target: str
    """Path of the file to make."""
    size: int = 0
    """Bytes of the source."""
    info: VideoInfo | None = None
    """What its header says; `None` where it cannot be read."""
    height: int = 0
    """Of the target, in pixels."""
    width: int = 0
    """Of the target, in pixels."""
    trimmed: bool = False
    """Whether the target lacks a row or a column, since the source has an odd number of them."""
    frames: int = 0
    """Frames written."""
    fault: str = ""
    """Why there is no target; empty where all is well."""


def plan_conversions(source: str, out: Path) -> list[Conversion]:
    """Return what is to be made of a file or a folder, sorted by name.

    Args:
        source: A file, or a folder that is searched for files.
        out: For a file, the file to make, or a folder; for a folder, a folder, in which the same names lie with .mp4
            as their suffix.

    Raises:
        SourceError: The source is missing or holds no file.
        ConfigError: `out` is of the wrong kind or lies in the source, or the source is a store.
    """
    if not Path(source).exists():
        raise SourceError(f"{source}: no such file or folder; check the path")
    if (Path(source) / MANIFEST).is_file():
        raise ConfigError(
            f"{source}: is a store, not a folder of videos; `bytropix convert` writes a store in another format, "
            "`bytropix preview` makes a film of a clip"
        )
    files = find_files([source])
    if not Path(source).is_dir():
        target = out / f"{Path(source).stem}.mp4" if out.is_dir() else out
        if target.suffix.lower() != ".mp4":
            raise ConfigError(f"{out}: name a file that ends in .mp4, or a folder that is there")
        return [Conversion(source, str(target), files[0].size, fault=files[0].refused)]
    if out.resolve().is_relative_to(Path(source).resolve()):
        raise ConfigError(f"{out}: lies in {source}, where it would be converted itself; choose a folder beside it")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; the files of a folder go to a folder")
    places = [Path(file.path).relative_to(source) for file in files]
    stems = [place.with_suffix("") for place in places]
    # Where two files differ in their suffix alone, both keep it before the new one.
    targets = [
        place.with_name(f"{place.name}.mp4") if stems.count(stem) > 1 else place.with_suffix(".mp4")
        for place, stem in zip(places, stems, strict=True)
    ]
    return [
        Conversion(file.path, str(out / target), file.size, fault=file.refused)
        for file, target in zip(files, targets, strict=True)
    ]


def convert_videos(
    conversions: list[Conversion],
    config: ConvertConfig,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Generator[Conversion, None, None]:
    """Make the files one by one and give what became of each.

    Args:
        conversions: From `plan_conversions`.
        config: What becomes of a video.
        overwrite: Replace files that are there.
        dry_run: Read the headers alone and write nothing.
        progress: Called with "convert", bytes of the sources done and their sum.

    Raises:
        ConfigError: NVENC was asked for and does not work here.
        StoreError: The disk is full, or a target cannot be written.
    """
    encoder = choose_encoder(config.encoder)
    total = sum(one.size for one in conversions)
    done = 0
    with DecoderProcess() as decoder:
        for one in conversions:

            def tell(share: float, one: Conversion = one, done: int = done) -> None:
                progress("convert", done + round(min(share, 1.0) * one.size), total)

            yield one if one.fault else _convert(one, config, decoder, encoder, tell, overwrite, dry_run)
            done += one.size
            progress("convert", done, total)


def _convert(
    one: Conversion,
    config: ConvertConfig,
    decoder: DecoderProcess,
    encoder: str,
    tell: Callable[[float], None],
    overwrite: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
) -> Conversion:
    """Make one file and return what became of it."""
    target = Path(one.target)
    if target.exists() and not overwrite:
        return replace(one, fault=f"{target} is there already; give --overwrite, or another place")
    if target.exists() and target.samefile(one.source):
        return replace(one, fault="would replace itself; choose another place")
    try:
        info = decoder.probe(one.source)
        height, width = config.size or (_even(info.height), _even(_square(info)))
        check_even(height, width)
        trimmed = not config.size and (height, width) != (info.height, _square(info))
        one = replace(one, info=info, height=height, width=width, trimmed=trimmed)
        if dry_run:
            return one
        _make_folder(target.parent)
        return replace(one, frames=_encode(one, info, config, decoder, encoder, tell))
    except VideoFault as fault:
        after = f", after {fault.frames_before:,} frames" if fault.frames_before else ""
        return replace(one, fault=f"{fault.reason}{after}")
    except ConfigError as error:
        return replace(one, fault=str(error))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror}); choose another place") from error


def _square(info: VideoInfo) -> int:
    """Return the width of a video in square pixels, which is all that is written; even where it has to be reckoned."""
    return info.width if info.pixel_aspect == 1 else 2 * round(info.width * info.pixel_aspect / 2)


def _even(side: int) -> int:
    """Return a side of a source without its last pixel where it is odd; a single pixel stays, and is refused."""
    return max(1, side // 2 * 2)


def _encode(
    one: Conversion,
    info: VideoInfo,
    config: ConvertConfig,
    decoder: DecoderProcess,
    encoder: str,
    tell: Callable[[float], None],
) -> int:
    """Decode, cut out and encode; return how many frames were written."""
    wanted = Wanted(height=one.height, width=one.width, fit=config.fit, fps=config.fps)
    end = config.start + config.duration if config.duration else np.inf
    first = None
    with (
        closing(decoder.frames(one.source, wanted)) as chunks,
        write_video(
            Path(one.target),
            one.height,
            one.width,
            fps=config.fps or info.fps or USUAL_FPS,
            crf=config.crf,
            encoder=encoder,
        ) as writer,
    ):
        for chunk in chunks:
            kept = (chunk.times >= config.start - NEAR) & (chunk.times < end - NEAR)
            times = chunk.times[kept]
            first = times[0] if first is None and len(times) else first
            writer.write(chunk.images[kept], times - (first or 0.0))
            tell(float(chunk.times[-1]) / min(end, info.duration or np.inf))
            if chunk.times[-1] >= end:
                break
        if not writer.frames:
            raise ConfigError(f"no frame is shown from {config.start:g} s on; take a smaller --start")
    return writer.frames
