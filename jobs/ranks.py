"""The ranks of a training: this process alone, or those that torchrun started.

    torchrun -> RANK, WORLD_SIZE, LOCAL_RANK -> joined() -> Ranks: process group, gloo for what the hosts agree on,
                                                                  and nccl for tensors on GPUs

Rank 0 speaks: progress, logs, checkpoints and errors are its own. An error that one rank raises inside `together` is
raised on all of them. A rank that dies or hangs ends the others, at once or after the group's timeout.
"""

import os
import random
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from bytropix.errors import BytropixError, ConfigError, RunError

TIMEOUT = "BYTROPIX_RANKS_TIMEOUT"  # seconds; names the environment variable
_PATIENCE = 600  # seconds a rank waits for the others: rank 0 may write a large checkpoint to a slow disk meanwhile
_TEXT = 2048  # bytes of an error that travel to the other ranks
_REFUSED = 2


@dataclass(frozen=True, slots=True)
class Ranks:
    """One rank's view of all ranks; without arguments, of a process that is alone.

    Attributes:
        rank: Number of this one, from 0.
        count: Number of all.
        grouped: There is a process group, if only of one rank.
    """

    rank: int = 0
    count: int = 1
    grouped: bool = False

    @property
    def speaks(self) -> bool:
        """Whether this rank tells the user how things are."""
        return self.rank == 0

    def tell(self, *lines: str) -> None:
        """Write lines to stderr, once for all ranks."""
        if self.speaks:
            print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)

    def sums(self, *numbers: int) -> list[int]:
        """Return the sums of numbers over all ranks; the hosts wait for each other, their devices do not."""
        if not self.grouped:
            return list(numbers)
        return self.add_up(torch.tensor(numbers, dtype=torch.int64)).tolist()

    def add_up(self, x: Tensor) -> Tensor:
        """Return `x` after every rank's `x` has been added to it, in place."""
        if self.grouped:
            dist.all_reduce(x)
        return x

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make an error inside, on any rank, an error of all ranks, of which rank 0 alone tells.

        Every rank comes here, and to the end of it; do not nest.

        Raises:
            BytropixError: On rank 0, what it raised itself, or else what the first rank that failed did.
            SystemExit: On the other ranks.
        """
        if not self.grouped:
            yield
            return
        error: BytropixError | None = None
        try:
            yield
        except BytropixError as raised:
            error = raised
        if self.sums(error is not None) != [0]:
            self._leave(error)

    def seed_step(self, seed: int, step: int) -> None:
        """Let the random numbers of a step, those of dropout, depend on seed, step and rank alone.

        So ranks draw independently of each other, and a run that is resumed on as many ranks draws again what it drew.
        A process that is alone goes on with its random state, which checkpoints keep.
        """
        if self.count > 1:
            torch.manual_seed(random.Random(f"{seed}/{step}/{self.rank}").getrandbits(63))

    def _leave(self, error: BytropixError | None) -> None:
        """Raise the first error of any rank on rank 0 and end the others."""
        _ignore_signals()  # torchrun ends a rank as soon as another has left, maybe before it has told why
        texts = torch.zeros(self.count, _TEXT, dtype=torch.uint8)
        if error is not None:
            text = str(error).encode()[:_TEXT] or b"?"
            texts[self.rank, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.add_up(texts)
        if not self.speaks:
            raise SystemExit(_REFUSED)
        if error is not None:
            raise error
        first = int(texts.any(1).nonzero()[0])
        raise RunError(f"rank {first}: {bytes(texts[first].tolist()).rstrip(bytes(1)).decode(errors='replace')}")


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Give the ranks of this training; all of them come and leave together.

    Args:
        device: Kind of device to train on; of several GPUs, a rank takes the one of its local rank.

    Raises:
        ConfigError: The environment is not one of torchrun's, or there are more ranks than GPUs.
        RunError: Another rank has ended or does not answer.
    """
    place = _environment(os.environ)
    if place is None:
        yield ALONE
        return
    rank, count, local = place
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"rank {rank} is number {local} of this machine, which has {torch.cuda.device_count()} GPUs; start as "
                "many ranks as there are GPUs (torchrun --nproc-per-node) or choose --train.device cpu"
            )
        torch.cuda.set_device(local)
    patience = _patience(os.environ)
    try:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=count, timeout=timedelta(seconds=patience))
        yield Ranks(rank, count, grouped=True)
        dist.all_reduce(torch.zeros(1))  # torchrun ends all ranks as soon as one has left with an error
        _ignore_signals()
    except RuntimeError as error:
        if not _is_about_ranks(error):
            raise
        _ignore_signals()  # torchrun is ending us too, but the user should know why
        raise RunError(
            f"rank {rank} of {count}: another rank has ended or did not answer within {patience:g} seconds "
            f"({str(error).splitlines()[0]}); see what it said, then go on with --resume"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _environment(variables: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return rank, count and rank on this machine as torchrun tells them; None without it.

    Raises:
        ConfigError: They are no numbers.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= variables.keys():
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, count, local = (int(variables.get(name, "0")) for name in names)
    except ValueError as error:
        told = ", ".join(f"{name}={variables.get(name)!r}" for name in names)
        raise ConfigError(f"the environment tells of ranks that are no numbers ({told}); use torchrun") from error
    if not 0 <= rank < count or local < 0:
        raise ConfigError(f"the environment tells of rank {rank} of {count}, {local} of its machine; use torchrun")
    return rank, count, local


def _patience(variables: Mapping[str, str]) -> float:
    """Return the seconds to wait for another rank."""
    told = variables.get(TIMEOUT, str(_PATIENCE))
    try:
        seconds = float(told)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f"{TIMEOUT} must be seconds above 0, got {told!r}")
    return seconds


def _is_about_ranks(error: RuntimeError) -> bool:
    """Whether torch lost another rank; gloo says so in plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "TCPStore"))


def _ignore_signals() -> None:
    """Do what is left to do in peace: the next thing is the end of the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
