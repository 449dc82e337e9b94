"""The family of errors that the command line turns into one line."""

import pytest

import bytropix
from bytropix import errors
from bytropix.version import VERSION


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.SourceError, errors.StoreError, errors.RunError])
def test_every_error_is_caught_by_the_root(kind: type[Exception]) -> None:
    """A caller that catches the root misses none, and the message is kept as it was given."""
    with pytest.raises(errors.BytropixError) as caught:
        raise kind("store.bx: damaged; ingest again")

    assert str(caught.value) == "store.bx: damaged; ingest again"


def test_every_public_class_of_the_module_is_of_the_family() -> None:
    """No error that is raised on purpose escapes as a trace."""
    classes = [item for item in vars(errors).values() if isinstance(item, type)]

    assert len(classes) >= 5
    assert all(issubclass(item, errors.BytropixError) for item in classes)


def test_the_package_tells_its_version() -> None:
    """`bytropix.__version__` is the version of the distribution."""
    assert bytropix.__version__ == VERSION
