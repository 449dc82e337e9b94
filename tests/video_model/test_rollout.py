"""Frames out of a tiny model: guidance, windows that slide, gaps, and films from nothing."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.gaad.config import RegionConfig
from bytropix.gaad.maps import region_maps
from bytropix.video.config import (
    AutoencoderConfig,
    ContextConfig,
    DenoiserConfig,
    DiffusionConfig,
    Residual,
    StackConfig,
    VideoModelConfig,
    two_levels,
)
from bytropix.video.model import Given, Seen, VideoModel, interpolate_places, predict_places
from bytropix.video.rollout import (
    evaluations,
    following,
    guided,
    interpolate,
    roll_out,
    sample,
    unconditional,
)
from bytropix.video.sampling import SamplingConfig

F, P, SIDE = 3, 4, 16
QUICK = SamplingConfig(sampler="ddim", steps=3, guidance=1.0)


def settings(*, given: int = F, predicted: int = P, residual: Residual = "none", **diffusion: Any) -> VideoModelConfig:
    """Return a model of a few thousand parameters."""
    stack = StackConfig(nesting=two_levels(8, 4), output=8)
    return VideoModelConfig(
        given_frames=given,
        predicted_frames=predicted,
        autoencoder=AutoencoderConfig(stride=4, latent_channels=4, width=8, blocks=0),
        regions=RegionConfig(regions=4, motion_regions=2),
        context=ContextConfig(
            features=8,
            region_bins=2,
            motion_bins=2,
            region_width=8,
            width=8,
            spatial=stack,
            motion=stack,
            temporal=stack,
        ),
        denoiser=DenoiserConfig(width=16, depth=1, heads=2),
        diffusion=DiffusionConfig(timesteps=20, residual=residual, **diffusion),
    )


def built(config: VideoModelConfig) -> VideoModel:
    """Return a model whose every parameter counts: output layers that begin at zero are moved."""
    torch.manual_seed(0)
    model = VideoModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> VideoModel:
    """A model that fills gaps too, with the library imported where its warnings fail no test."""
    found = built(settings(interpolation_share=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        next(roll_out(found, clips(found, 1), 1, QUICK))
    return found


def clips(model: VideoModel, count: int, *, seed: int = 0) -> Given:
    """Return given frames of noise, with their maps."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, model.config.given_frames, SIDE, SIDE, 3), np.uint8)
    maps = [region_maps(clip, None, model.config.regions) for clip in frames]
    regions, motion = (torch.from_numpy(np.stack(part)) for part in zip(*maps, strict=True))
    return following(torch.from_numpy(frames), regions, motion)


class Watched:
    """Counts what a model is asked, and keeps what it is given."""

    def __init__(self, model: VideoModel, patch: pytest.MonkeyPatch) -> None:
        self.looked: list[Given] = []
        self.rows: list[int] = []
        look, predict = model.look, model.predict

        def watched_look(given: Given) -> Seen:
            self.looked.append(given)
            return look(given)

        def watched_predict(x: Tensor, t: Tensor, seen: Seen, places: Tensor) -> Tensor:
            self.rows.append(len(x))
            return predict(x, t, seen, places)

        patch.setattr(model, "look", watched_look)
        patch.setattr(model, "predict", watched_predict)


def test_guidance_1_is_the_conditional_output_exactly(model: VideoModel) -> None:
    """At 1 the denoiser is asked for the given frames alone, at 0 for nothing alone; between, both count straight."""
    given = clips(model, 2)
    places = predict_places(model.config)[1].expand(2, -1)
    seen = model.look(given)
    nothing = replace(seen, dropped=torch.ones(2, dtype=torch.bool))
    x, t = torch.randn(2, P, 4, 4, 4), torch.tensor([3, 17])
    with torch.no_grad():
        of_given, of_nothing = model.predict(x, t, seen, places), model.predict(x, t, nothing, places)
        found = {w: guided(model, seen, places, w)(x, t) for w in (0.0, 0.5, 1.0, 3.0)}

    assert torch.equal(found[1.0], of_given)
    assert torch.equal(found[0.0], of_nothing)
    assert not torch.allclose(of_given, of_nothing, atol=1e-3)
    for w in (0.5, 3.0):
        assert torch.allclose(found[w], of_nothing + w * (of_given - of_nothing), atol=1e-5)


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 2), (0.0, 2), (2.0, 4)])
def test_one_evaluation_a_step_and_one_look_a_call(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch, guidance: float, rows: int
) -> None:
    """Guidance takes one evaluation of twice the rows a step; the given frames are looked at once."""
    watched, ticks = Watched(model, monkeypatch), []
    config = replace(QUICK, guidance=guidance)

    sample(model, clips(model, 2), predict_places(model.config)[1], config, tick=lambda: ticks.append(1))

    assert [len(given.frames) for given in watched.looked] == [2]
    assert watched.rows == [rows] * 3
    assert len(ticks) == evaluations(model, 2, P, config) == 3


