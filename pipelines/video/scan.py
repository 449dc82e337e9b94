"""From files to videos: fetched where they are elsewhere, hashed, and their headers read.

    SourceFile -> no video by its first bytes? -> HashingStream (-> spool/00007.bin, what does not lie here as a file)
               -> header, by the decoder's process -> ScannedVideo: hash, size of the frames, duration
                                                   -> or the reason why the file is refused

A scan is a task for a runner: it knows nothing of other files, and what it returns is small.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bytropix.datasets.store import Storage, open_storage
from bytropix.datasets.store.commit import room_for
from bytropix.pipelines.decoders.contract import VideoFault, VideoInfo, Wanted
from bytropix.pipelines.reasons import EMPTY
from bytropix.pipelines.scan import READ_BYTES, HashingStream
from bytropix.pipelines.sources import SourceFile, open_source
from bytropix.pipelines.sources.files import STDIN
from bytropix.pipelines.video.child import decoder_process
from bytropix.pipelines.video.sniff import HEAD_BYTES, why_no_video
from bytropix.pipelines.workplace import SPOOL, batches, is_elsewhere

STILL_WRITTEN = "is still being written"
NO_SIZE = "no usable frame size in its header: none, or an absurd one"


@dataclass(frozen=True, slots=True)
class ScannedVideo:
    """A source file after its scan."""

    file: SourceFile
    size: int = 0
    """Bytes that were read."""
    sha256: str = ""
    """Of the whole file, in hex."""
    refused: str = ""
    """Why it is refused; empty if it is not."""
    info: VideoInfo | None = None
    """What its header says; `None` of a refused file."""
    spool: str = ""
    """Name in the store of a copy of what is elsewhere; empty where the file itself can be decoded."""

    @property
    def kind(self) -> str:
        """Container and codec."""
        return f"{self.info.container.partition(',')[0]}/{self.info.codec}" if self.info else ""


@dataclass(frozen=True, slots=True)
class VideoScanTask:
    """Some files to scan."""

    files: tuple[tuple[int, SourceFile], ...]
    """Each with its number among all files, which names its spool file."""
    url: str
    """The store's place."""
    wanted: Wanted
    keep: bool
    """Whether to write spool files."""

    def __str__(self) -> str:
        return f"scan {self.files[0][1].name}"

    @property
    def is_stdin(self) -> bool:
        """Whether only the process that the user started can do it."""
        return self.files[0][1].path == STDIN


def video_scan_tasks(files: Sequence[SourceFile], url: str, wanted: Wanted, *, keep: bool) -> Iterator[VideoScanTask]:
    """Give the tasks, see `batches`."""
    return (VideoScanTask(batch, url, wanted, keep) for batch in batches(files))


def do_video_scan(task: VideoScanTask) -> list[ScannedVideo]:
    """Scan files one after the other.

    Raises:
        StoreError: A spool file cannot be written.
    """
    storage = open_storage(task.url)
    return [scan_video(file, number, storage, task.wanted, keep=task.keep) for number, file in task.files]


def scan_video(file: SourceFile, number: int, storage: Storage, wanted: Wanted, *, keep: bool) -> ScannedVideo:
    """Hash a file, fetch it where it is elsewhere, and read its header.

    Raises:
        StoreError: The spool file cannot be written.
    """
    if file.refused:
        return ScannedVideo(file, refused=file.refused)
    size = 0
    try:
        with open_source(file.path) as source:
            stream = HashingStream(source, seekable=False)
            head = _head(stream)
            size = stream.size
            if not head:
                return ScannedVideo(file, refused=EMPTY)
            if reason := why_no_video(head):
                return ScannedVideo(file, size, refused=reason)
            if is_elsewhere(file):
                return _fetched(file, stream, head, f"{SPOOL}/{number:05d}.bin" if keep else "", storage, wanted)
            before = Path(file.path).stat()
            stream.finish()
        size = stream.size
        info = header_of(file.path, wanted)
        after = Path(file.path).stat()
    except OSError as error:
        return ScannedVideo(file, size, refused=f"cannot be read: {error.strerror or error}")
    except VideoFault as fault:
        return ScannedVideo(file, size, refused=fault.reason)
    if len({file.size, size, after.st_size}) > 1 or before.st_mtime_ns != after.st_mtime_ns:
        return ScannedVideo(file, size, refused=f"{STILL_WRITTEN}: {file.size:,} bytes, then {after.st_size:,}")
    return ScannedVideo(file, size, stream.sha256, info=info)


def header_of(path: str, wanted: Wanted) -> VideoInfo:
    """Return what the header and the first frame of a file say.

    Raises:
        VideoFault: It is no video that can be decoded.
    """
    info = decoder_process().probe(path, wanted)
    if not (info.width and info.height):  # FFmpeg forgets a size beyond its limits
        raise VideoFault(path, NO_SIZE)
    return info


@contextmanager
def file_of(video: ScannedVideo, storage: Storage) -> Iterator[Path]:
    """Give the path of a file to decode: the source, its spool file, or a copy of that where the store is remote.

    Raises:
        StoreError: The spool file cannot be read.
    """
    if not video.spool:
        yield Path(video.file.path)
    elif storage.local:
        yield storage.local / video.spool
    else:
        with tempfile.NamedTemporaryFile(suffix=".bin") as copy:
            for begin in range(0, video.size, READ_BYTES):
                copy.write(storage.read_range(video.spool, begin, min(begin + READ_BYTES, video.size)))
            copy.flush()
            yield Path(copy.name)


def _head(stream: HashingStream) -> bytes:
    """Return the first bytes of a stream, which may come in pieces."""
    head = b""
    while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
        head += more
    return head


def _fetched(
    file: SourceFile, stream: HashingStream, head: bytes, spool: str, storage: Storage, wanted: Wanted
) -> ScannedVideo:
    """Write what is elsewhere to a file, here and, if it is to be kept, in the store, and read its header.

    Raises:
        OSError: The source cannot be read.
        VideoFault: It is no video that can be decoded.
        StoreError: The spool file cannot be written.
    """
    with tempfile.NamedTemporaryFile(suffix=".bin") as copy:
        piece = head
        while piece:
            with room_for(Path(copy.name)):
                copy.write(piece)
            piece = stream.read(READ_BYTES) or b""
        copy.flush()
        info = header_of(copy.name, wanted)
        if spool:
            copy.seek(0)
            with storage.open_write(spool) as kept, room_for(Path(storage.url) / spool):
                shutil.copyfileobj(copy, kept, READ_BYTES)
    return ScannedVideo(file, stream.size, stream.sha256, info=info, spool=spool)
