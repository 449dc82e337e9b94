"""The noising process: how much signal is left at each timestep, and three ways to say what the denoiser predicts.

    config -> betas -> alpha_bar (f64) -> x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise

Timestep 0 has the least noise and T - 1 the most. Of x0, the noise eps and v = sqrt(alpha_bar) eps -
sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022), each follows from each given x_t: (x0, eps) and (x_t, v) are the same
point in two systems of axes turned against each other, so the way over v divides by nothing.
"""

import math

import torch
from torch import Tensor, nn

from bytropix.video.config import DiffusionConfig, Prediction

LEAST_BETA, MOST_BETA = 1e-4, 0.9999
_SIGMOID_REACH = 3.0  # the logistic curve is taken from -3 to 3


class Schedule(nn.Module):
    """The tables of a noising process, and what is computed with them.

    Attributes:
        timesteps: T.
        prediction: What the denoiser's output is.
        betas: f64 [T], on the CPU.
        alpha_bars: f64 [T], on the CPU: share of the signal's variance that is left.
    """

    signal_T: Tensor
    noise_T: Tensor
    weights_T: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.timesteps, self.prediction = config.timesteps, config.prediction
        self.alpha_bars = alpha_bars(config)
        before = torch.cat([self.alpha_bars.new_ones(1), self.alpha_bars[:-1]])
        self.betas = 1 - self.alpha_bars / before
        weights = loss_weights(self.alpha_bars, config.prediction, config.min_snr)
        for name, table in (
            ("signal_T", self.alpha_bars.sqrt()),
            ("noise_T", (1 - self.alpha_bars).sqrt()),
            ("weights_T", weights),
        ):
            self.register_buffer(name, table.float(), persistent=False)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return x_t, for x0 and noise [B, ...] and t i64 [B]."""
        signal, share = self._rates(t, x0)
        return signal * x0 + share * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the denoiser's output should be."""
        if self.prediction == "x0":
            return x0
        if self.prediction == "eps":
            return noise
        signal, share = self._rates(t, x0)
        return signal * noise - share * x0

    def x0_of(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the x0 that an output stands for. An eps says nothing of it where no signal is left."""
        if self.prediction == "x0":
            return output
        signal, share = self._rates(t, x_t)
        if self.prediction == "eps":
            return (x_t - share * output) / signal
        return signal * x_t - share * output

    def eps_of(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the noise that an output stands for. An x0 says nothing of it where there is none."""
        if self.prediction == "eps":
            return output
        signal, share = self._rates(t, x_t)
        if self.prediction == "x0":
            return (x_t - signal * output) / share
        return share * x_t + signal * output

    def v_of(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the v that an output stands for."""
        if self.prediction == "v":
            return output
        signal, share = self._rates(t, x_t)
        if self.prediction == "x0":
            return (signal * x_t - output) / share
        return (output - share * x_t) / signal

    def _rates(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar) of each row, to be multiplied with `like`."""
        shape = (-1, *[1] * (like.dim() - 1))
        return self.signal_T[t].view(shape), self.noise_T[t].view(shape)


def alpha_bars(config: DiffusionConfig) -> Tensor:
    """Return the share of the signal's variance left at each timestep, f64 [T], falling."""
    found = (1 - CURVES[config.schedule](config)).cumprod(0)
    return without_terminal_signal(found) if config.zero_terminal_snr else found


def linear_betas(config: DiffusionConfig) -> Tensor:
    """Return betas in equal steps (Ho et al. 2020), scaled so that any number of timesteps ends in the same noise."""
    scale = 1000 / config.timesteps
    betas = torch.linspace(config.beta_start * scale, config.beta_end * scale, config.timesteps, dtype=torch.float64)
    return betas.clamp(max=MOST_BETA)


def cosine_betas(config: DiffusionConfig) -> Tensor:
    """Return betas of a squared cosine of alpha_bar (Nichol and Dhariwal 2021, equation 17)."""
    u = torch.linspace(0, 1, config.timesteps + 1, dtype=torch.float64)
    return _betas_of(((u + config.cosine_s) / (1 + config.cosine_s) * math.pi / 2).cos() ** 2)


def sigmoid_betas(config: DiffusionConfig) -> Tensor:
    """Return betas of an alpha_bar that falls like a logistic curve (Jabri et al. 2023)."""
    u = torch.linspace(-1, 1, config.timesteps + 1, dtype=torch.float64)
    curve = (-_SIGMOID_REACH * u).sigmoid()
    return _betas_of((curve - curve[-1]) / (curve[0] - curve[-1]))


CURVES = {"linear": linear_betas, "cosine": cosine_betas, "sigmoid": sigmoid_betas}


def without_terminal_signal(bars: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha_bar) so that the last is 0 and the first stays (Lin et al. 2024, algorithm 1)."""
    roots = bars.sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


def loss_weights(bars: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """Return the weight of each timestep's squared error, f64 [T]: min(SNR, gamma) of an error in x0.

    Min-SNR weights (Hang et al. 2023): an error in eps is one in x0 times SNR, an error in v one times SNR + 1. Where
    no signal is left the weight would be 0, and samples would begin with a step that was never trained: there it is 1.

    Args:
        bars: f64 [T], alpha_bar.
        prediction: In what the error is measured.
        gamma: Largest signal-to-noise ratio that counts in full; 0: all weights are 1.
    """
    if gamma == 0:
        return torch.ones_like(bars)
    snr = bars / (1 - bars)
    per_x0 = snr.clamp(max=gamma)
    weights = {"x0": per_x0, "eps": per_x0 / snr, "v": per_x0 / (snr + 1)}[prediction]
    return torch.where(snr > 0, weights, 1.0)


def _betas_of(bars: Tensor) -> Tensor:
    """Return the betas of an alpha_bar [T + 1] that begins at 1, none so small or large that a step is lost."""
    least = LEAST_BETA * min(1.0, 1000 / (len(bars) - 1))  # of very many steps, each may take little
    return (1 - bars[1:] / bars[:-1]).clamp(least, MOST_BETA)
