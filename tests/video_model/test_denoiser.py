"""The denoiser takes grids of any size, and everything that it is told makes a difference."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.video.config import DenoiserConfig
from bytropix.video.context import ContextTokens
from bytropix.video.denoiser import Denoiser

SMALL = DenoiserConfig(width=32, depth=2, heads=2)
CHANGES: dict[str, Any] = {
    "width": 48,
    "depth": 3,
    "heads": 4,
    "patch": 1,
    "ffn_ratio": 3.0,
    "dropout": 0.3,
    "checkpointing": True,
}


def made(config: DenoiserConfig = SMALL, **settings: Any) -> Denoiser:
    """Return a denoiser for 3 channels and 2 given frames whose weights are all of their usual size."""
    torch.manual_seed(0)
    settings = {"channels": 3, "given_frames": 2, "timesteps": 100, "context_width": 8} | settings
    denoiser = Denoiser(config, **settings)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return denoiser


def told(height: int = 4, width: int = 6, rows: int = 2) -> dict[str, Any]:
    """Return arguments for `rows` clips: 3 target frames behind 2 given ones, 5 context tokens, one of them hidden."""
    generator = torch.Generator().manual_seed(1)
    visible = torch.ones(rows, 5, dtype=torch.bool)
    visible[:, 3] = False
    return {
        "x": torch.randn(rows, 3, 3, height, width, generator=generator),
        "t": torch.arange(rows) * 30 + 5,
        "places": torch.arange(2, 5).expand(rows, -1),
        "given": torch.randn(rows, 2, 3, height, width, generator=generator),
        "given_places": torch.arange(2).expand(rows, -1),
        "context": ContextTokens(torch.randn(rows, 5, 8, generator=generator), visible),
    }


def moved(one: Tensor, other: Tensor) -> float:
    """Return the largest difference."""
    return float((one - other).detach().abs().max())


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1), (2, 9)])
def test_grids_of_any_size(patch: int, size: tuple[int, int]) -> None:
    """One denoiser takes grids of any size, also such as do not divide into patches, and returns the same size."""
    out = made(replace(SMALL, patch=patch))(**told(*size))

    assert out.shape == (2, 3, 3, *size)
    assert out.isfinite().all()


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches_are_put_back_where_they_were(patch: int) -> None:
    """Cutting maps into patches and putting them together changes no cell."""
    denoiser = made(replace(SMALL, patch=patch))
    x = torch.randn(2, 3, 3, 6, 12)

    assert torch.equal(denoiser._maps(denoiser._patches(x)), x)


@pytest.mark.parametrize("name", ["x", "given"])
def test_every_frame_of_the_latents_counts(name: str) -> None:
    """Each target frame's output depends on every noisy frame and on every given one."""
    denoiser, arguments = made(), told()
    before = denoiser(**arguments)
    for frame in range(arguments[name].shape[1]):
        changed = arguments[name].clone()
        changed[:, frame, :, 0, 0] += 1
        after = denoiser(**arguments | {name: changed})

        assert (after - before).abs().flatten(2).amax(2).min() > 1e-4


def test_time_and_places_count() -> None:
    """The timestep, the place of a target frame and those of the given frames change the output."""
    denoiser, arguments = made(), told()
    before = denoiser(**arguments)

    for name in ("t", "places", "given_places"):
        assert moved(denoiser(**arguments | {name: arguments[name] + 1}), before) > 1e-3


def test_target_frames_are_told_apart_by_their_places_alone() -> None:
    """Swapping two target frames together with their places swaps their outputs."""
    denoiser, arguments = made(), told()
    order = torch.tensor([2, 0, 1])
    swapped = arguments | {"x": arguments["x"][:, order], "places": arguments["places"][:, order]}

    torch.testing.assert_close(denoiser(**swapped), denoiser(**arguments)[:, order], rtol=1e-4, atol=1e-5)
    same = arguments | {"x": arguments["x"][:, :1].expand(-1, 3, -1, -1, -1)}
    assert moved(denoiser(**same)[:, 0], denoiser(**same)[:, 1]) > 1e-3


def test_context_is_read_where_it_is_visible() -> None:
    """Every visible context token changes the output, and a hidden one does not."""
    denoiser, arguments = made(), told()
    before, context = denoiser(**arguments), arguments["context"]
    for token in range(5):
        tokens = context.tokens.clone()
        tokens[:, token] = tokens[:, token].flip(-1)
        change = moved(denoiser(**arguments | {"context": ContextTokens(tokens, context.visible)}), before)

        assert change == 0 if token == 3 else change > 1e-4


def test_cells_know_where_they_are() -> None:
    """Far from the border, where convolutions see the same around them, equal cells differ by their place alone."""
    denoiser, arguments = made(), told(24, 24, rows=1)
    even = {name: torch.ones_like(arguments[name]) for name in ("x", "given")}
    out = denoiser(**arguments | even)[0, 0, :, 8:16:2, 8:16:2]  # the same cell of its patch each time

    assert out.std((1, 2)).min() > 1e-3


def test_neighbours_in_a_frame_are_seen_without_attention() -> None:
    """The convolution of the feed-forward part shows a cell those around it, and only them."""
    feed = made(replace(SMALL, patch=1)).blocks[0].feed
    x = torch.randn(1, 2, 7, 7, 32)
    changed = x.clone()
    changed[0, 0, 3, 3] += 1
    reached = (feed(changed) - feed(x)).abs().amax(-1)[0] > 1e-6

    assert reached[0, 2:5, 2:5].all()
    assert int(reached.sum()) == 9


def test_a_new_denoiser_returns_nearly_nothing() -> None:
    """Gates and exit begin near zero: the first loss is that of a prediction of nothing, and steps do not explode."""
    denoiser = Denoiser(SMALL, channels=3, given_frames=2, timesteps=100, context_width=8)

    assert denoiser(**told()).detach().abs().max() < 0.2


def test_checkpointing_changes_no_gradient() -> None:
    """Values that are computed anew in the backward pass give the same gradients."""
    gradients = []
    for config in (SMALL, replace(SMALL, checkpointing=True)):
        denoiser = made(config)
        denoiser(**told()).square().sum().backward()
        gradients.append([parameter.grad for parameter in denoiser.parameters()])

    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_stays_near_float32() -> None:
    """Under autocast the output differs by what bfloat16 rounds off, a few hundredths of its size."""
    denoiser, arguments = made(), told()
    exact = denoiser(**arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = denoiser(**arguments).float()

    assert (rounded - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()


def test_every_setting_does_something() -> None:
    """A new setting must be in the table, and each changes the weights or the output."""
    assert set(DenoiserConfig.__dataclass_fields__) == set(CHANGES)
    shapes = {name: weight.shape for name, weight in made().state_dict().items()}
    plain = made()(**told())
    for name, value in CHANGES.items():
        other = made(replace(SMALL, **{name: value}))
        changed = {key: weight.shape for key, weight in other.state_dict().items()} != shapes
        # Checkpointing is for memory; that it changes nothing else is tested above.
        assert changed or name == "checkpointing" or moved(other(**told()), plain) > 1e-3, name


@pytest.mark.parametrize("setting", [{"width": 30}, {"patch": 0}, {"ffn_ratio": 0.1}, {"dropout": 1.0}])
def test_wrong_settings_are_refused_by_name(setting: dict[str, Any]) -> None:
    """A setting that cannot be built names itself."""
    with pytest.raises(ConfigError, match=next(iter(setting))):
        replace(SMALL, **setting)