def test_a_clip_does_not_depend_on_those_beside_it(model: VideoModel) -> None:
    """A clip keeps its frames alone, in parts of any size, and by its own number whatever its row."""
    given = clips(model, 5)
    config = SamplingConfig(sampler="ddpm", steps=4, guidance=2.0)
    _, targets = predict_places(model.config)
    whole = sample(model, given, targets, config)
    parts = sample(model, given, targets, replace(config, rows=2))
    alone = sample(model, clips_row(given, 3), targets, config, clips=torch.tensor([3]))
    other = sample(model, clips_row(given, 3), targets, config, clips=torch.tensor([4]))

    # Sums over a batch of another size may round otherwise; a frame's byte moves by one at most.
    assert (whole.int() - parts.int()).abs().max() <= 1
    assert (whole[3:4].int() - alone.int()).abs().max() <= 1
    assert (whole[3:4].int() - other.int()).abs().max() > 8


def clips_row(given: Given, row: int) -> Given:
    """Return one of the clips."""
    return following(*(part[row : row + 1] for part in (given.frames, given.regions, given.motion)))


def test_the_same_seed_gives_the_same_frames(model: VideoModel) -> None:
    """A seed decides the frames, whatever torch's own random state is."""
    given = clips(model, 1)
    config = SamplingConfig(sampler="ddpm", steps=3)
    _, targets = predict_places(model.config)
    torch.manual_seed(1)
    first = sample(model, given, targets, config)
    torch.manual_seed(2)

    assert torch.equal(first, sample(model, given, targets, config))
    assert not torch.equal(first, sample(model, given, targets, replace(config, seed=1)))


def test_a_roll_out_is_as_long_as_asked_and_begins_with_the_prediction(model: VideoModel) -> None:
    """It comes in windows of P frames, the last one cut; a longer one begins with the same frames."""
    given = clips(model, 2)
    pieces = list(roll_out(model, given, 10, QUICK))

    assert [tuple(piece.shape) for piece in pieces] == [(2, n, SIDE, SIDE, 3) for n in (4, 4, 2)]
    assert all(piece.dtype == torch.uint8 for piece in pieces)
    assert torch.equal(pieces[0], sample(model, given, predict_places(model.config)[1], QUICK))
    assert torch.equal(torch.cat(pieces, 1)[:, :5], torch.cat(list(roll_out(model, given, 5, QUICK)), 1))


@pytest.mark.parametrize("given_frames", [3, 6])
def test_what_was_made_is_given_next(monkeypatch: pytest.MonkeyPatch, given_frames: int) -> None:
    """A window is given the last F of given and made frames, with the maps that the frames have as one film."""
    model = built(settings(given=given_frames))
    given = clips(model, 1)
    watched = Watched(model, monkeypatch)
    made = torch.cat(list(roll_out(model, given, 10, QUICK)), 1)
    film = torch.cat([given.frames, made], 1)
    regions, motion = region_maps(film[0].numpy(), None, model.config.regions)

    assert len(watched.looked) == 3
    for window, seen in enumerate(watched.looked[1:], 1):
        here = slice(P * window, P * window + given_frames)
        assert torch.equal(seen.frames, film[:, here])
        assert np.array_equal(seen.regions[0], regions[here])
        assert np.array_equal(seen.motion[0], motion[here])
        assert seen.places.tolist() == [list(range(given_frames))]
        assert seen.dropped is None


def test_windows_have_noise_of_their_own(model: VideoModel) -> None:
    """The same given frames in another window make other frames."""
    given, targets = clips(model, 1), predict_places(model.config)[1]
    one, other = (sample(model, given, targets, QUICK, window=window) for window in (0, 1))

    assert (one.int() - other.int()).abs().max() > 8


