"""What the training loop must know of video models: the autoencoder's task, and that of diffusion on its latents.

    stage autoencoder -> AutoencoderTask: FrameAutoencoder learns to reconstruct
    stage diffusion ---> DiffusionTask: a trained autoencoder, frozen, its latents measured -> VideoModel learns to
    stage joint -------> denoise them; jointly, the autoencoder goes on learning to reconstruct

A model of diffusion holds the autoencoder that it began with, so that its run needs no other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bytropix.config import to_plain
from bytropix.datasets.clip_batch import ClipBatch
from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.resumable import ResumableStream
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, RunError
from bytropix.jobs.metrics import RunLog, Unit
from bytropix.jobs.ranks import Ranks
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.sharding import Shares, plain_copy
from bytropix.jobs.video_clips import clips_of, frame_size, measured_frames, require_video, rule_of, table_of, val_clips
from bytropix.jobs.video_looks import Look, look_at_predictions, look_at_reconstructions
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model
from bytropix.jobs.video_totals import AutoencoderTotal, DiffusionTotal, reconstruction_scalars, timestep_scalars
from bytropix.video.autoencoder import FrameAutoencoder, measure_latents
from bytropix.video.blocks import Block
from bytropix.video.model import VideoModel, measure_residuals


class ClipTask(ABC):
    """What both tasks have in common.

    Args:
        recipe: What to train; its region settings are those of the maps that it will see, see `fitted`.
        store: An open store of video.

    Attributes:
        unit: A clip.
        notices: What the user should know before training begins.
        evaluates: Whether there are val clips.

    Raises:
        StoreError: The store holds no videos.
        ConfigError: Its frames are too small for the model.
    """

    def __init__(self, recipe: VideoRecipe, store: Store) -> None:
        require_video(store)
        check_size(recipe, store)
        self.recipe, self.source = recipe, store
        self.unit = Unit(name="clips", loss="", holds={"frames": recipe.video.frames}, words=self._words)
        self.notices: list[str] = []
        self._clips: ClipBatch | None = None
        val = table_of(store, "val", rule_of(recipe, store))
        self.evaluates = val is not None and val.clips > 0
        if not self.evaluates:
            frames = recipe.video.frames
            self.notices.append(
                f"{store.url} has no val clip of {frames} frames: nothing is evaluated or sampled during training; "
                "ingest with a larger --val-fraction"
            )

    def stream(self, device: torch.device, ranks: Ranks) -> ClipStream:
        """Return this rank's clips."""
        train = self.recipe.train
        return clips_of(
            self.recipe,
            self.source,
            ranks=ranks,
            batch=train.batch,
            seed=train.seed,
            flip=train.flip,
            checks=train.checks,
            budget=train.damage_budget,
            pinned=device.type == "cuda",
        )

    def build(self) -> nn.Module:
        """Return a freshly initialized model."""
        return build_video_model(self.recipe)

    def units(self, batch: ClipBatch) -> int:
        """Return how many rows hold a clip."""
        return batch.clips

    def reading(self, stream: ResumableStream[ClipBatch], position: int, since: int) -> Mapping[str, float]:
        """Return nothing: there is one store."""
        return {}

    def show(self, batch: ClipBatch, step: int, log: RunLog) -> None:  # noqa: B027 - a task may have nothing to show
        """Show nothing of a batch: pictures are of val clips."""

    def kept(self, folder: Path) -> dict[str, Any]:
        """Return what a run keeps of its store: how it was ingested, and the size of its frames."""
        store = self.source
        height, width = frame_size(store)
        return {
            "name": store.name,
            "fingerprint": store.fingerprint,
            "config": store.manifest.config,
            "size": [height, width],
        }

    def evaluate(self, model: nn.Module, step: int, log: RunLog, ranks: Ranks) -> None:
        """Log what a model makes of val clips, of which rank 0 alone sees any."""
        if not self.evaluates:
            return
        whole = plain_copy(model, self.build)
        with ranks.together():
            if ranks.speaks:
                if self._clips is None:
                    self._clips = val_clips(self.recipe, self.source)
                found = self._look(whole.eval(), self._clips)
                log.scalars(step, found.scalars)
                log.line({"event": "evaluate", "step": step, **found.scalars})
                log.note(f", {found.words}")
                for picture in found.pictures:
                    log.events._get_file_writer().add_summary(picture, step)

    @abstractmethod
    def _look(self, model: nn.Module, clips: ClipBatch) -> Look:
        """Return what a whole model in evaluation mode makes of clips."""

    def _words(self, loss: float, per_second: float) -> str:
        """Return the words behind the progress bar."""
        return f"loss {loss:.4f}, {per_second:.2f} clips/s"


