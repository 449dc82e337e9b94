"""One model on all ranks: a copy each (DDP), or a share of every parameter each (FSDP2).

    model -> SharedModel -> loss of this rank's rows -> backward -> gradients averaged over the ranks -> clipped
    share (DTensor) -> whole -> checkpoints, the same for any number of ranks -> share_like -> share

Parameters without dimensions, the curvatures, scales and spreads, are never shared: they stay plain copies, whose
gradients are averaged here. What FSDP2 needs takes two seconds to import, which is done where it is asked for.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from bytropix.jobs.ranks import Ranks

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Shares:
    """How FSDP2 splits a model.

    Attributes:
        root: The module whose `forward`, or one of whose `methods`, a training step calls once: the model, or the
            module that has model and loss.
        blocks: Classes of the modules below it that are gathered one at a time.
        methods: Methods of `root` besides `forward` that need its parameters whole.
    """

    root: nn.Module
    blocks: tuple[type[nn.Module], ...]
    methods: tuple[str, ...] = ()


class SharedModel:
    """A model that all ranks train together.

    Args:
        model: The same on every rank.
        loss: The module that a step calls: `loss(batch, positions)` returns a sum of losses, and tallies.
        ranks: All ranks.
        shares: With FSDP2, how parameters become shares, in place; `None` for DDP. A process that is alone has the
            whole model with either.

    Attributes:
        model: That model.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, ranks: Ranks, shares: Shares | None) -> None:
        self.model = model
        self._ranks = ranks
        self._loss = loss
        self._alone: list[nn.Parameter] = []
        if ranks.grouped and shares is not None:
            self._alone = _fully_shard(shares)
        elif ranks.grouped:
            self._loss = DistributedDataParallel(loss, gradient_as_bucket_view=True)
            self._loss.broadcast_buffers = False  # they are tables, the same on all ranks

    def loss(self, batch: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of this rank's rows, and their tallies."""
        total, tallies = self._loss(batch, positions)
        return total, tallies

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        """Run `loss` and its backward pass inside; gradients are averages over the ranks after the `last` of a step."""
        later = isinstance(self._loss, DistributedDataParallel) and not last
        with self._loss.no_sync() if later else nullcontext():  # type: ignore[operator]
            yield
        if last and self._alone:
            self._average_alone()

    def clip(self, most: float) -> Tensor:
        """Shorten the gradient to a norm of at most `most` and return its norm before, over all ranks' shares."""
        parameters = list(self.model.parameters())
        norm = gradient_norm(parameters)
        for kind in _kinds(parameters):  # one kernel takes shares or whole tensors, not both
            clip_grads_with_norm_(kind, most, norm)
        return norm

    def _average_alone(self) -> None:
        """Average the gradients of the parameters that FSDP2 leaves alone."""
        gradients = [parameter.grad for parameter in self._alone if parameter.grad is not None]
        means = self._ranks.add_up(torch.stack(gradients)) / self._ranks.count
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients of some parameters, over all ranks' shares; without any, 0."""
    norms = [
        whole(get_total_norm([parameter.grad for parameter in kind if parameter.grad is not None]))
        for kind in _kinds(parameters)
    ]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def split_groups(optimizer: torch.optim.Optimizer) -> None:
    """Give whole parameters among shares a group of their own: one kernel takes shares or whole tensors, not both."""
    for group in list(optimizer.param_groups):
        first, *others = _kinds(group["params"])
        group["params"] = first
        for other in others:
            optimizer.add_param_group({**group, "params": other})


def plain_copy(model: Model, build: Callable[[], Model]) -> Model:
    """Return a model whose parameters are whole: itself, or one on the CPU from what all ranks bring together."""
    if not any(is_share(parameter) for parameter in model.parameters()):
        return model
    weights = {name: whole(tensor).cpu() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn in vain
        copy = build()
    copy.load_state_dict(weights)
    return copy


def whole(x: Tensor) -> Tensor:
    """Return a tensor of which the ranks hold shares as a whole; all ranks come here together."""
    full: Tensor = x.full_tensor() if is_share(x) else x  # type: ignore[attr-defined]
    return full


def share_like(x: Tensor, like: Tensor) -> Tensor:
    """Return this rank's share of a whole tensor, laid out as `like` is; without any exchange with other ranks.

    Where nothing is shared, that is a tensor of the same strides: a fused AdamW walks through memory, not through rows
    and columns.
    """
    if x.shape != like.shape:
        return x
    if not is_share(like):
        return torch.empty_like(like, dtype=x.dtype).copy_(x)
    from torch.distributed.tensor import DTensor, distribute_tensor

    shared = cast(DTensor, like)
    return distribute_tensor(x.to(like.device), shared.device_mesh, shared.placements, src_data_rank=None)


def _fully_shard(shares: Shares) -> list[nn.Parameter]:
    """Turn parameters into shares, in place; return those that stay whole."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    alone = [parameter for parameter in shares.root.parameters() if not parameter.dim()]
    for block in [module for module in shares.root.modules() if isinstance(module, shares.blocks)]:
        fully_shard(block)
    fully_shard(shares.root, reshard_after_forward=True, ignored_params=set(alone))
    for method in shares.methods:
        register_fsdp_forward_method(shares.root, method)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # which nobody writes to
    return alone


def is_share(x: Tensor) -> bool:
    """Whether a tensor is a rank's share, a DTensor."""
    return hasattr(x, "full_tensor")


def _kinds(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return the shares and the whole parameters, apart, of those that are there."""
    kinds: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in parameters:
        kinds[not is_share(parameter)].append(parameter)
    return [kind for kind in kinds if kind]