def test_a_gap_lies_between_first_and_last_frames(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given frames stand at the first ceil(F / 2) and the last floor(F / 2) places, whatever they came with."""
    watched = Watched(model, monkeypatch)
    found = interpolate(model, clips(model, 2), QUICK)
    places, targets = interpolate_places(model.config)

    assert found.shape == (2, P, SIDE, SIDE, 3)
    assert watched.looked[0].places.tolist() == [[0, 1, 6]] * 2 == [places.tolist()] * 2
    assert targets.tolist() == [2, 3, 4, 5]


def test_a_model_that_has_seen_no_gaps_fills_none() -> None:
    """It is refused by the name of the setting."""
    model = built(settings())
    with pytest.raises(ConfigError, match="interpolation_share above 0"):
        interpolate(model, clips(model, 1), QUICK)


def test_films_from_nothing(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first window is all dropped, asks one row a clip whatever the guidance, and later ones follow from it."""
    watched = Watched(model, monkeypatch)
    config = replace(QUICK, guidance=2.0)
    pieces = list(unconditional(model, torch.arange(2), (SIDE, SIDE), 7, config))

    assert [piece.shape[1] for piece in pieces] == [4, 3]
    first, second = watched.looked
    assert first.dropped is not None
    assert first.dropped.all()
    assert second.dropped is None
    assert torch.equal(second.frames, pieces[0][:, -F:])
    assert watched.rows == [2] * 3 + [4] * 3
    assert not torch.equal(pieces[0][0], pieces[0][1])


def test_nothing_is_nothing(model: VideoModel) -> None:
    """What a film from nothing would be given does not matter: frames of noise that are dropped make the same one."""
    given = replace(clips(model, 1), dropped=torch.ones(1, dtype=torch.bool))
    made = sample(model, given, predict_places(model.config)[1], QUICK)

    assert torch.equal(made, next(unconditional(model, torch.arange(1), (SIDE, SIDE), P, QUICK)))


@pytest.mark.parametrize(
    ("config", "frames", "words"),
    [
        (settings(residual="last"), 1, "differ by from given ones .*'last'.*: give it a condition"),
        (settings(given=4, predicted=2), 3, "makes 2 frames and then needs 4 .*: ask for at most 2 frames"),
        (settings(condition_dropout=0.0), 1, "condition_dropout = 0, so it needs given frames"),
    ],
)
def test_what_cannot_begin_from_nothing_says_why(config: VideoModelConfig, frames: int, words: str) -> None:
    """A model of residuals, one with too few frames to go on from, and one that always had a condition."""
    with pytest.raises(ConfigError, match=words):
        list(unconditional(built(config), torch.arange(1), (SIDE, SIDE), frames, QUICK))


def test_guidance_needs_a_model_that_knows_nothing() -> None:
    """A model trained with a condition alone is sampled at guidance 1 alone."""
    model = built(settings(condition_dropout=0.0))
    with pytest.raises(ConfigError, match="condition_dropout = 0"):
        list(roll_out(model, clips(model, 1), 1, replace(QUICK, guidance=2.0)))

    assert next(roll_out(model, clips(model, 1), 1, QUICK)).shape[1] == 1


def test_residuals_are_added_to_the_frame_before() -> None:
    """A perfect denoiser of residuals makes the frames of the true ones, in their measured scale."""
    model = built(settings(residual="last"))
    model.residual_scale_C.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    given, truth = clips(model, 2), clips(model, 2, seed=1).frames[:, :1].expand(-1, P, -1, -1, -1)
    places = predict_places(model.config)[1].expand(2, -1)
    latents = model.encode(truth)
    seen = model.look(given)
    x0 = model.to_diffused(latents, seen, places)
    schedule = model.schedule

    def perfect(x: Tensor, t: Tensor, seen: Seen, places: Tensor) -> Tensor:
        shape = (-1, 1, 1, 1, 1)
        signal, noise = schedule.signal_T[t].view(shape), schedule.noise_T[t].view(shape)
        return signal * (x - signal * x0) / noise - noise * x0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", perfect)
        made = sample(model, given, predict_places(model.config)[1], QUICK)

    true = model.frames_of(x0, seen, places, given.frames)
    assert (made.int() - true.int()).abs().max() <= 1
    assert (model.frames_of(latents, seen, places, given.frames).int() - true.int()).abs().max() > 8


def test_no_frames_are_refused(model: VideoModel) -> None:
    """A film of no frames is none."""
    with pytest.raises(ConfigError, match="frames must be at least 1, got 0"):
        list(roll_out(model, clips(model, 1), 0, QUICK))
