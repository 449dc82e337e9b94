"""What torchrun's environment says, and losses that count data bytes alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteStream
from bytropix.errors import ConfigError
from bytropix.jobs.byte_task import TotalNats
from bytropix.jobs.ranks import TIMEOUT, Ranks, joined
from bytropix.jobs.recipe import Recipe, build_model

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize("absent", ["RANK", "WORLD_SIZE", "MASTER_ADDR"])
def test_a_process_without_torchrun_is_alone(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no process group, sums are the numbers themselves, and errors pass as they are."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(absent)
    with joined(torch.device("cpu")) as ranks:
        assert (ranks.rank, ranks.count, ranks.grouped, ranks.speaks) == (0, 1, False, True)
        assert ranks.sums(3, True) == [3, 1]
        assert not torch.distributed.is_initialized()
        with pytest.raises(ConfigError, match=r"^x$"), ranks.together():
            raise ConfigError("x")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "one", r"no numbers \(RANK='one', WORLD_SIZE='2', LOCAL_RANK='1'\)"),
        ("WORLD_SIZE", "", "no numbers"),
        ("RANK", "2", "rank 2 of 2"),
        ("RANK", "-1", "rank -1 of 2"),
        (TIMEOUT, "soon", "must be seconds above 0, got 'soon'"),
        (TIMEOUT, "0", "must be seconds above 0, got '0'"),
    ],
)
def test_a_wrong_environment_is_named(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody waits for anybody."""
    for variable, usual in (TORCHRUN | {name: value}).items():
        monkeypatch.setenv(variable, usual)

    with pytest.raises(ConfigError, match=message), joined(torch.device("cpu")):
        pass


@torch.no_grad()
def test_padding_counts_nothing(recipe: Recipe, store: Store) -> None:
    """Cut rows have the nats of their data bytes, whatever stands behind; an empty row has none."""
    torch.manual_seed(0)
    model = build_model(recipe).eval()
    batch = next(iter(ByteStream(store, context=recipe.train.context, batch=3)))
    nats_BT: Any = model.nats(batch.bytes, batch.starts, batch.patches)
    lengths, positions = torch.tensor([65, 20, 0]), torch.arange(3)
    cut = replace(batch, lengths=lengths, n_bytes=85)
    wanted = nats_BT[0].sum() + nats_BT[1, :20].sum()

    assert float(TotalNats(model)(cut, positions)[0]) == pytest.approx(float(wanted), rel=1e-6)
    assert float(TotalNats(model)(batch, positions)[0]) == pytest.approx(float(nats_BT.sum()), rel=1e-6)
    assert float(TotalNats(model)(replace(batch, lengths=lengths * 0, n_bytes=0), positions)[0]) == 0


def test_ranks_draw_apart_and_again_what_they_drew() -> None:
    """A rank's random numbers are a function of seed, step and rank; a process that is alone goes on with its own."""

    def draw(ranks: Ranks, seed: int, step: int) -> float:
        ranks.seed_step(seed, step)
        return float(torch.rand(()))

    with torch.random.fork_rng():
        places = [(rank, seed, step) for rank in range(3) for seed in range(2) for step in range(3)]
        drawn = [draw(Ranks(rank, 3, grouped=True), seed, step) for rank, seed, step in places]
        again = [draw(Ranks(rank, 3, grouped=True), seed, step) for rank, seed, step in places]
        alone = [draw(Ranks(), 0, 0) for _ in range(2)]

    assert len(set(drawn)) == len(drawn)
    assert again == drawn
    assert alone[0] != alone[1]
