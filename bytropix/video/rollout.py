"""Frames out of the model: what comes next, what lies between, what it makes of nothing, and films of any length.

    given frames --look, once--> Seen --both sides of guidance in one evaluation--> denoise -> latents -> frames
    given F -> P frames -> the last F of all, with region maps of their own -> P more -> ...

The model has to be in evaluation mode. Clips are denoised `config.rows` at a time, so memory does not grow with their
number, and a roll-out keeps no more than it looks at.

Shapes: B clips, F given frames, P target frames, H x W pixels, R regions, M motion regions, C latent channels, h x w
latent grid.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.gaad.maps import region_maps
from bytropix.video.config import VideoModelConfig
from bytropix.video.model import Given, Seen, VideoModel, interpolate_places, predict_places
from bytropix.video.noise import clip_keys, fork
from bytropix.video.sampling import Predict, SamplingConfig, Tick, check_steps, denoise

Kind = Literal["prediction", "interpolation", "unconditional"]

_WINDOWS = 1000  # streams of a clip's key from here on are those of its windows


@torch.no_grad()
def sample(
    model: VideoModel,
    given: Given,
    targets: Tensor,
    config: SamplingConfig,
    *,
    clips: Tensor | None = None,
    window: int = 0,
    tick: Tick | None = None,
) -> Tensor:
    """Return frames at the target places, u8 [B, P, H, W, 3].

    Args:
        model: On the device of `given`.
        given: What is given, of B clips.
        targets: i64 [P], places of the frames that are wanted, other than the given ones'.
        config: How.
        clips: i64 [B], numbers of the clips: with the seed they decide the noise. None: 0 to B - 1.
        window: Which of the windows of a longer film this is; each has noise of its own.
        tick: Called after every evaluation of the denoiser, of which there are `evaluations`.

    Raises:
        ConfigError: The sampler cannot do this with this model.
    """
    rows = len(given.frames)
    if clips is None:
        clips = torch.arange(rows)
    keys = fork(clip_keys(config.seed, clips), _WINDOWS + window).to(given.frames.device)
    places = targets.to(given.frames.device)
    found = [
        _sample_rows(model, _rows(given, part), places, keys[part], config, tick) for part in _parts(rows, config.rows)
    ]
    return torch.cat(found)


def roll_out(
    model: VideoModel,
    given: Given,
    frames: int,
    config: SamplingConfig,
    *,
    clips: Tensor | None = None,
    window: int = 0,
    tick: Tick | None = None,
) -> Iterator[Tensor]:
    """Yield the next frames, P at a time, u8 [B, <= P, H, W, 3]; what was made is given for what comes after it.

    Args:
        model: On the device of `given`.
        given: F frames in a row, of B clips; their places are those of a prediction.
        frames: How many frames to make, in all.
        config: How.
        clips: As of `sample`.
        window: Number of the first window.
        tick: As of `sample`.

    Raises:
        ConfigError: There is nothing to make, or the sampler cannot do this with this model.
    """
    check_able(model.config, config, "prediction", frames)
    _, targets = predict_places(model.config)
    while frames > 0:
        made = sample(model, given, targets, config, clips=clips, window=window, tick=tick)
        yield made[:, :frames]
        frames -= made.shape[1]
        window += 1
        if frames > 0:
            given = _slide(model, given, made)


def interpolate(
    model: VideoModel,
    given: Given,
    config: SamplingConfig,
    *,
    clips: Tensor | None = None,
    tick: Tick | None = None,
) -> Tensor:
    """Return the P frames between the first and the last given ones, u8 [B, P, H, W, 3].

    Args:
        model: Trained with `diffusion.interpolation_share` above 0.
        given: F frames: the first ceil(F / 2) of them lie before the gap and the others behind it.
        config: How.
        clips: As of `sample`.
        tick: As of `sample`.

    Raises:
        ConfigError: The model has not learned to.
    """
    check_able(model.config, config, "interpolation", model.config.predicted_frames)
    places, targets = interpolate_places(model.config)
    given = replace(given, places=places.to(given.frames.device).expand(len(given.frames), -1))
    return sample(model, given, targets, config, clips=clips, tick=tick)


def unconditional(
    model: VideoModel,
    clips: Tensor,
    size: tuple[int, int],
    frames: int,
    config: SamplingConfig,
    *,
    tick: Tick | None = None,
) -> Iterator[Tensor]:
    """Yield frames that follow from nothing, P at a time, u8 [B, <= P, H, W, 3]; later ones follow from the first.

    Args:
        model: On the device where the work is done.
        clips: i64 [B], numbers of the clips, on that device.
        size: Height and width in pixels.
        frames: How many to make, in all.
        config: How; guidance begins with the frames that follow from others.
        tick: As of `sample`.

    Raises:
        ConfigError: The model can only add to given frames, or makes too few at once to go on from.
    """
    settings = model.config
    check_able(settings, config, "unconditional", frames)
    first = min(frames, settings.predicted_frames)
    given = _nothing(model, clips, size)
    _, targets = predict_places(settings)
    made = sample(model, given, targets, config, clips=clips, tick=tick)
    yield made[:, :frames]
    if frames > first:
        given = replace(_slide(model, given, made), dropped=None)
        yield from roll_out(model, given, frames - first, config, clips=clips, window=1, tick=tick)


def check_able(model: VideoModelConfig, config: SamplingConfig, kind: Kind, frames: int) -> None:
    """Refuse what a model has not learned.

    Raises:
        ConfigError: It says what, and what to do.
    """
    if frames < 1:
        raise ConfigError(f"frames must be at least 1, got {frames}")
    check_steps(config.steps, model.diffusion.timesteps)
    if kind == "interpolation":
        if not model.diffusion.interpolation_share:
            raise ConfigError(
                "this model has seen no gaps to fill: train one with diffusion.interpolation_share above 0 to do so"
            )
        if frames != model.predicted_frames:
            raise ConfigError(f"frames must be {model.predicted_frames}, the gap that this model fills, got {frames}")
    if not model.diffusion.condition_dropout and (kind == "unconditional" or config.guidance != 1):
        raise ConfigError(
            "this model was trained with diffusion.condition_dropout = 0, so it needs given frames, and guidance 1"
        )
    if kind != "unconditional":
        return
    if model.diffusion.residual != "none":
        raise ConfigError(
            f"this model makes what frames differ by from given ones (diffusion.residual = "
            f"{model.diffusion.residual!r}): give it a condition"
        )
    if frames > model.predicted_frames < model.given_frames:
        raise ConfigError(
            f"of nothing this model makes {model.predicted_frames} frames and then needs {model.given_frames} to go "
            f"on: ask for at most {model.predicted_frames} frames, or give it a condition"
        )


def following(frames: Tensor, regions: Tensor, motion: Tensor) -> Given:
    """Return frames in a row as what a prediction is given.

    Args:
        frames: u8 [B, F, H, W, 3].
        regions: f32 [B, F, R, 4], in pixels.
        motion: f32 [B, F, M, 4], in pixels.
    """
    places = torch.arange(frames.shape[1], device=frames.device).expand(len(frames), -1)
    return Given(frames, regions, motion, places)


def evaluations(model: VideoModel, clips: int, frames: int, config: SamplingConfig) -> int:
    """Return how often the denoiser is asked for `frames` frames of each of `clips` clips."""
    windows = -(-frames // model.config.predicted_frames)
    return windows * len(_parts(clips, config.rows)) * config.steps


def guided(model: VideoModel, seen: Seen, places: Tensor, guidance: float) -> Predict:
    """Return the denoiser as the sampler asks it: a function of x [B, P, C, h, w] and t i64 [B].

    Guidance (Ho and Salimans 2022) is out = nothing + guidance (given - nothing), both in one evaluation of 2 B rows.
    It may be taken of any of eps, x0 and v: each is the same straight function of each other at a given x and t.

    Args:
        model: Whose denoiser.
        seen: What `look` returned of the given frames.
        places: i64 [B, P], places of the targets.
        guidance: 1 is the given frames alone, and costs one row a clip; so does 0, nothing alone.
    """
    if guidance == 0:
        seen = replace(seen, dropped=torch.ones_like(seen.dropped))
    if guidance in (0, 1) or bool(seen.dropped.all()):
        return lambda x, t: model.predict(x, t, seen, places)
    both, places_2 = seen.with_dropped(), torch.cat([places, places])

    def predict(x: Tensor, t: Tensor) -> Tensor:
        of_given, of_nothing = model.predict(torch.cat([x, x]), torch.cat([t, t]), both, places_2).chunk(2)
        return of_nothing + guidance * (of_given - of_nothing)

    return predict


def _sample_rows(
    model: VideoModel, given: Given, places: Tensor, keys: Tensor, config: SamplingConfig, tick: Tick | None
) -> Tensor:
    """Return frames of as many clips as are denoised at once, u8 [b, P, H, W, 3]."""
    places = places.expand(len(keys), -1)
    seen = model.look(given)
    shape = (places.shape[1], *seen.latents.shape[2:])
    x0 = denoise(guided(model, seen, places, config.guidance), model.schedule, keys, shape, config, tick)
    return model.frames_of(x0, seen, places, given.frames)


def _slide(model: VideoModel, given: Given, made: Tensor) -> Given:
    """Return the last F of the given and the made frames, with maps of the made ones, as what is given next."""
    count, device = model.config.given_frames, made.device
    new = made.cpu().numpy()
    before: list[np.ndarray | None] = [None] * len(new)
    if given.dropped is None:
        before = list(given.frames[:, -1].cpu().numpy())
    maps = [region_maps(frames, last, model.config.regions) for frames, last in zip(new, before, strict=True)]
    regions, motion = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*maps, strict=True))
    return following(
        torch.cat([given.frames, made], dim=1)[:, -count:],
        torch.cat([given.regions, regions], dim=1)[:, -count:],
        torch.cat([given.motion, motion], dim=1)[:, -count:],
    )


def _nothing(model: VideoModel, clips: Tensor, size: tuple[int, int]) -> Given:
    """Return black frames without regions that are all dropped."""
    config, rows = model.config, len(clips)
    frames = torch.zeros(rows, config.given_frames, *size, 3, dtype=torch.uint8, device=clips.device)
    regions = torch.zeros(rows, config.given_frames, config.regions.regions, 4, device=clips.device)
    motion = torch.zeros(rows, config.given_frames, config.regions.motion_regions, 4, device=clips.device)
    given = following(frames, regions, motion)
    return replace(given, dropped=torch.ones(rows, dtype=torch.bool, device=clips.device))


def _rows(given: Given, part: slice) -> Given:
    """Return some of the clips."""
    dropped = None if given.dropped is None else given.dropped[part]
    return Given(given.frames[part], given.regions[part], given.motion[part], given.places[part], dropped)


def _parts(rows: int, most: int) -> list[slice]:
    """Return the clips in parts of at most `most`."""
    return [slice(start, start + most) for start in range(0, rows, most)]
