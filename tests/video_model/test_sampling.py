"""Samplers against oracles: a perfect denoiser, and the best one for Gaussian data, whose samples can be computed."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.video.config import DiffusionConfig, Prediction
from bytropix.video.noise import clip_keys, fork, keyed_normal
from bytropix.video.sampling import SAMPLERS, Predict, SamplerName, SamplingConfig, denoise, respaced
from bytropix.video.schedule import Schedule

MEAN, SPREAD = 0.5, 0.8
SHAPE = (2, 3, 4, 4)
NAMES = get_args(SamplerName)
ODES = ("ddim", "dpm++", "unipc")  # no noise after the first


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    """Import the library once, where a warning of its own does not fail a test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        denoise(lambda x, t: x, process(), torch.arange(1), (1, 1), SamplingConfig(sampler="ddim", steps=1))


def process(
    prediction: Prediction = "v", *, schedule: str = "cosine", timesteps: int = 100, zero: bool = False
) -> Schedule:
    """Return a noising process."""
    return Schedule(
        DiffusionConfig(prediction=prediction, schedule=schedule, timesteps=timesteps, zero_terminal_snr=zero)  # type: ignore[arg-type]
    )


def oracle(schedule: Schedule, x0_of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Predict:
    """Return a denoiser that knows x0 as a function of x, sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        assert len(t) == len(x)
        shape = (-1, *[1] * (x.dim() - 1))
        bar = schedule.alpha_bars[t].view(shape)
        signal, noise = bar.sqrt(), (1 - bar).sqrt()
        x0 = x0_of(x.double(), signal, noise)
        eps = (x.double() - signal * x0) / noise
        return {"x0": x0, "eps": eps, "v": signal * eps - noise * x0}[schedule.prediction].float()

    return predict


def knows(truth: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return an oracle of one x0."""
    return lambda x, signal, noise: truth.double()


def gaussian(x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Return the mean of x0 given x, for x0 that is normal with MEAN and SPREAD."""
    gain = SPREAD**2 * signal / (SPREAD**2 * signal**2 + noise**2)
    return MEAN + gain * (x - signal * MEAN)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
def test_perfect_denoiser_gives_x0_back(name: SamplerName, prediction: Prediction, schedule: str) -> None:
    """With an oracle every chain of every length ends in x0, whether or not steps divide the timesteps."""
    truth = torch.linspace(-4, 4, 3 * 96).reshape(3, *SHAPE)  # far outside of -1..1: nothing may be clipped
    for timesteps, steps in ((100, 5), (100, 60), (1000, 7)):
        kind = process(prediction, schedule=schedule, timesteps=timesteps)
        config = SamplingConfig(sampler=name, steps=steps)

        found = denoise(oracle(kind, knows(truth)), kind, torch.arange(3), SHAPE, config)

        assert (found - truth).abs().max() < 1e-3, (timesteps, steps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_no_signal_at_the_start_is_no_trouble(name: SamplerName, schedule: str, steps: int) -> None:
    """A zero terminal signal-to-noise ratio divides nothing by zero, and x0 comes back all the same."""
    kind = process("v", schedule=schedule, zero=True)
    truth = torch.linspace(-4, 4, 96).reshape(1, *SHAPE)

    found = denoise(oracle(kind, knows(truth)), kind, torch.arange(1), SHAPE, SamplingConfig(sampler=name, steps=steps))

    assert kind.alpha_bars[-1] == 0
    # One step alone keeps a thousandth of the noise: the library's start is not quite without signal.
    assert (found - truth).abs().max() < (1e-3 if steps > 1 else 2e-2)


@pytest.mark.parametrize("name", ODES)
@pytest.mark.parametrize("zero", [False, True])
def test_samples_of_gaussian_data_have_its_mean_and_spread(name: SamplerName, zero: bool) -> None:
    """The samples of an optimal denoiser are normal with the data's mean, and with its spread as steps grow.

    It is a straight function of x and a deterministic chain is one of its start, so its mean and spread are read off.
    """
    kind = process("v", timesteps=400, zero=zero)
    spreads = {}
    for steps in (10, 50, 400):
        config = SamplingConfig(sampler=name, steps=steps)
        keys = torch.arange(2)
        start = keyed_normal(fork(keys, 2), (1, 1, 1))
        first, second = denoise(oracle(kind, gaussian), kind, keys, (1, 1, 1), config).flatten().tolist()
        spreads[steps] = (second - first) / float(start[1] - start[0])
        mean = first - spreads[steps] * float(start[0])

        assert mean == pytest.approx(MEAN, abs=3e-3)

    assert spreads[400] == pytest.approx(SPREAD, rel=0.005)
    assert spreads[50] == pytest.approx(SPREAD, rel=0.03)
    assert spreads[10] == pytest.approx(SPREAD, rel=0.13 if name == "ddim" else 0.03)


def test_respaced_ddpm_has_the_statistics_of_its_posterior() -> None:
    """DDPM of 10, 50 and all steps has the mean of the data, and the spread that its own formula has (float64).

    The chain is linear: x <- sqrt(prev) x0(x) + direction, plus noise of the posterior of the respaced betas (Ho et al.
    2020, equation 7), beta_k = 1 - alpha_bar_k / alpha_bar_(k-1), here written in their form, not in DDIM's.
    """
    kind = process("eps", timesteps=400)
    rows = 100_000
    spreads = {}
    for steps in (10, 50, 400):
        timesteps, bars = respaced(kind.alpha_bars, steps)
        mean, variance = 0.0, 1.0
        for k in reversed(range(steps)):
            bar, before = float(bars[k]), float(bars[k - 1]) if k else 1.0
            beta = 1 - bar / before
            gain = SPREAD**2 * bar**0.5 / (SPREAD**2 * bar + 1 - bar)
            of_x0, of_x = beta * before**0.5 / (1 - bar), (1 - beta) ** 0.5 * (1 - before) / (1 - bar)
            slope = of_x0 * gain + of_x
            mean = slope * mean + of_x0 * (1 - gain * bar**0.5) * MEAN
            variance = slope**2 * variance + beta * (1 - before) / (1 - bar)
        count = rows if steps < 400 else rows // 10
        config = SamplingConfig(sampler="ddpm", steps=steps)

        found = denoise(oracle(kind, gaussian), kind, clip_keys(0, torch.arange(count)), (1, 1), config)

        spreads[steps] = variance**0.5
        error = 5 / count**0.5
        assert timesteps[-1] == 399
        assert float(found.mean()) == pytest.approx(mean, abs=error * SPREAD)
        assert float(found.std()) == pytest.approx(variance**0.5, abs=error * SPREAD)
        assert mean == pytest.approx(MEAN, abs=2e-3)
    assert spreads[400] == pytest.approx(SPREAD, rel=0.01)
    assert spreads[50] == pytest.approx(SPREAD, rel=0.06)
    assert spreads[10] == pytest.approx(SPREAD, rel=0.2)


def test_ddpm_is_the_library_s_own_step_by_step() -> None:
    """DDIM with all of the posterior's noise is the library's DDPMScheduler: the same x of the same noise."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    kind = process("v", timesteps=50)
    settings = {"num_train_timesteps": 50, "trained_betas": kind.betas.tolist(), "prediction_type": "v_prediction"}
    ours = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **settings)
    theirs = DDPMScheduler(clip_sample=False, timestep_spacing="trailing", **settings)
    for scheduler in (ours, theirs):
        scheduler.alphas_cumprod = kind.alpha_bars
        scheduler.set_timesteps(50)
    theirs.alphas, theirs.betas = 1 - kind.betas, kind.betas
    generator = torch.Generator().manual_seed(0)
    x, output = torch.randn(2, 1, 8, generator=generator)
    for t in (49, 25, 1):
        noise = torch.randn(1, 8, generator=torch.Generator().manual_seed(t))
        one = ours.step(output, t, x, eta=1.0, variance_noise=noise).prev_sample
        other = theirs.step(output, t, x, generator=torch.Generator().manual_seed(t)).prev_sample

        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 60, 99, 100])
