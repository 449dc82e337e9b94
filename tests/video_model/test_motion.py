"""Motion regions as tokens: of pairs of frames, from their maps, their difference, or both."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.video.config import ContextConfig
from bytropix.video.motion import SOURCES, MotionEncoder

BOXES = torch.tensor([[8.0, 8, 40, 40], [0.0, 0, 16, 16]]).expand(1, 3, 2, 4)


def encoder(source: Any) -> MotionEncoder:
    """Return the encoder of one seed."""
    torch.manual_seed(0)
    return MotionEncoder(ContextConfig(features=8, motion_bins=2, region_width=16, motion_source=source))


def encoded(source: Any, maps: Tensor, boxes: Tensor = BOXES) -> tuple[Tensor, Tensor]:
    """Return tokens and validity of maps [1, F, 8, 8, 8] of 64 x 64 frames."""
    tokens, valid = encoder(source)(maps, boxes, image_size=(64, 64), covered=(64, 64))
    return tokens, valid


def maps_of(frames: int = 3, seed: int = 0) -> Tensor:
    """Return feature maps."""
    return torch.randn(1, frames, 8, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("source", SOURCES)
def test_a_pair_has_tokens_of_its_two_frames_alone(source: Any) -> None:
    """F frames make F - 1 pairs; a change of a frame changes the pairs that it is in, and no other."""
    maps = maps_of(4)
    boxes = BOXES[:, :1].expand(1, 4, 2, 4)
    changed = maps.clone()
    changed[:, 1] = maps_of(1, seed=1)[:, 0]
    before, valid = encoded(source, maps, boxes)
    after, _ = encoded(source, changed, boxes)

    assert before.shape == (3, 2, 16)
    assert valid.all()
    assert ((before[:2] - after[:2]).norm(dim=-1) > 0.1).all()
    assert torch.equal(before[2], after[2])


def test_a_difference_knows_nothing_of_what_stands_still() -> None:
    """With source 'difference', a picture that does not change is like any other; with 'maps' and 'both' it is not."""
    still, other = maps_of(1).expand(1, 3, 8, 8, 8), maps_of(1, seed=1).expand(1, 3, 8, 8, 8)

    torch.testing.assert_close(encoded("difference", still)[0], encoded("difference", other)[0])
    for source in ("maps", "both"):
        assert (encoded(source, still)[0] - encoded(source, other)[0]).norm() > 0.5


def test_maps_and_both_know_the_order_of_frames() -> None:
    """There and back differ, but not for the size of the difference."""
    there = maps_of(2)
    back = there.flip(1)
    boxes = BOXES[:, :2]

    torch.testing.assert_close(encoded("difference", there, boxes)[0], encoded("difference", back, boxes)[0])
    for source in ("maps", "both"):
        assert (encoded(source, there, boxes)[0] - encoded(source, back, boxes)[0]).norm() > 0.5


def test_the_boxes_are_those_of_the_later_frame() -> None:
    """Boxes of the first frame are not used; those of frame f are where pair (f - 1, f) is sampled."""
    boxes = BOXES.clone()
    boxes[:, 0] = 0
    maps = maps_of()
    moved = BOXES.clone()
    moved[:, 2] += 16
    tokens, _ = encoded("both", maps)
    elsewhere, _ = encoded("both", maps, moved)

    assert torch.equal(tokens, encoded("both", maps, boxes)[0])
    assert torch.equal(tokens[0], elsewhere[0])
    assert ((tokens[1] - elsewhere[1]).norm(dim=-1) > 0.1).all()


def test_one_frame_has_no_pairs() -> None:
    """No tokens, and no error."""
    tokens, valid = encoded("both", maps_of(1), BOXES[:, :1])

    assert tokens.shape == (0, 2, 16)
    assert valid.shape == (0, 2)


@pytest.mark.parametrize("source", SOURCES)
def test_padding_is_finite_and_every_number_learns(source: Any) -> None:
    """A pair without motion regions has finite tokens and gradients; each parameter has a gradient of the others."""
    boxes = BOXES.clone()
    boxes[:, 2] = 0
    encode = encoder(source)
    tokens, valid = encode(maps_of(), boxes, image_size=(64, 64), covered=(64, 64))
    (tokens[valid] * torch.randn(2, 16)).sum().backward()

    assert valid.tolist() == [[True, True], [False, False]]
    assert tokens.isfinite().all()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in encode.parameters())
