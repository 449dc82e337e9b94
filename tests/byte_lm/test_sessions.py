"""One window read in any pieces gives the figures of the window read at once."""

import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor

LENGTH = 150
KINDS = pytest.mark.parametrize("kind", ["wubu", "transformer"])
# Shares of starts: patches of one byte; a usual mean; patches of 50 and more, past the last place vector.
SHARES = pytest.mark.parametrize("share", [1.0, 0.2, 0.0125, 0.0])


def a_window(lab, share: float) -> tuple[Tensor, Tensor]:
    """Return bytes and random starts (1, T), of prose, UTF-8 and noise."""
    texts = lab.texts(LENGTH // 3)
    values = b"".join(texts[name] for name in ("prose", "utf8", "binary"))
    return torch.tensor([list(values)]), lab.random_starts(1, LENGTH, share, seed=round(share * 1000))


def next_starts(starts: Tensor) -> list[bool]:
    """Return for each byte whether the one behind it starts a patch; the last says no."""
    return [*starts[0, 1:].tolist(), False]


@KINDS
@SHARES
def test_session_equals_the_whole_window(lab, kind: str, share: float) -> None:
    """Spec T3, d.8 T9: fed byte by byte, a session gives the log-probabilities of the whole window."""
    model = lab.model(kind)
    values, starts = a_window(lab, share)
    with torch.no_grad():
        whole = model(values, starts, int(starts.sum()))[0]
    session = model.session()
    steps = [session.log_probs]
    for value, begins in list(zip(values[0].tolist(), next_starts(starts), strict=True))[:-1]:
        steps.append(session.push([value], [begins])[0])

    torch.testing.assert_close(torch.stack(steps), whole, atol=1e-5, rtol=0)


@KINDS
@SHARES
def test_session_takes_chunks_of_any_size(lab, kind: str, share: float) -> None:
    """d.8 T9: chunks of random sizes, across patch borders, give the same, and `log_probs` is the last of them."""
    model = lab.model(kind)
    values, starts = a_window(lab, share)
    flags = next_starts(starts)
    with torch.no_grad():
        whole = model(values, starts, LENGTH)[0]
    for seed in range(4):
        cuts = sorted(random.Random(seed).sample(range(1, LENGTH - 1), 12))
        session = model.session()
        pieces = [session.log_probs[None]]
        for begin, end in pairwise([0, *cuts, LENGTH - 1]):
            pieces.append(session.push(values[0, begin:end].tolist(), flags[begin:end]))

            assert torch.equal(pieces[-1][-1], session.log_probs)
        torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-5, rtol=0)


@KINDS
@SHARES
def test_prefix_equals_the_whole_window(lab, kind: str, share: float) -> None:
    """Spec T3: the log-probabilities of a prefix are those of the whole before its end."""
    model = lab.model(kind)
    values, starts = a_window(lab, share)
    with torch.no_grad():
        whole = model(values, starts, LENGTH)[0]
        for end in (1, 2, 3, 50, 77, 101, LENGTH - 1):
            part = model(values[:, :end], starts[:, :end], max(1, int(starts[:, :end].sum())))[0]

            torch.testing.assert_close(part, whole[:end], atol=1e-5, rtol=0)


@KINDS
def test_copies_go_on_apart(lab, kind: str) -> None:
    """A copy taken inside a patch reads other bytes than the original, and neither notices the other."""
    model = lab.model(kind)
    values, starts = a_window(lab, 0.2)
    flags = next_starts(starts)
    read = values[0].tolist()
    for middle in (0, 63, 64):
        end = middle + 20
        session = model.session()
        if middle:
            session.push(read[:middle], flags[:middle])
        twin = session.copy()
        other = [(value + 1) % 256 for value in read]
        for t in range(middle, end - 1):
            session.push([read[t]], [flags[t]])
            twin.push([other[t]], [flags[t]])
        with torch.no_grad():
            own = model(values[:, :end], starts[:, :end], end)[0, -1]
            mixed = torch.tensor([read[:middle] + other[middle:end]])
            others = model(mixed, starts[:, :end], end)[0, -1]

        torch.testing.assert_close(session.log_probs, own, atol=1e-5, rtol=0)
        torch.testing.assert_close(twin.log_probs, others, atol=1e-5, rtol=0)


@KINDS
def test_whole_context_fits(lab, kind: str) -> None:
    """A session reads as many bytes as the model's context, each a patch, and still predicts the one behind them."""
    model = lab.model(kind, context=20)
    session = model.session()
    for value in range(20):
        session.push([value], [True])
    values, starts = torch.arange(21)[None], torch.ones(1, 21, dtype=torch.bool)
    with torch.no_grad():
        whole = model(values, starts, 21)[0, -1]

    assert session.length == 20
    torch.testing.assert_close(session.log_probs, whole, atol=1e-5, rtol=0)
