"""Numbers of a key: the same in any batch, well spread, unrelated to those of the next key."""

import pytest
import torch

from bytropix.video.noise import clip_keys, fork, keyed_normal, keyed_uniform

KEYS = clip_keys(0, torch.arange(256))


def test_numbers_are_those_of_the_key_alone() -> None:
    """A clip has the same numbers in any batch and at any place in it, and whatever was drawn before."""
    whole = keyed_normal(KEYS, (3, 5, 7))
    torch.manual_seed(1)

    assert torch.equal(keyed_normal(KEYS[40:41], (3, 5, 7)), whole[40:41])
    assert torch.equal(keyed_normal(KEYS.flip(0), (3, 5, 7)), whole.flip(0))
    assert torch.equal(keyed_uniform(KEYS[3:9], 4), keyed_uniform(KEYS, 4)[3:9])
    assert torch.equal(clip_keys(0, torch.tensor([17, 200])), KEYS[[17, 200]])


def test_shape_is_a_view_of_one_row_of_numbers() -> None:
    """The numbers do not depend on how a clip's axes are named, and their count may be odd."""
    assert torch.equal(keyed_normal(KEYS, (3, 4)).flatten(1), keyed_normal(KEYS, (12,)))
    assert keyed_normal(KEYS, (5,)).shape == (256, 5)
    assert keyed_normal(KEYS, ()).shape == (256,)


def test_normal_numbers_are_normal() -> None:
    """Mean, variance, skewness, kurtosis and tails are those of the normal distribution, within what chance allows."""
    x = keyed_normal(KEYS, (4096,)).double()
    chance = 5 / x.numel() ** 0.5  # five standard errors

    assert abs(x.mean()) < chance
    assert abs(x.square().mean() - 1) < chance * 2**0.5
    assert abs(x.pow(3).mean()) < chance * 15**0.5
    assert abs(x.pow(4).mean() - 3) < chance * 96**0.5
    for bound, share in ((1.0, 0.317311), (2.0, 0.045500), (3.0, 0.0026998), (4.0, 6.334e-5)):
        assert abs((x.abs() > bound).double().mean() - share) < chance * share**0.5
    assert x.isfinite().all()


def test_uniform_numbers_are_even() -> None:
    """Uniform numbers lie in [0, 1) and fall evenly into sixty-four parts of it (chi squared)."""
    x = keyed_uniform(KEYS, 1024)
    counts = torch.histc(x, 64, 0, 1).double()
    expected = x.numel() / 64

    assert x.min() >= 0
    assert x.max() < 1
    assert ((counts - expected).square() / expected).sum() < 63 + 5 * (2 * 63) ** 0.5


@pytest.mark.parametrize("keys", [KEYS, torch.arange(256), torch.arange(256) << 40], ids=["hashed", "small", "high"])
def test_neighbouring_keys_and_streams_are_unrelated(keys: torch.Tensor) -> None:
    """Numbers do not go with those of the next key, the next seed, another stream, nor the next numbers of the key."""
    x = keyed_normal(keys, (2048,)).double()
    others = {
        "next key": (x[:-1], x[1:]),
        "next number": (x[:, :-1], x[:, 1:]),
        "other half of the pairs": (x[:, :1024], x[:, 1024:]),
        "stream": (x, keyed_normal(fork(keys, 1), (2048,)).double()),
        "two streams": (keyed_normal(fork(keys, 0), (2048,)).double(), keyed_normal(fork(keys, 1), (2048,)).double()),
    }

    for one, other in others.values():
        chance = 5 / one.numel() ** 0.5
        assert abs((one * other).mean()) < chance
        assert abs((one.square() * other.square()).mean() - 1) < chance * 8**0.5


def test_bits_of_neighbouring_keys_differ_in_half() -> None:
    """A key that is one more changes half of all bits of a clip's numbers, so low bits are as good as high ones."""
    whole = (keyed_uniform(torch.arange(4096), 8) * 2**24).long()
    changed = whole[1:] ^ whole[:-1]
    shares = torch.stack([(changed >> bit & 1).double().mean() for bit in range(24)])

    assert (shares - 0.5).abs().max() < 5 * 0.5 / changed.numel() ** 0.5


def test_seeds_and_positions_do_not_meet() -> None:
    """No two clips of any two seeds have the same key: a seed is not a place further on in the same stream."""
    keys = torch.cat([clip_keys(seed, torch.arange(5000)) for seed in (0, 1, 2, -1, 2**63 + 5)])

    assert len(keys.unique()) == len(keys)


def test_numbers_stay_as_they_are() -> None:
    """A run that is resumed by a later version has the same noise: the first numbers of a key are written down here."""
    keys = clip_keys(7, torch.arange(2))

    # Computed from the published splitmix64 with Python's whole numbers.
    assert keys.tolist() == [-8939422738894075563, 7679224513536973917]
    assert keyed_uniform(keys[:1], 2).tolist() == [[0.579075813293457, 0.1719655990600586]]
    expected = torch.tensor([[0.9142213724514912, 1.6551690025344865, 0.5067966766458968]])
    torch.testing.assert_close(keyed_normal(keys[:1], (3,)), expected)
