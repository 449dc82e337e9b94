"""The benchmark of learning by heart: a clip of each video, what it reports, and that training is what does it."""

from dataclasses import replace

import pytest

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.bench.overfit_video import Plan, one_clip_each, overfit, some_store
from bytropix.jobs.bench.rows import BenchSettings
from bytropix.video.config import AutoencoderConfig, DenoiserConfig
from bytropix.video.sampling import SamplingConfig


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two clips, of the smallest sizes."""
    whole = Plan()
    video = replace(
        whole.video,
        autoencoder=AutoencoderConfig(stride=4, latent_channels=8, width=8, blocks=0),
        context=replace(whole.video.context, on=False),
        denoiser=DenoiserConfig(width=32, depth=1, heads=2),
    )
    sampling = SamplingConfig(steps=4, guidance=1.0)
    return replace(whole, clips=2, side=16, video=video, autoencoder_steps=20, steps=80, sampling=sampling)


@pytest.fixture(scope="module")
def store(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of made films."""
    folder = tmp_path_factory.mktemp("overfit")
    return some_store(BenchSettings(repeats=1, megabytes=1, data=None, folder=folder), plan)


def test_training_is_what_brings_the_clips_back(plan: Plan, store: Store) -> None:
    """The figures name their target and what they stand beside; more steps come nearer to the clips."""
    rows = overfit(store, plan, "films")
    before = overfit(store, replace(plan, steps=1), "films")

    assert [row.name.split(":")[0] for row in rows] == ["overfit-video"] * 2
    assert all(row.unit == "dB" and row.value for row in rows)
    assert rows[0].targets
    assert rows[0].baseline == before[0].baseline
    assert (rows[0].value or 0) > (before[0].value or 0) + 2
    assert rows[1].value == before[1].value


def test_each_clip_is_of_another_video(plan: Plan, store: Store) -> None:
    """As many videos as clips, the same ones every time; where there are fewer, it is said."""
    clips = one_clip_each(store, plan)

    assert sorted(clips.video.tolist()) == [0, 1]
    assert clips.frames.shape == (2, 4, 16, 16, 3)
    assert clips.frames.equal(one_clip_each(store, plan).frames)
    with pytest.raises(ConfigError, match="clips of 2 videos, 3 are wanted"):
        one_clip_each(store, replace(plan, clips=3))
