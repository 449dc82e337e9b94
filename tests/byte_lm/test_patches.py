"""Where patches lie, and what is pooled from them."""

import torch
import torch.nn.functional as F

from bytropix.byte_lm.encoder import PatchPool
from bytropix.byte_lm.layers import Rotary, rotate
from bytropix.byte_lm.patches import lay_out


def test_layout_of_two_rows() -> None:
    """Numbers, places, last bytes and visible slots of rows that use all patch numbers, and that use few."""
    starts = torch.tensor([[1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    layout = lay_out(starts, 3)

    assert layout.patch_of_BT.tolist() == [[0, 0, 1, 2, 2, 2], [0] * 6]
    assert layout.place_BT.tolist() == [[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    assert layout.last_BP.tolist() == [[1, 2, 5], [5, 5, 5]]
    assert layout.visible_BTS[0].sum(-1).tolist() == [1, 1, 2, 3, 3, 3]
    assert layout.visible_BTS[1].sum(-1).tolist() == [1] * 6


def test_pooling_is_attention_inside_a_patch(lab) -> None:
    """The sums by patch number equal a masked softmax attention over all bytes, values and gradients, in float64."""
    torch.manual_seed(0)
    pool = PatchPool(24, 3).double()
    states = torch.randn(4, 50, 24, dtype=torch.float64, requires_grad=True)
    starts = lab.random_starts(4, 50, 0.25, seed=1)
    patches = int(starts.sum(1).max()) - 2
    layout = lay_out(starts, patches)
    asked = states.gather(1, layout.last_BP[..., None].expand(-1, -1, 24))
    inside = layout.patch_of_BT[:, None, :] == torch.arange(patches)[:, None]
    used = inside.any(-1)

    q = pool.query_norm(pool.query(asked).unflatten(-1, (3, 8))).transpose(1, 2)
    k, v = pool.key_value(states).unflatten(-1, (6, 8)).chunk(2, dim=2)
    mask = (inside | ~used[..., None])[:, None]
    mixed = F.scaled_dot_product_attention(q, pool.key_norm(k).transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    expected = pool.out(mixed.transpose(1, 2).flatten(2))
    found = pool(asked, states, layout.patch_of_BT)
    weights = torch.randn(4, patches, 24, dtype=torch.float64) * used[..., None]
    gradients = [torch.autograd.grad((out * weights).sum(), states, retain_graph=True)[0] for out in (expected, found)]

    torch.testing.assert_close(found[used], expected[used], atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-12, rtol=0)
    assert not found[~used].any()


def test_pooling_stands_large_scores() -> None:
    """Scores far past what exp can hold give the likeliest byte, without inf or NaN."""
    torch.manual_seed(0)
    pool = PatchPool(8, 1)
    states = torch.randn(1, 6, 8)
    with torch.no_grad():
        pool.query_norm.weight.fill_(1e4)
        found = pool(states[:, -1:], states, torch.zeros(1, 6, dtype=torch.long))

    assert found.isfinite().all()


def test_rotation_depends_on_distance_alone() -> None:
    """The product of a query and a key turned by their positions is a function of how far apart they are."""
    rotary = Rotary(16, 64)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 64, 1, 16)
    turn = rotary.at(slice(0, 64))
    products = rotate(q, turn)[0, :, 0] @ rotate(k, turn)[0, :, 0].T

    torch.testing.assert_close(products[10:, 10:], products[:54, :54], atol=1e-5, rtol=1e-5)
    assert (products[0] - products[0, 0]).abs().max() > 0.1
    torch.testing.assert_close(rotary.at(torch.tensor([[3, 9]]))[0], turn[[3, 9]])