def test_timesteps_begin_in_noise_and_are_evenly_apart(steps: int) -> None:
    """The walk starts at T - 1 for any number of steps, takes each timestep once, and ends T / S from x0."""
    timesteps, bars = respaced(torch.linspace(1, 0.01, 100, dtype=torch.float64), steps)
    gaps = torch.tensor([-1, *timesteps]).diff()

    assert len(timesteps) == steps
    assert timesteps[-1] == 99
    assert gaps.min() >= 100 // steps
    assert gaps.max() <= -(-100 // steps)
    assert torch.equal(bars, torch.linspace(1, 0.01, 100, dtype=torch.float64)[timesteps])


@pytest.mark.parametrize("name", NAMES)
def test_the_denoiser_is_asked_once_a_step_at_our_timesteps(name: SamplerName) -> None:
    """Each step asks once, for one timestep of our own tables and of all clips; the ticks count the steps."""
    kind, asked, ticks = process(), [], []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t.tolist())
        return x

    denoise(predict, kind, torch.arange(3), (1, 1), SamplingConfig(sampler=name, steps=7), lambda: ticks.append(1))

    assert asked == [[t] * 3 for t in reversed(respaced(kind.alpha_bars, 7)[0])]
    assert len(ticks) == 7


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("dpm++", 0.0), ("unipc", 0.0)])
def test_a_clip_is_the_same_in_any_batch(name: SamplerName, eta: float) -> None:
    """A sample is a function of its key: alone, in another order or beside others, bit for bit; other keys differ."""
    kind = process()
    predict = oracle(kind, gaussian)
    config = SamplingConfig(sampler=name, steps=9, eta=eta)
    keys = clip_keys(3, torch.arange(5))
    together = denoise(predict, kind, keys, SHAPE, config)
    shuffled = denoise(predict, kind, keys[[4, 1, 0]], SHAPE, config)

    assert torch.equal(together[[4, 1, 0]], shuffled)
    assert len({tuple(row.flatten().tolist()) for row in together}) == 5


