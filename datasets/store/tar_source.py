"""Where a tar comes from that is read once, in order: a path, a URL, standard input, an open file, a command.

    source -> open_tar -> its bytes, in order        source -> index_beside -> the index that lies beside it, if any

A path is opened; http(s) is one request; of an object store, ranges are asked for one after another, each as often as
it takes; "-" is standard input; "pipe:COMMAND ARGS" runs a command, without a shell, and reads what it prints.
"""

import io
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.error import HTTPError
from urllib.request import urlopen

from bytropix.datasets.store.storage import Storage, is_url, open_storage
from bytropix.datasets.store.tar_writer import index_name
from bytropix.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TarSource = str | Path | BinaryIO

PIPE = "pipe:"
RANGE_BYTES = 8 << 20  # asked for at a time of an object store
SILENCE_S = 60.0  # longest wait for a web server's next bytes, or for a command that has printed all to end
SHELL_WORDS = {"|", "||", "&", "&&", ";", "<", ">", ">>"}


def source_name(source: TarSource) -> str:
    """Return what messages call a source."""
    if isinstance(source, str | Path):
        return "standard input" if source == "-" else str(source)
    return str(getattr(source, "name", type(source).__name__))


def open_tar(source: TarSource) -> AbstractContextManager[BinaryIO]:
    """Give a source's bytes; an open file and standard input are left open.

    Raises:
        ConfigError: A command that cannot be understood.
        StoreError: There is no such file, server or command; at the end, a command that failed.
    """
    if not isinstance(source, str | Path):
        return nullcontext(source)
    place = str(source)
    if place == "-":
        return nullcontext(sys.stdin.buffer)
    if place.startswith(PIPE):
        return _command(place)
    if _is_web(place):
        return _answer(place)
    return _file(place)


def index_beside(source: TarSource) -> bytes | None:
    """Return the index beside a tar, `None` if there is none or none could be there."""
    place = str(source) if isinstance(source, str | Path) else ""
    if not place.endswith(".tar") or place.startswith(PIPE):
        return None
    if _is_web(place):
        try:
            with urlopen(index_name(place), timeout=SILENCE_S) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            error.close()
            if error.code in (403, 404, 410):  # servers that list nothing deny what is not there
                return None
            raise _refused(place, error) from error
        except OSError as error:
            raise _refused(place, error) from error
    storage, name = _storage_of(index_name(place))
    return None if storage.size(name) is None else storage.read(name).tobytes()


def _is_web(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))


def _storage_of(place: str) -> tuple[Storage, str]:
    """Return the storage of the folder or prefix that a file lies in, and its name there."""
    if is_url(place):
        folder, _, name = place.rpartition("/")
        return open_storage(folder), name
    return open_storage(Path(place).parent), Path(place).name


@contextmanager
def _file(place: str) -> Iterator[BinaryIO]:
    """Give a file of a disk or an object store."""
    storage, name = _storage_of(place)
    if storage.local is None:
        yield cast(BinaryIO, io.BufferedReader(_Ranges(storage, name), RANGE_BYTES))
        return
    try:
        file = (storage.local / name).open("rb")
    except OSError as error:
        raise _refused(place, error) from error
    with file:
        yield file


@contextmanager
def _answer(place: str) -> Iterator[BinaryIO]:
    """Give what a web server answers."""
    try:
        answer = urlopen(place, timeout=SILENCE_S)
    except OSError as error:  # of which HTTPError is one, and holds a connection
        if isinstance(error, HTTPError):
            error.close()
        raise _refused(place, error) from error
    with answer:
        yield answer


@contextmanager
def _command(place: str) -> Iterator[BinaryIO]:
    """Give what a command prints; if it fails it is an error, even if what it printed looked whole."""
    try:
        process = subprocess.Popen(_words(place), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError as error:
        raise _refused(place, error) from error
    try:
        with cast(BinaryIO, process.stdout) as printed:
            yield printed
        how = _end_of(process, SILENCE_S)
    except StoreError as error:  # a tar that is cut short, say: the command may know why
        how = _end_of(process, 1.0)
        if how and process.poll() is not None:
            raise StoreError(f"{place}: the command {how} ({error})") from error
        raise
    finally:
        process.kill()
        process.wait()
    if how:
        raise StoreError(f"{place}: the command {how}, although it printed a whole tar; do not trust it; run it again")


def _words(place: str) -> list[str]:
    """Return the words of a command."""
    try:
        words = shlex.split(place.removeprefix(PIPE))
    except ValueError as error:
        raise ConfigError(f"{place}: no command ({error}); quote it as in a shell") from error
    if not words or SHELL_WORDS & set(words):
        raise ConfigError(f"{place}: is run without a shell and must be one command; write pipe:sh -c 'a | b' for more")
    return words


def _end_of(process: "subprocess.Popen[bytes]", patience_s: float) -> str:
    """Return how a command ended, nothing if it ended well."""
    try:
        code = process.wait(patience_s)
    except subprocess.TimeoutExpired:
        return f"closed its output and had not ended {patience_s:.0f} s later"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}" if code else ""


def _refused(place: str, error: OSError) -> StoreError:
    why = (error.strerror if isinstance(error.strerror, str) else "") or str(error)
    return StoreError(f"{place}: cannot be read ({why}); check the place and the access to it, then run again")


class _Ranges(io.RawIOBase):
    """A file of an object store, read range after range."""

    def __init__(self, storage: Storage, name: str) -> None:
        size = storage.size(name)
        if size is None:
            raise StoreError(f"{storage.url}/{name}: there is no such file; check the address")
        self._storage, self._name, self._size, self._place = storage, name, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, out: "WriteableBuffer", /) -> int:
        """Fill `out` with what comes next, nothing at the end."""
        view = memoryview(out).cast("B")
        stop = min(self._size, self._place + len(view))
        if stop == self._place:
            return 0
        data = self._storage.read_range(self._name, self._place, stop)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)
