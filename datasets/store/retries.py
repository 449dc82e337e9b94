"""Patience with servers: what helps is tried again, what does not is named at once, and nothing waits for ever.

ask -> answer within a deadline, or an error -> worth another try? wait a random while, longer each time, ask again
    -> not, or out of tries -> one line: what was asked, what was said, how often, what to do
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from bytropix.errors import StoreError, UnreachableError

R = TypeVar("R")

FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ImportError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
)
BUSY = (408, 425, 429)  # statuses below 500 after which it helps to ask again
_dice = random.SystemRandom()  # not the program's own generator: its numbers are the user's


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds."""

    tries: int = 6
    """How often one thing is asked."""
    first_wait: float = 0.1
    """Most that is waited before the second try; twice as much before each further one."""
    longest_wait: float = 5.0
    """Most that is waited between two tries."""
    answer: float = 20.0
    """What a try may take, and one more second for each 2**20 bytes that are asked for or sent."""
    total: float = 60.0
    """After so long no other try is begun."""

    def deadline(self, n_bytes: int = 0) -> float:
        """Return what a try may take that moves so many bytes."""
        return self.answer + n_bytes / 2**20


PATIENCE = Patience()


def patiently(place: str, ask: Callable[[], R], patience: Patience) -> R:
    """Return an answer, asked for as often as it helps.

    Args:
        place: What is asked for, for the message.
        ask: Asks once; it ends by itself, see `within`.
        patience: How often and how long.

    Raises:
        StoreError: There is no such thing.
        UnreachableError: The server refuses, or did not answer in any of the tries.
    """
    began = time.monotonic()
    for tries in count(1):
        try:
            return ask()
        except StoreError:
            raise
        except Exception as error:  # each protocol's package has errors of its own
            left = began + patience.total - time.monotonic()
            if tries >= patience.tries or left <= 0 or not _passes(error):
                raise _refusal(place, error, tries) from error
            longest = min(patience.longest_wait, patience.first_wait * 2 ** (tries - 1), left)
        time.sleep(_dice.uniform(0, longest))  # all of it random, so that many readers do not come back together
    raise AssertionError("count has no end")


def within(seconds: float, ask: Callable[[], R]) -> R:
    """Return an answer that comes in time, whoever is asked; who does not answer is left alone with his thread.

    Raises:
        TimeoutError: It does not.
    """
    answer: Future[R] = Future()

    def wait() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True, name="bytropix-ask").start()
    return answer.result(seconds)


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or one that it came from, speaks of."""
    while error is not None:
        answer = getattr(error, "response", None)  # botocore's
        told = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        found = told or getattr(error, "status", None)  # aiohttp's
        if isinstance(found, int):
            return found
        error = error.__cause__
    return None


def is_missing(error: BaseException) -> bool:
    """Return whether an error says that there is nothing; some packages say so of whatever fails."""
    status = status_of(error)
    if status is not None or not isinstance(error, FileNotFoundError):
        return status == 404
    return error.__cause__ is None or isinstance(error.__cause__, FINAL)


def _passes(error: Exception) -> bool:
    """Return whether it helps to ask again."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in BUSY
    if isinstance(error, FileNotFoundError):
        return not is_missing(error)
    return not isinstance(error, FINAL)


def _refusal(place: str, error: Exception, tries: int) -> StoreError:
    """Return one line about what could not be had."""
    status = status_of(error)
    told = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    said = " ".join(str(told).split()) or type(told).__name__
    if isinstance(told, TimeoutError):
        said = "no answer in time"
    if status is not None and str(status) not in said:
        said = f"{said} (status {status})"
    if is_missing(error):
        said, remedy = f"there is no such file ({said})", "check the address, or restore it from a copy"
    elif status in (401, 403) or isinstance(error, PermissionError):
        remedy = "check the keys and what they may read and write"
    else:
        remedy = "check the address, the keys and the connection, then run again"
    often = f"; tried {tries} times" if tries > 1 else ""
    kind = StoreError if is_missing(error) else UnreachableError
    return kind(f"{place}: {said}{often}; {remedy}")
