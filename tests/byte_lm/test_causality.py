"""Nothing at index i depends on byte i or a later one, and what is past is used."""

import pytest
import torch
from torch import Tensor, nn

from bytropix.byte_lm import WuBuByteLM
from bytropix.patching import RULES, Patcher

LENGTH = 72


def without_local_path(model: WuBuByteLM) -> None:
    """Cut the states of single bytes from the decoder, so that only memory slots tell it about bytes."""

    def cut(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.zeros_like(args[0]), *args[1:])

    model.decoder.register_forward_pre_hook(cut)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["wubu", "transformer"])
@pytest.mark.parametrize("text", ["prose", "utf8", "binary", "runs"])
def test_future_bytes_change_nothing(lab, patchers: dict[str, Patcher], kind: str, rule: str, text: str) -> None:
    """Spec T1, d.8 T6: random bytes from t on, patched anew, leave indices up to t as they were, bit by bit."""
    model = lab.model(kind, seed=len(text))
    whole = lab.texts(LENGTH)[text]
    cuts = range(0, LENGTH, 3)
    changed = [whole[:t] + lab.noise(LENGTH - t, f"{rule}{text}{t}") for t in cuts]
    with torch.no_grad():
        before = model(*lab.rows(patchers[rule], [whole] * len(changed)), LENGTH)
        after = model(*lab.rows(patchers[rule], changed), LENGTH)

    for row, t in enumerate(cuts):
        assert torch.equal(before[row, : t + 1], after[row, : t + 1])
        assert t == LENGTH - 3 or not torch.allclose(before[row, t + 1 :], after[row, t + 1 :], atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["wubu", "transformer"])
def test_class_of_the_next_byte_does_not_leak(lab, patchers: dict[str, Patcher], kind: str, rule: str) -> None:
    """Spec T4: whether a letter, a space, a lead byte or 0xFF comes at t shows nowhere up to index t."""
    model = lab.model(kind)
    whole = "she sold, at last: ship 7 \u3042\u3044 home; and then".encode()
    cuts = range(len(whole))
    seen = []
    for tail in (b"a", b" ", b"\xe3", b"\xff", b"."):
        texts = [whole[:t] + tail * (len(whole) - t) for t in cuts]
        with torch.no_grad():
            seen.append(model(*lab.rows(patchers[rule], texts), len(whole)))

    for t in cuts:
        assert all(torch.equal(seen[0][t, : t + 1], other[t, : t + 1]) for other in seen[1:])


def gradients(model: WuBuByteLM, values: Tensor, starts: Tensor, tables: list[Tensor]) -> list[list[Tensor]]:
    """Return, for each index, the gradient that its log-probabilities send to the rows of each table."""
    draws = torch.Generator().manual_seed(0)
    log_probs = model(values, starts, values.shape[1])[0]
    weights = torch.randn(log_probs.shape, generator=draws)
    return [
        list(torch.autograd.grad((log_probs[i] * weights[i]).sum(), tables, retain_graph=True, materialize_grads=True))
        for i in range(len(log_probs))
    ]


def test_gradient_reaches_only_the_past(lab) -> None:
    """Spec T2, d.8 T7: index i sends exactly nothing to the vectors of bytes and n-grams from i on."""
    model = lab.wubu()
    values = torch.randperm(256, generator=torch.Generator().manual_seed(3))[None, :40]
    starts = lab.random_starts(1, 40, 0.25, seed=5)
    tables = [model.encoder.bytes.weight, model.encoder.ngrams.table.weight]
    rows = [values[0, :, None], model.encoder.ngrams.rows_of(values)[0]]
    assert len(rows[1].unique()) == rows[1].numel(), "the seed must be one without hash collisions"
    found = gradients(model, values, starts, tables)

    for i, of_index in enumerate(found):
        for gradient, row in zip(of_index, rows, strict=True):
            assert not gradient[row[i:].flatten()].any()
            assert i == 0 or gradient[row[i - 1].flatten()].any(dim=-1).all()


def test_transformer_gradient_reaches_only_the_past(lab) -> None:
    """Spec T2, d.8 T7 for the plain transformer, where every earlier byte is used."""
    model = lab.transformer()
    values = torch.arange(40)[None]
    found = gradients(model, values, torch.ones(1, 40, dtype=torch.bool), [model.bytes.weight])

    for i, (gradient,) in enumerate(found):
        assert not gradient[i:256].any()
        assert gradient[:i].any(dim=-1).all()


def test_memory_path_carries_earlier_patches(lab) -> None:
    """d.8 T7: with single bytes cut off, every byte of every closed patch still reaches an index; the open one not."""
    model = lab.wubu()
    without_local_path(model)
    values = torch.randperm(256, generator=torch.Generator().manual_seed(3))[None, :40]
    starts = lab.random_starts(1, 40, 0.25, seed=5)
    found = gradients(model, values, starts, [model.encoder.bytes.weight])
    opened = [int(starts[0, : i + 1].nonzero().max()) for i in range(40)]

    for i, (gradient,) in enumerate(found):
        assert gradient[values[0, : opened[i]]].any(dim=-1).all()
        assert not gradient[values[0, opened[i] :]].any()


@pytest.mark.parametrize("rule", RULES)
def test_patch_is_fresh_at_its_border(lab, patchers: dict[str, Patcher], rule: str) -> None:
    """d.8 T8: with single bytes cut off, the index after a patch's last byte already depends on that patch."""
    model = lab.wubu()
    without_local_path(model)
    text = lab.texts(LENGTH)["prose"]
    values, starts = lab.rows(patchers[rule], [text])
    borders = starts[0].nonzero().flatten().tolist()[1:]
    with torch.no_grad():
        before = model(values, starts, LENGTH)[0]
        for begin, border in zip([0, *borders], borders, strict=False):
            other = values.clone()
            other[0, begin:border] ^= 1
            after = model(other, starts, LENGTH)[0]

            assert torch.equal(before[:border], after[:border])
            assert (before[border] - after[border]).abs().max() > 1e-3