class AutoencoderTask(ClipTask):
    """The autoencoder learns to reconstruct frames."""

    def prepare(self, model: nn.Module, device: torch.device, ranks: Ranks) -> None:
        """Leave a fresh autoencoder as it is."""

    def loss(self, model: nn.Module) -> nn.Module:
        """Return the sum of the reconstruction losses."""
        return AutoencoderTotal(cast(FrameAutoencoder, model))

    def shares(self, model: nn.Module, loss: nn.Module) -> Shares:
        """Return how FSDP2 splits it: as one."""
        return Shares(loss, ())

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return encoder and decoder."""
        return dict(model.named_children())

    def scalars(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return nothing: an autoencoder has no levels."""
        return {}

    def tallied(self, tallies: Tensor) -> Mapping[str, float]:
        """Return how well the clips of the last steps were reconstructed."""
        return reconstruction_scalars(tallies)

    def _look(self, model: nn.Module, clips: ClipBatch) -> Look:
        return look_at_reconstructions(cast(FrameAutoencoder, model), clips, self.recipe.train)


class DiffusionTask(ClipTask):
    """The video model learns to denoise latents; jointly, its autoencoder goes on learning too.

    Args:
        recipe: What to train.
        store: An open store of video.
        autoencoder: The run whose autoencoder a fresh run begins with; None where there is a checkpoint to go on from.
    """

    def __init__(self, recipe: VideoRecipe, store: Store, autoencoder: Path | None) -> None:
        super().__init__(recipe, store)
        self._autoencoder = autoencoder

    def prepare(self, model: nn.Module, device: torch.device, ranks: Ranks) -> None:
        """Give a fresh model the trained autoencoder, and measure its latents, on every rank alike."""
        model = cast(VideoModel, model)
        if self._autoencoder is None:
            raise ConfigError(f"stage {self.recipe.stage} begins with a trained autoencoder: name its run")
        model.autoencoder.load_state_dict(load_autoencoder(self._autoencoder, self.recipe).state_dict())
        measure_latents(model.autoencoder, measured_frames(self.recipe, self.source))
        measure_residuals(model, measured_frames(self.recipe, self.source))

    def loss(self, model: nn.Module) -> nn.Module:
        """Return the sum of the diffusion losses."""
        return DiffusionTotal(cast(VideoModel, model), self.recipe.train.seed)

    def shares(self, model: nn.Module, loss: nn.Module) -> Shares:
        """Return how FSDP2 splits it: the denoiser's blocks each by itself."""
        return Shares(loss, (Block,))

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return what a video model is made of, the context by its stacks."""
        children = dict(model.named_children())
        context = children.pop("context", None)
        inner = {} if context is None else {f"context/{name}": part for name, part in context.named_children()}
        return children | inner

    def scalars(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return curvature, scale and spread of every level of every stack."""
        return cast(VideoModel, model).scalars()

    def tallied(self, tallies: Tensor) -> Mapping[str, float]:
        """Return the errors of the last steps by timestep."""
        return timestep_scalars(tallies)

    def _look(self, model: nn.Module, clips: ClipBatch) -> Look:
        return look_at_predictions(cast(VideoModel, model), clips, self.recipe.train)


def video_task(recipe: VideoRecipe, store: Store, autoencoder: Path | None = None) -> AutoencoderTask | DiffusionTask:
    """Return the task of a recipe's stage; see there."""
    if recipe.stage == "autoencoder":
        return AutoencoderTask(recipe, store)
    return DiffusionTask(recipe, store, autoencoder)


def load_autoencoder(path: Path, recipe: VideoRecipe) -> FrameAutoencoder:
    """Return the autoencoder of a run's latest checkpoint, that of its mean weights where it keeps them.

    Args:
        path: A run folder of any stage.
        recipe: Of the run that begins with it.

    Raises:
        RunError: There is no run or checkpoint, it cannot be read, or its autoencoder has other settings.
    """
    run = RunFolder(path)
    made = run.recipe(VideoRecipe)
    there, asked = to_plain(made.video.autoencoder), to_plain(recipe.video.autoencoder)
    differs = ", ".join(
        f"{name} is {there[name]}, asked for {asked[name]}" for name in asked if there[name] != asked[name]
    )
    if differs:
        raise RunError(f"{path}: its autoencoder is of another config ({differs}); use its values or train another one")
    model = run.load(build_video_model(made))
    return model if isinstance(model, FrameAutoencoder) else cast(VideoModel, model).autoencoder


def check_size(recipe: VideoRecipe, store: Store) -> None:
    """Refuse frames that are smaller than a token of the denoiser; all other sizes are padded.

    Raises:
        ConfigError: They are.
    """
    height, width = frame_size(store)
    stride, patch = recipe.video.autoencoder.stride, recipe.network.denoiser.patch
    if min(height, width) <= stride * (patch - 1):
        raise ConfigError(
            f"{store.url}: frames of {height} x {width} give a latent grid of {-(-height // stride)} x "
            f"{-(-width // stride)}, less than a token of {patch} x {patch}: take a smaller --video.autoencoder.stride "
            "or --video.denoiser.patch, or ingest with a larger --size"
        )
