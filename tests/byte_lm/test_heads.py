"""Both heads are normalized distributions, and their nats are those of the distribution."""

import pytest
import torch

from bytropix.byte_lm.heads import HEADS, TwoStageHead

NAMES = pytest.mark.parametrize("name", HEADS)


def a_head(name: str) -> torch.nn.Module:
    """Return a head in float64 whose logits are far from even."""
    torch.manual_seed(2)
    head = HEADS[name](12).double()
    torch.nn.init.normal_(head.logits.weight, std=2.0)
    torch.nn.init.normal_(head.logits.bias, std=2.0)
    return head


@NAMES
def test_probabilities_add_up_to_one(name: str) -> None:
    """Spec T8, d.8 T14: over the 256 bytes, also where states are large or in half precision."""
    states = torch.randn(5, 7, 12, dtype=torch.float64) * torch.tensor([0.0, 1e-3, 1.0, 30.0, 1e3])[:, None, None]
    log_probs = a_head(name)(states)
    half = a_head(name).bfloat16()(states.bfloat16())

    assert log_probs.shape == (5, 7, 256)
    torch.testing.assert_close(log_probs.logsumexp(-1), torch.zeros(5, 7, dtype=torch.float64), atol=1e-9, rtol=0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.logsumexp(-1), torch.zeros(5, 7), atol=1e-4, rtol=0)


@NAMES
def test_nats_are_those_of_the_distribution(name: str) -> None:
    """d.8 T14: the nats of every byte value equal -ln p of `forward`."""
    head = a_head(name)
    states = torch.randn(3, 256, 12, dtype=torch.float64)
    values = torch.arange(256, dtype=torch.uint8).expand(3, 256)
    expected = -head(states).gather(-1, values[..., None].long()).squeeze(-1)

    torch.testing.assert_close(head.nats(states, values), expected, atol=1e-9, rtol=1e-12)


def test_two_stages_equal_the_flat_softmax_of_their_logits() -> None:
    """d.8 T14: byte 16 k + r has logit class k - lse(rest of k) + rest r of k, in one softmax over 256."""
    head = a_head("two_stage")
    assert isinstance(head, TwoStageHead)
    states = torch.randn(4, 12, dtype=torch.float64)
    logits = states @ head.logits.weight.T + head.logits.bias
    high, low = logits[:, :16], logits[:, 16:].view(4, 16, 16)
    flat = torch.empty(4, 256, dtype=torch.float64)
    for byte in range(256):
        k, r = divmod(byte, 16)
        flat[:, byte] = high[:, k] + low[:, k, r] - low[:, k].logsumexp(-1)

    torch.testing.assert_close(head(states), flat.log_softmax(-1), atol=1e-9, rtol=0)


@NAMES
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    """d.8 T14: in float64, of the nats and of all log-probabilities, by states and by weights."""
    head = a_head(name)
    states = torch.randn(2, 3, 12, dtype=torch.float64, requires_grad=True)
    values = torch.tensor([[0, 255, 16], [97, 15, 128]])

    def by_weight(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        named = {"logits.weight": weight, "logits.bias": bias}
        return torch.func.functional_call(Nats(head), {f"head.{key}": one for key, one in named.items()}, (states,))

    class Nats(torch.nn.Module):
        def __init__(self, head: torch.nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.head.nats(states, values)

    assert torch.autograd.gradcheck(head, (states,), fast_mode=True)
    assert torch.autograd.gradcheck(by_weight, (states, head.logits.weight, head.logits.bias), fast_mode=True)
