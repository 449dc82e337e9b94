"""From noise to what was diffused: the schedulers of `diffusers`, on our own tables and our own noise.

    alpha_bar f64 [T] -> every T/S-th timestep, T - 1 the first -> a process of S timesteps -> scheduler
    keys -> x of noise -> predict(x, t) -> scheduler -> x -> ... -> x0

The library is given a process of the S walked timesteps alone, beta_k = 1 - alpha_bar_k / alpha_bar_(k-1), so that
nothing is left for it to space: its DDIM goes down by T // S whatever its timesteps are, which is wrong where S does
not divide T. It also rounds betas to float32, in which 1 - beta of a long cosine step is 0: its alpha_bars are replaced
by ours. Every random number is a function of a clip's key and the step, so a clip is the same in any batch.

Shapes: B clips; what is diffused is [B, ...].
"""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.video.config import Prediction, check_choice, check_range
from bytropix.video.noise import fork, keyed_normal
from bytropix.video.schedule import Schedule

SamplerName = Literal["ddpm", "ddim", "dpm++", "unipc"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""x [B, ...], t i64 [B] -> the denoiser's output [B, ...]."""
Tick = Callable[[], None]
"""Called after every evaluation of the denoiser."""

# Where no signal is left, the library's ratio of noise to signal would be infinite; float32 takes this one well.
_LEAST_BAR = 2.0**-24
_START = 2  # stream of a key that the first noise comes from; training draws from 0 and 1
_PREDICTIONS: Mapping[Prediction, str] = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler of the library."""

    scheduler: str
    """Module and class in `diffusers.schedulers`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What it is told besides the process."""
    eta: float | None = None
    """Share of the posterior's noise that is added in a step; None: it is not for this one to say."""


# What proved right: x0 comes back from a perfect denoiser, and Gaussian data keep their mean and spread as steps grow.
# DDPM is DDIM with all of the posterior's noise (Song et al. 2021, equation 16), the one of the two that takes ours.
# Left out: Euler is DDIM once more, in x / sqrt(alpha_bar), where float32 keeps less. Heun's second slope is taken far
# from the first on a cosine schedule: a spread of 0.8 comes out as 64 in 10 steps, 3 in 30. DEIS and PNDM stop at the
# last timestep, short of x0. The single-step DPM solver makes NaN of 5 steps, and KDPM2 asks between timesteps.
SAMPLERS: dict[SamplerName, Sampler] = {
    "ddpm": Sampler("scheduling_ddim:DDIMScheduler", {"clip_sample": False}, eta=1.0),
    "ddim": Sampler("scheduling_ddim:DDIMScheduler", {"clip_sample": False}, eta=0.0),
    "dpm++": Sampler("scheduling_dpmsolver_multistep:DPMSolverMultistepScheduler"),
    "unipc": Sampler("scheduling_unipc_multistep:UniPCMultistepScheduler"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How samples are drawn."""

    sampler: SamplerName = "dpm++"
    """ddpm: every step adds noise. ddim: none does, or a share of it (eta). dpm++ and unipc: multistep solvers of
    second order, which need fewer steps."""
    steps: int = 30
    """Timesteps that are walked, at most as many as the model was trained with."""
    guidance: float = 2.0
    """How far to go from what the model makes of nothing towards what it makes of the given frames: 0 nothing, 1 the
    given frames, above 1 beyond, at twice the work."""
    eta: float = 0.0
    """Share of DDPM's noise in a step of ddim, 0 to 1."""
    seed: int = 0
    """Same model, frames, flags and seed: the same sample."""
    rows: int = 8
    """Most clips that are denoised at once; the samples are the same."""

    def __post_init__(self) -> None:
        check_choice("sampler", self.sampler, SamplerName)
        check_range("steps", self.steps, 1)
        check_range("guidance", self.guidance, 0)
        check_range("eta", self.eta, 0, 1)
        check_range("rows", self.rows, 1)
        if self.eta and self.sampler != "ddim":
            raise ConfigError(f"eta is ddim's, got {self.eta:g} with sampler {self.sampler}: leave it at 0")


@torch.no_grad()
def denoise(
    predict: Predict,
    schedule: Schedule,
    keys: Tensor,
    shape: Sequence[int],
    config: SamplingConfig,
    tick: Tick | None = None,
) -> Tensor:
    """Return samples f32 [B, *shape] of what a denoiser was trained to denoise.

    Args:
        predict: The denoiser; it is asked once a step.
        schedule: The process it was trained on, and what its output is.
        keys: i64 [B], on the device where the work is done.
        shape: Of one sample.
        config: Sampler, steps and eta; guidance is the denoiser's affair.
        tick: Called after every step.

    Raises:
        ConfigError: More steps than the process has timesteps.
    """
    timesteps, bars = respaced(schedule.alpha_bars, config.steps)
    scheduler = _scheduler(SAMPLERS[config.sampler], bars, schedule.prediction)
    x = keyed_normal(fork(keys, _START), shape)
    for step, (index, t) in enumerate(zip(reversed(range(config.steps)), reversed(timesteps), strict=True)):
        output = predict(x, torch.full_like(keys, t)).float()
        noise = None
        eta = config.eta or SAMPLERS[config.sampler].eta
        if eta and index:  # the last step has no noise left to add
            noise = keyed_normal(fork(keys, _START + 1 + step), shape)
        x = _step(scheduler, output, index, x, eta, noise)
        if tick is not None:
            tick()
    return x


def respaced(alpha_bars: Tensor, steps: int) -> tuple[list[int], Tensor]:
    """Return the timesteps that are walked, rising, and alpha_bar there, f64 [steps].

    They end in T - 1, where the noise is that of the start, and lie T / steps apart, so that the last step to x0 is as
    long as the others ("trailing": Lin et al. 2024, table 2).

    Args:
        alpha_bars: f64 [T], falling.
        steps: 1 to T.

    Raises:
        ConfigError: More steps than timesteps.
    """
    total = len(alpha_bars)
    check_steps(steps, total)
    timesteps = [-(-k * total // steps) - 1 for k in range(1, steps + 1)]
    return timesteps, alpha_bars[timesteps]


def check_steps(steps: int, total: int) -> None:
    """Refuse a walk with more steps than there are timesteps.

    Raises:
        ConfigError: It has.
    """
    if steps > total:
        raise ConfigError(f"steps must be at most the {total} timesteps that the model was trained with, got {steps}")


def _scheduler(sampler: Sampler, bars: Tensor, prediction: Prediction) -> Any:
    """Return a scheduler of the library for a process with these alpha_bars, all of whose timesteps it will walk."""
    module, name = sampler.scheduler.split(":")
    kind = getattr(importlib.import_module(f"diffusers.schedulers.{module}"), name)
    steps, bars = len(bars), bars.clone()
    if bars[-1] == 0:  # still below the one before
        bars[-1] = min(_LEAST_BAR, float(bars[-2]) / 4 if steps > 1 else _LEAST_BAR)
    betas = 1 - bars / torch.cat([bars.new_ones(1), bars[:-1]])
    scheduler = kind(
        num_train_timesteps=steps,
        trained_betas=betas.tolist(),
        prediction_type=_PREDICTIONS[prediction],
        timestep_spacing="trailing",
        **sampler.options,
    )
    scheduler.alphas_cumprod = bars
    with warnings.catch_warnings():  # it hands tensors to numpy in a way that numpy 2 warns of
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps)
    return scheduler


def _step(scheduler: Any, output: Tensor, index: int, x: Tensor, eta: float | None, noise: Tensor | None) -> Tensor:
    """Return x one step on: [B, ...], f32."""
    if eta is None:
        x = scheduler.step(output, index, x, return_dict=False)[0]
    else:
        share = eta if noise is not None else 0.0
        x = scheduler.step(output, index, x, eta=share, variance_noise=noise, return_dict=False)[0]
    return x.float()


assert set(SAMPLERS) == set(get_args(SamplerName))
