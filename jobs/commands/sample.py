"""`bytropix sample`: what a video model makes of a clip, of the gap in one, or of nothing, as a file.

RUN -> model of the latest checkpoint (its mean weights)
--condition film | store -> frames as the run's own -> region maps -> given frames -> samples -> --out
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from bytropix.errors import ConfigError, RunError
from bytropix.gaad.maps import region_maps
from bytropix.jobs.comparison import write_comparison
from bytropix.jobs.condition import Footage, Stretch, is_store, stretch_of_film, stretch_of_store
from bytropix.jobs.pictures import write_pictures, writer_of
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.store_report import printable
from bytropix.jobs.video_metrics import psnr
from bytropix.jobs.video_pictures import GAP, beside, stacked
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model
from bytropix.video.model import Given, VideoModel
from bytropix.video.rollout import Kind, check_able, evaluations, following, interpolate, roll_out, unconditional
from bytropix.video.sampling import SamplingConfig

FASTEST = 1000.0
UNKNOWN_RATE = 12.0  # frames a second, where neither flags nor film nor store say one
MOST_SAMPLES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Let a trained video model go on from a clip, fill a gap in it, or begin from nothing.

    Longer films than the model makes at once are rolled out: what it has made is what it is given next. The same run,
    condition, flags and seed give the same frames.
    """

    run: Path
    """The run folder; its latest checkpoint is read."""
    out: Path
    """The file to write; its name ends in .mp4 (H.264), .webp or .gif (animations), or .png (all frames in a row)."""
    condition: str | None = None
    """What the model is given: a film, or a store of clips. A film of another size or rate than the run's is resampled.
    Leave it out to begin from nothing."""
    start: float = 0.0
    """Seconds into the film at which the given frames begin."""
    split: str = "val"
    """The split of a store."""
    clip: int = 0
    """Which clip of the split, from 0, as `bytropix preview` counts them."""
    frames: int | None = None
    """Frames to make; as many as the model makes at once, unless you say."""
    interpolate: bool = False
    """Make the frames between the first and the last of a window of the condition, which are given, instead of those
    that come next."""
    count: int = 1
    """Samples, each of its own noise, side by side in the file."""
    compare: bool = False
    """Show the samples beside the truth, which the condition has to hold; in a film after the given frames, beside the
    last of them."""
    fps: float = 0.0
    """Frames a second of the file; 0: as many as the condition has."""
    sampling: Annotated[SamplingConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=SamplingConfig)
    """How samples are drawn."""
    device: str = "auto"
    """cpu, cuda, or auto for a GPU where there is one."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: bool = False
    """Print one JSON object about the samples on stdout."""

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"--frames must be at least 1, got {self.frames}")
        if not 1 <= self.count <= MOST_SAMPLES:
            raise ConfigError(f"--count must lie in 1..{MOST_SAMPLES}, got {self.count}")
        if not 0 <= self.fps <= FASTEST:
            raise ConfigError(f"--fps must lie in 0..{FASTEST:g}, got {self.fps:g}")
        if not 0 <= self.start < float("inf"):
            raise ConfigError(f"--start must be 0 or more seconds, got {self.start:g}")
        for name in ("interpolate", "compare"):
            if getattr(self, name) and not self.condition:
                raise ConfigError(f"--{name} needs --condition, a film or a store to take frames from")

    def __call__(self) -> int:
        """Sample, and write the file.

        Raises:
            ConfigError: The file cannot have this name or is there already, the condition is too short, or the model
                cannot do what is asked.
            RunError: There is no run of a video model that samples.
        """
        writer_of(self.out)
        if self.out.exists() and not self.overwrite:
            raise ConfigError(f"--out {self.out}: is there already; give --overwrite, or another place")
        began = time.perf_counter()
        work = Work(self)
        work.check_size()
        made = work.samples()
        rate = self.fps or work.rate
        figures = {**work.figures(made), "fps": rate, "out": str(self.out)}
        work.write(made, rate)
        figures["seconds"] = round(time.perf_counter() - began, 3)
        if self.json:
            print(json.dumps(figures, sort_keys=True))
            return 0
        for name in ("psnr_db", "copy_last_psnr_db"):
            if name in figures:
                print(f"{name} {figures[name]:.2f}", file=sys.stderr)
        print(
            f"wrote {printable(str(self.out))}: {work.frames} frames of {work.footage.words} at {rate:g} a "
            f"second, from {printable(figures['source'])}",
            file=sys.stderr,
        )
        return 0


class Work:
    """A loaded model and what it is given, by the flags of a command.

    Raises:
        ConfigError, RunError, StoreError, SourceError: As the command.
    """

    def __init__(self, flags: Sample) -> None:
        self._flags = flags
        run = RunFolder(flags.run)
        self.footage = Footage.of(run)
        self.device = choose_device(flags.device)
        self.model = load_video_model(run).to(self.device)
        config = self.model.config
        self.frames = flags.frames or config.predicted_frames
        self.kind: Kind = "interpolation" if flags.interpolate else "prediction" if flags.condition else "unconditional"
        check_able(config, flags.sampling, self.kind, self.frames)
        self.given: NDArray[np.uint8] | None = None
        self.truth: NDArray[np.uint8] | None = None
        self.source, self.rate = "nothing", self.footage.fps / self.footage.every or UNKNOWN_RATE
        if flags.condition:
            self._take(self._stretch(flags.condition, config.given_frames + self.frames))

    def _stretch(self, condition: str, count: int) -> Stretch:
        """Return the frames of the condition."""
        flags = self._flags
        if is_store(condition):
            if flags.start:
                raise ConfigError("--start is for films: choose a clip of the store with --clip")
            return stretch_of_store(condition, flags.split, flags.clip, self.footage, count)
        if flags.clip:
            raise ConfigError("--clip is for stores: choose the place in a film with --start")
        return stretch_of_film(Path(condition), self.footage, flags.start, count)

    def _take(self, found: Stretch) -> None:
        """Tell given frames from true ones."""
        config, images = self.model.config, found.images
        first = -(-config.given_frames // 2) if self._flags.interpolate else config.given_frames
        least = config.frames if self._flags.interpolate else first
        if self._flags.compare:
            least = config.given_frames + self.frames
        if len(images) < least:
            what = "the model is given" if least == config.given_frames else "given and made frames are"
            raise ConfigError(f"{found.source}: {what} {least} frames, and there are {len(images)}; take a longer one")
        if found.notice:
            print(printable(found.notice), file=sys.stderr)
        self.source, self.rate = found.source, found.fps or self.rate
        self.before, after = images[:first], images[first + self.frames :]
        self.given = np.concatenate([self.before, after]) if self._flags.interpolate else self.before
        truth = images[first : first + self.frames]
        self.truth = truth if len(truth) == self.frames else None

    def check_size(self) -> None:
        """Refuse a film of H.264 with an odd side, before any work is done.

        Raises:
            ConfigError: It would have one.
        """
        flags, height = self._flags, self.footage.height
        width = flags.count * (self.footage.width + GAP) - GAP
        if flags.out.suffix.lower() == ".mp4" and not flags.compare and (height % 2 or width % 2):
            raise ConfigError(
                f"--out {flags.out}: frames of {width} x {height}, and H.264 needs even sides; take .webp, .gif or .png"
            )

    def samples(self) -> NDArray[np.uint8]:
        """Return what the model makes, u8 [count, frames, h, w, 3]."""
        flags, model, config = self._flags, self.model, self._flags.sampling
        clips = torch.arange(flags.count, device=self.device)
        total = evaluations(model, flags.count, self.frames, config)
        with progress_bar("sample", total, unit=" steps") as bar:
            if self.given is None:
                size = (self.footage.height, self.footage.width)
                pieces = unconditional(model, clips, size, self.frames, config, tick=bar.update)
            elif flags.interpolate:
                pieces = iter([interpolate(model, self._condition(self.given), config, clips=clips, tick=bar.update)])
            else:
                pieces = roll_out(model, self._condition(self.given), self.frames, config, clips=clips, tick=bar.update)
            return np.concatenate([piece.cpu().numpy() for piece in pieces], axis=1)

    def _condition(self, images: NDArray[np.uint8]) -> Given:
        """Return frames and their maps as what the model is given, the same for every sample."""
        parts = (images, *region_maps(images, None, self.model.config.regions))
        tensors = (torch.from_numpy(np.array(part)).to(self.device) for part in parts)
        return following(*(part.expand(self._flags.count, *part.shape) for part in tensors))

    def figures(self, made: NDArray[np.uint8]) -> dict[str, Any]:
        """Return what there is to say of samples."""
        flags, config = self._flags, self._flags.sampling
        found: dict[str, Any] = {
            "run": str(flags.run),
            "source": self.source,
            "kind": "interpolation"
            if flags.interpolate
            else "prediction"
            if self.given is not None
            else "unconditional",
            "given": 0 if self.given is None else len(self.given),
            "frames": self.frames,
            "height": self.footage.height,
            "width": self.footage.width,
            "count": flags.count,
            "sampler": config.sampler,
            "steps": config.steps,
            "guidance": config.guidance,
            "eta": config.eta,
            "seed": config.seed,
        }
        if self.truth is not None:
            truth = torch.from_numpy(self.truth.copy())
            held = torch.from_numpy(np.broadcast_to(self.before[-1:], self.truth.shape).copy())
            found["psnr_db"] = float(np.mean([float(psnr(torch.from_numpy(one), truth).mean()) for one in made]))
            found["copy_last_psnr_db"] = float(psnr(held, truth).mean())
        return found

    def write(self, made: NDArray[np.uint8], rate: float) -> None:
        """Write samples, u8 [count, frames, h, w, 3], to the file."""
        out, seconds = self._flags.out, 1 / rate
        if self._flags.compare:
            assert self.truth is not None
            clip = np.concatenate([self.before, self.truth])
            write_comparison(out, [clip] * len(made), list(made), seconds=seconds)
            return
        if out.suffix.lower() == ".png":
            pictures = [stacked([beside(list(frames)) for frames in made])]
        else:
            pictures = [beside(list(frames)) for frames in made.swapaxes(0, 1)]
        write_pictures(out, pictures, [seconds] * len(pictures))


def load_video_model(run: RunFolder) -> VideoModel:
    """Return the video model of a run's latest checkpoint, in evaluation mode.

    Raises:
        RunError: There is none, or it is an autoencoder alone.
    """
    recipe = run.recipe(VideoRecipe)
    if recipe.stage == "autoencoder":
        raise RunError(
            f"{run.path}: a run of stage autoencoder, which has learned frames and no films; go on with `bytropix "
            f"train video --stage diffusion --autoencoder {run.path}`"
        )
    model = run.load(build_video_model(recipe))
    assert isinstance(model, VideoModel)
    return model
