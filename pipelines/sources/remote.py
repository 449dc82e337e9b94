"""Files behind URLs: object stores, web servers, whatever fsspec knows.

URL of a file, folder or glob -> fsspec lists it -> name, URL and size of each file
URL of a file -> a stream, read in order, whose every trouble is an OSError
"""

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from bytropix.errors import SourceError
from bytropix.pipelines.sources.records import buffered

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters and more: C:\ is a drive
WEB = ("http", "https")  # cannot be listed
READ_AHEAD = 1 << 23  # bytes of a request to an object store


def is_url(path: str) -> bool:
    """Whether a source is a URL and no local path."""
    return URL.match(path) is not None


def local_path(source: str) -> str:
    """Return the path that a file URL names, and every other source as it is."""
    return url2pathname(urlsplit(source).path) if source.lower().startswith("file://") else source


def remote_files(url: str) -> Iterator[tuple[str, str, int]]:
    """Give name, URL and size (0 if unknown) of the files that a URL names: one, those below it, or those like a glob.

    Names begin with the last step of the URL, or of the part before its first wildcard. On the web a URL is one file.

    Raises:
        SourceError: Nothing is there, it cannot be listed, or the library for it is not installed.
    """
    scheme = url.partition("://")[0].lower()
    files, path = _file_system(url)
    try:
        if scheme in WEB:
            found = {path: files.info(path)}
            base = path
        else:
            found, base = _listed(files, path)
    except Exception as error:  # fsspec's back ends raise what their libraries raise
        raise SourceError(f"{url}: cannot be listed ({_reason(error)}); check the URL and the access to it") from error
    if not found:
        raise SourceError(f"{url}: no file is there; check the URL")
    for place in sorted(found):
        name = _name(base, scheme) + place.removeprefix(base)
        yield name, str(files.unstrip_protocol(place)), int(found[place].get("size") or 0)


def open_url(url: str) -> BinaryIO:
    """Open a remote file for reading in order.

    Raises:
        OSError: It cannot be read; also while it is read.
    """
    try:
        files, path = _file_system(url)
        if url.partition("://")[0].lower() in WEB:
            stream = files.open(path, "rb", block_size=0)  # one request, and no need of a server that knows ranges
        else:
            stream = files.open(path, "rb", block_size=READ_AHEAD, cache_type="readahead")
    except Exception as error:  # fsspec's back ends raise what their libraries raise
        raise OSError(0, _reason(error)) from error
    return cast(BinaryIO, buffered(_Remote(stream)))


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url}: {_reason(error)}; pip install 'bytropix[remote]' brings S3 and HTTP") from error
    files.invalidate_cache()  # what was listed before may have changed
    return files, path


def _listed(files: Any, path: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Return what is at or below a path, or like it where it is a glob, and the part of it that is no pattern."""
    if re.search(r"[*?\[]", path):
        steps = path.split("/")
        base = "/".join(steps[: next(number for number, step in enumerate(steps) if re.search(r"[*?\[]", step))])
        found = files.glob(path, detail=True)
        return {place: info for place, info in found.items() if info["type"] == "file"}, base
    found = files.find(path, detail=True)
    # Object stores have "folders" that are empty objects whose name ends so.
    return {place: info for place, info in found.items() if not place.endswith("/")}, path.rstrip("/")


def _name(path: str, scheme: str) -> str:
    """Return the last step of a path, without what only this access needs: query, user and password."""
    if scheme in WEB:
        parts = urlsplit(path)
        path = unquote(parts.path).strip("/") or parts.hostname or ""
    return path.rstrip("/").rpartition("/")[2]


def _reason(error: Exception) -> str:
    """Return an error in a line."""
    if isinstance(error, FileNotFoundError):
        return "not found"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class _Remote(io.RawIOBase):
    """A remote stream whose every trouble is an OSError."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, out: "WriteableBuffer", /) -> int:
        """Fill `out` with some of what comes next."""
        view = memoryview(out)
        try:
            data = self._stream.read(len(view))
        except Exception as error:  # as above
            raise OSError(0, _reason(error)) from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._stream.close()
        super().close()
