"""Schedules end where they should, and the three predictions say the same."""

import pytest
import torch

from bytropix.video.config import BetaSchedule, DiffusionConfig, Prediction
from bytropix.video.schedule import Schedule, alpha_bars

SCHEDULES: tuple[BetaSchedule, ...] = ("linear", "cosine", "sigmoid")
PREDICTIONS: tuple[Prediction, ...] = ("eps", "x0", "v")


def schedule_of(prediction: Prediction = "v", *, terminal: bool = False, **settings: float) -> Schedule:
    """Return a cosine schedule of 50 timesteps."""
    return Schedule(DiffusionConfig(timesteps=50, prediction=prediction, zero_terminal_snr=terminal, **settings))  # type: ignore[arg-type]


def drawn(schedule: Schedule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x0, noise and t, one row for each timestep."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(schedule.timesteps, 2, 3, generator=generator) for _ in range(2))
    return x0, noise, torch.arange(schedule.timesteps)


def test_golden_values() -> None:
    """What is left of the signal at the end is as computed from the published formulas by hand."""
    cosine = alpha_bars(DiffusionConfig(timesteps=100))
    unscaled = alpha_bars(DiffusionConfig(timesteps=100, schedule="linear", beta_start=1e-5, beta_end=2e-3))
    linear = alpha_bars(DiffusionConfig(timesteps=1000, schedule="linear"))

    assert float(cosine[-1]) == pytest.approx(2.43e-8, rel=2e-3)
    assert float(unscaled[-1]) == pytest.approx(0.3636, rel=2e-4)  # betas of 1e-4 to 0.02 in 100 steps: far from noise
    assert float(linear[-1]) == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("timesteps", [2, 10, 100, 1000])
def test_signal_falls_to_nearly_nothing_for_any_number_of_steps(schedule: BetaSchedule, timesteps: int) -> None:
    """Every schedule begins with nearly all of the signal, falls strictly, and ends in what sampling starts from."""
    bars = alpha_bars(DiffusionConfig(timesteps=timesteps, schedule=schedule))

    assert bars.dtype == torch.float64
    assert (bars.diff() < 0).all()
    assert 0 < bars[-1] < 2e-4
    if timesteps >= 100:
        assert bars[0] > 0.99


@pytest.mark.parametrize("schedule", ["cosine", "sigmoid"])
def test_the_number_of_steps_does_not_change_the_curve(schedule: BetaSchedule) -> None:
    """Half-way through, as much of the signal is left in a hundred thousand steps as in a thousand."""
    few, many = (alpha_bars(DiffusionConfig(timesteps=count, schedule=schedule)) for count in (1000, 100_000))

    torch.testing.assert_close(many[99::100], few, rtol=0, atol=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_terminal_rescale_leaves_no_signal_at_the_end(schedule: BetaSchedule) -> None:
    """The last step has no signal at all, the first has what it had, and the last beta is 1."""
    plain = DiffusionConfig(timesteps=100, schedule=schedule)
    bars = alpha_bars(DiffusionConfig(timesteps=100, schedule=schedule, zero_terminal_snr=True))

    assert bars[-1] == 0
    assert float(bars[0]) == pytest.approx(float(alpha_bars(plain)[0]), abs=1e-12)
    assert (bars.diff() < 0).all()
    assert Schedule(DiffusionConfig(timesteps=100, schedule=schedule, zero_terminal_snr=True)).betas[-1] == 1


def test_betas_make_the_alpha_bars() -> None:
    """Whoever takes the betas has the same process."""
    schedule = schedule_of()

    torch.testing.assert_close((1 - schedule.betas).cumprod(0), schedule.alpha_bars, rtol=1e-9, atol=0)


def test_limits() -> None:
    """At the first timestep x is nearly x0, at the last of a terminal schedule it is the noise alone."""
    schedule = schedule_of(terminal=True)
    x0, noise, t = drawn(schedule)
    x_t = schedule.noised(x0, noise, t)

    assert torch.equal(x_t[-1], noise[-1])
    assert (x_t[0] - x0[0]).abs().max() < 0.1
    torch.testing.assert_close(schedule.target(x0, noise, t)[-1], -x0[-1])


def test_noised_keeps_the_variance() -> None:
    """Signal and noise of unit variance make an x of unit variance at every timestep."""
    schedule = schedule_of()

    torch.testing.assert_close(schedule.signal_T.square() + schedule.noise_T.square(), torch.ones(50))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_agree(prediction: Prediction) -> None:
    """A perfect output of any kind is the same x0, the same noise and the same v, at every timestep."""
    schedule, reference = schedule_of(prediction), schedule_of("v")
    x0, noise, t = drawn(schedule)
    x_t, output = schedule.noised(x0, noise, t), schedule.target(x0, noise, t)
    # float32 keeps 7 digits, of which a division by the signal, 1e-4 at the last step, leaves three.
    divided = 1e-7 / schedule.signal_T.min().item()

    torch.testing.assert_close(schedule.x0_of(output, x_t, t), x0, rtol=0, atol=20 * divided)
    torch.testing.assert_close(schedule.eps_of(output, x_t, t), noise, rtol=0, atol=2e-5)
    torch.testing.assert_close(schedule.v_of(output, x_t, t), reference.target(x0, noise, t), rtol=0, atol=20 * divided)
    early = t < 40
    torch.testing.assert_close(schedule.x0_of(output, x_t, t)[early], x0[early], rtol=0, atol=2e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_wrong_outputs_are_converted_into_one_another(prediction: Prediction) -> None:
    """Also for an output that is not perfect, x0, noise and v belong together: they make x_t, and each the others."""
    schedule = schedule_of(prediction)
    x0, noise, t = (part[:40] for part in drawn(schedule))
    x_t, output = schedule.noised(x0, noise, t), noise.flip(0)
    found = {
        "x0": schedule.x0_of(output, x_t, t),
        "eps": schedule.eps_of(output, x_t, t),
        "v": schedule.v_of(output, x_t, t),
    }

    torch.testing.assert_close(schedule.noised(found["x0"], found["eps"], t), x_t, rtol=1e-4, atol=1e-4)
    for kind in PREDICTIONS:
        other = schedule_of(kind)
        torch.testing.assert_close(other.x0_of(found[kind], x_t, t), found["x0"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(other.eps_of(found[kind], x_t, t), found["eps"], rtol=1e-4, atol=1e-3)


def test_min_snr_weighs_the_same_error_alike() -> None:
    """Said as x0, noise or v, one error costs the same: min(SNR, gamma) times its square in x0."""
    x0, noise, t = drawn(schedule_of())
    costs = {}
    for kind in PREDICTIONS:
        schedule = schedule_of(kind, min_snr=5.0)
        x_t, wrong_x0 = schedule.noised(x0, noise, t), x0 + 0.1
        output = {
            "x0": wrong_x0,
            "eps": schedule_of("x0").eps_of(wrong_x0, x_t, t),
            "v": schedule_of("x0").v_of(wrong_x0, x_t, t),
        }
        error = (output[kind] - schedule.target(x0, noise, t)).square().mean((1, 2))
        costs[kind] = (error * schedule.weights_T)[1:45]

    snr = (schedule_of().alpha_bars / (1 - schedule_of().alpha_bars)).float()
    torch.testing.assert_close(costs["x0"], 0.01 * snr.clamp(max=5)[1:45], rtol=1e-3, atol=0)
    torch.testing.assert_close(costs["eps"], costs["x0"], rtol=2e-3, atol=0)
    torch.testing.assert_close(costs["v"], costs["x0"], rtol=2e-3, atol=0)


def test_gamma_of_zero_weighs_all_steps_alike() -> None:
    """Without min-SNR every weight is 1, whatever is predicted."""
    for kind in PREDICTIONS:
        assert torch.equal(schedule_of(kind, min_snr=0.0).weights_T, torch.ones(50))


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_the_step_without_signal_is_trained(kind: Prediction) -> None:
    """With a terminal signal of zero, the last timestep's weight is one: samples begin there."""
    weights = schedule_of(kind, terminal=True, min_snr=5.0).weights_T

    assert weights[-1] == 1
    assert (weights[:-1] < 5 + 1e-6).all()
    assert (weights > 0).all()
