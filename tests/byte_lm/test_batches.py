"""A row knows nothing of its neighbours, its padding, or the room for patches."""

import pytest
import torch

KINDS = pytest.mark.parametrize("kind", ["wubu", "transformer"])


@KINDS
def test_row_alone_equals_row_in_a_batch(lab, kind: str) -> None:
    """d.8 T2: rows of different lengths, padded with zeros or noise, in any order, give the figures of each alone."""
    model = lab.model(kind)
    lengths = [1, 2, 7, 30, 31, 64]
    longest = max(lengths)
    draws = torch.Generator().manual_seed(1)
    values = torch.randint(0, 256, (len(lengths), longest), generator=draws, dtype=torch.uint8)
    starts = lab.random_starts(len(lengths), longest, 0.3, seed=2)
    with torch.no_grad():
        alone = [
            model.nats(values[row : row + 1, :n], starts[row : row + 1, :n], int(starts[row, :n].sum()))[0]
            for row, n in enumerate(lengths)
        ]
        for seed in range(3):
            order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
            padded, marks = values.clone(), starts.clone()
            for row, n in enumerate(lengths):
                if seed:
                    padded[row, n:], marks[row, n:] = 0, False
            together = model.nats(padded[order], marks[order], int(marks.sum(1).max()))
            for place, row in enumerate(order.tolist()):
                torch.testing.assert_close(together[place, : lengths[row]], alone[row], atol=1e-5, rtol=0)


def test_more_room_for_patches_changes_nothing(lab) -> None:
    """`patches` may be anything from the starts of the first T - 1 bytes to T; no NaN comes from unused numbers."""
    model = lab.wubu()
    values = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(1))
    starts = lab.random_starts(3, 40, 0.2, seed=7)
    starts[1, 1:] = False
    starts[2, -1] = True
    least = int(starts[:, :-1].sum(1).max())
    for training in (False, True):
        model.train(training)
        losses, gradients = [], []
        for patches in (least, least + 1, 40):
            model.zero_grad()
            losses.append(model.nats(values, starts, patches))
            losses[-1].mean().backward()
            gradients.append(model.encoder.bytes.weight.grad.clone())

        for loss, gradient in zip(losses[1:], gradients[1:], strict=True):
            torch.testing.assert_close(loss, losses[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(gradient, gradients[0], atol=1e-6, rtol=0)
