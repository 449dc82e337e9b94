"""Where a stream stands, in at most 256 bytes of plain data, and what may differ when it goes on.

state_dict -> JSON of a checkpoint -> checked against the stream that is to continue -> its position there
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bytropix.datasets.order import ORDER_VERSION
from bytropix.errors import StoreError

_MEANT = {"fingerprint": "store, or stores, weights and begun stages of a mixture,"}
_OLDER = {"pack": "bytes"}  # what a state of an older version means by saying nothing
_MOST = 1 << 40  # epochs, windows or bytes: far beyond any training, and no sum or product of them overflows


class StreamWarning(UserWarning):
    """What a stream did where it could not continue exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where any stream stands.

    Attributes:
        epoch: Epochs that have been delivered.
        position: Rows delivered in the present one, by all ranks together.
        seed: Names the order.
        lead: In a loader's worker, the global batches between this place and the worker's next one.
    """

    epoch: int
    position: int
    seed: int
    lead: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamState:
    """A place in a stream.

    Attributes:
        epoch: Epochs that have been delivered.
        position: Windows delivered in the present one, by all ranks together.
        seed: Names the order.
        fingerprint: Of what is read.
        split: Name of the split.
        context: Bytes of a window, less one.
        pack: How the split is cut.
        order: Version of the order.
        lead: In a loader's worker, the global batches between this place and the worker's next one.
    """

    epoch: int
    position: int
    seed: int
    fingerprint: str
    split: str
    context: int
    pack: str
    order: int = ORDER_VERSION
    lead: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def under(self, here: "StreamState", windows: int, *, place: str) -> tuple["StreamState", str]:
        """Return this place in a stream of another context, and a notice if it is not exactly the same place.

        Args:
            here: A place of that stream.
            windows: Its windows in an epoch, 0 if it has no epochs.
            place: What is read, for messages.

        Raises:
            StoreError: There is no such position.
        """
        most = windows or _MOST
        if (self.context == here.context and self.position >= most) or self.epoch * most >= 1 << 62:
            raise damaged(self, f"an epoch has {windows} windows", place=place)
        if self.context == here.context or not self.position:
            return replace(self, context=here.context), ""
        delivered = self.position * (self.context + 1)
        position = min(-(-delivered // (here.context + 1)), most)
        changed = f"the context was {self.context} and is {here.context} now: windows are cut and shuffled anew"
        if not windows:
            notice = (
                f"{changed}. {delivered} bytes had been delivered; of each store's epoch some come for a second time "
                "and others not at all, until its next one. Stages count windows, which are of another size now"
            )
            return replace(self, context=here.context, position=position), notice
        notice = (
            f"{changed}. Of epoch {self.epoch}, about {delivered} bytes had been delivered, and "
            f"{(windows - position) * (here.context + 1)} more follow, some of them for a second time and others not "
            "at all; from the next epoch on each byte comes once"
        )
        return replace(self, context=here.context, position=position), notice


def read_state(
    state: Mapping[str, Any], here: StreamState, *, fingerprint: Callable[[int], str], place: str
) -> StreamState:
    """Return a state that can be continued in a stream.

    Args:
        state: What `plain` returned, perhaps long ago.
        here: A state of that stream.
        fingerprint: What is read up to a position.
        place: What is read, for messages.

    Raises:
        StoreError: The state is of something else, damaged, or no state at all.
    """

    def wanted(position: int) -> dict[str, str]:
        return {"fingerprint": fingerprint(position), "split": here.split, "pack": here.pack}

    found = read_place(state, wanted, place=place, stream="byte stream")
    try:
        context = _whole(state["context"])
    except (KeyError, TypeError) as error:
        raise _foreign(state, place=place, stream="byte stream") from error
    whole = replace(here, **asdict(found), context=context, fingerprint=fingerprint(found.position))
    if not 1 <= context < _MOST:
        raise damaged(whole, f"context {context}", place=place)
    return whole


def read_place(
    state: Mapping[str, Any], wanted: Callable[[int], Mapping[str, str]], *, place: str, stream: str
) -> Place:
    """Return the place that a state names, in a stream of what the state is about.

    Args:
        state: Plain data, perhaps of long ago.
        wanted: What a state must be about to go on here, by name, given its position.
        place: What is read, for messages.
        stream: The kind of stream, for messages.

    Raises:
        StoreError: The state is of something else, damaged, or no state at all.
    """
    try:
        epoch, position, seed = (_whole(state[name]) for name in ("epoch", "position", "seed"))
        lead = None if state.get("lead") is None else _whole(state["lead"])
        expected = wanted(position)
        there = {name: state[name] if name in state else _OLDER[name] for name in expected}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _foreign(state, place=place, stream=stream) from error
    for name, value in there.items():
        if value != expected[name]:
            raise StoreError(
                f"{place}: the {name} of this stream is {expected[name]}, the state to resume from has {value}; "
                f"use the {_MEANT.get(name, name)} that it was taken with, or start a new run"
            )
    if state.get("order") != ORDER_VERSION:
        raise StoreError(
            f"{place}: the state to resume from counts windows in order {state.get('order', 1)}, this version reads in "
            f"order {ORDER_VERSION}; go on with the version of bytropix that it was taken with, or start a new run"
        )
    found = Place(epoch=epoch, position=position, seed=seed, lead=lead)
    if not (0 <= epoch < _MOST and 0 <= position < _MOST and 0 <= (lead or 0) < _MOST):
        raise damaged(found, "which no stream reaches", place=place)
    return found


def _whole(value: Any) -> int:
    """Return a whole number. Raises TypeError for all else, also for numbers that would have to be rounded."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _foreign(state: object, *, place: str, stream: str) -> StoreError:
    """Return the error about something that is no state."""
    return StoreError(f"{place}: not the state of a {stream}: {state!r}")


def damaged(state: Place | StreamState, why: str, *, place: str) -> StoreError:
    """Return the error about a state that cannot be one."""
    return StoreError(
        f"{place}: the state to resume from is damaged: position {state.position} of epoch {state.epoch}, {why}; "
        "resume from another checkpoint"
    )
