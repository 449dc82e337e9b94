"""Every error that bytropix raises on purpose.

    BytropixError
    ├── ConfigError   a setting that cannot work: the message names the field, the value and the rule
    ├── SourceError   an input that cannot be read
    ├── StoreError    a store that is missing, unfinished, damaged, newer than this version, or in the way
    └── RunError      a run folder or checkpoint that cannot be used

The command line prints the message of any of these in one line and exits with code 2, so a message names the
path or value, what is wrong with it, and what to do.
"""


class BytropixError(Exception):
    """The root of all errors that bytropix raises on purpose."""


class ConfigError(BytropixError):
    """A setting that cannot work."""


class SourceError(BytropixError):
    """An input that cannot be read."""


class StoreError(BytropixError):
    """A store that cannot be read or written."""


class RunError(BytropixError):
    """A run folder or a checkpoint that cannot be used."""