def test_eta_leads_from_ddim_to_ddpm() -> None:
    """Noise in every step makes eta 1 the sampler ddpm and eta 0 another one; the steps' noises are not one noise."""
    kind = process()
    predict, keys = oracle(kind, gaussian), torch.arange(2)

    def drawn(name: SamplerName, eta: float) -> Tensor:
        return denoise(predict, kind, keys, SHAPE, SamplingConfig(sampler=name, steps=10, eta=eta))

    assert torch.equal(drawn("ddim", 1.0), drawn("ddpm", 0.0))
    assert not torch.allclose(drawn("ddim", 0.5), drawn("ddpm", 0.0), atol=0.05)
    assert not torch.allclose(drawn("ddim", 0.5), drawn("ddim", 0.0), atol=0.05)


def test_long_cosine_steps_are_not_rounded_away() -> None:
    """Of a step over nearly all noise, 1 - beta is below float32's: the library's own table would be 0 there."""
    kind = process("eps", timesteps=1000)
    _, bars = respaced(kind.alpha_bars, 3)
    beta = 1 - bars[-1] / bars[-2]

    assert 1 - beta.float() == 0
    truth = torch.linspace(-1, 1, 96).reshape(1, *SHAPE)
    for name in NAMES:
        found = denoise(oracle(kind, knows(truth)), kind, torch.arange(1), SHAPE, SamplingConfig(sampler=name, steps=3))
        assert (found - truth).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": "heun"}, "sampler must be one of ddpm, ddim, dpm\\+\\+, unipc, got 'heun'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"guidance": -1.0}, "guidance must be at least 0"),
        ({"guidance": float("nan")}, "guidance must be at least 0, got nan"),
        ({"eta": 1.5}, "eta must be in 0..1, got 1.5"),
        ({"eta": 0.5}, "eta is ddim's, got 0.5 with sampler dpm"),
        ({"rows": 0}, "rows must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], words: str) -> None:
    """A setting out of its range says so by name."""
    with pytest.raises(ConfigError, match=words):
        SamplingConfig(**settings)  # type: ignore[arg-type]


def test_more_steps_than_timesteps_are_refused() -> None:
    """A walk cannot have more steps than the process has timesteps."""
    with pytest.raises(
        ConfigError, match="steps must be at most the 100 timesteps that the model was trained with, got"
    ):
        denoise(lambda x, t: x, process(), torch.arange(1), (1, 1), SamplingConfig(steps=101))


def test_the_registry_has_every_name() -> None:
    """Each sampler that a config may name is there."""
    assert set(SAMPLERS) == set(NAMES)


def test_the_library_is_not_imported_before_it_is_used() -> None:
    """It takes seconds to import, which only a command that samples may take."""
    words = "import sys, bytropix.video.rollout, bytropix.jobs.cli; print('diffusers' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"
