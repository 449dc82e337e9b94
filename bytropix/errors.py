"""Every error that bytropix raises on purpose.

    BytropixError
    ├── ConfigError   a setting that cannot work: the message names the field, the value and the rule
    ├── SourceError   an input that cannot be read
    │   ├── ChangedSourceError   one that is no longer what it was when it was first read
    │   └── TooManyBadError      more of the inputs are bad than was allowed (exit code 3)
    ├── StoreError    a store that is missing, unfinished, damaged, newer than this version, or in the way
    │   └── UnreachableError     one on a server that refuses or does not answer; it may be whole
    └── RunError      a run folder or checkpoint that cannot be used

The command line prints the message of any of these in one line and exits with code 2 (3 where it says so), so a message
names the path or value, what is wrong with it, and what to do.
"""


class BytropixError(Exception):
    """The root of all errors that bytropix raises on purpose."""


class ConfigError(BytropixError):
    """A setting that cannot work."""


class SourceError(BytropixError):
    """An input that cannot be read."""


class ChangedSourceError(SourceError):
    """An input that changed or vanished after it was first read.

    Args:
        place: Its path or URL.
        what: What has happened to it.
    """

    def __init__(self, place: str, what: str) -> None:
        super().__init__(place, what)
        self.place, self.what = place, what

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; leave it alone and run again"


class TooManyBadError(SourceError):
    """More of the inputs are bad than was allowed."""


class StoreError(BytropixError):
    """A store that cannot be read or written."""

    offset: int | None = None
    """Where in the file the damaged block begins, if it is known."""


class UnreachableError(StoreError):
    """A store that cannot be asked: its server refuses or does not answer, or too many files are open here already."""


class RunError(BytropixError):
    """A run folder or a checkpoint that cannot be used."""
