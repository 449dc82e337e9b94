"""Interlaced frames -> whole ones.

    frames, until one is flagged as two fields -> from there on through FFmpeg's bwdif, which leaves the others alone

Two fields woven into one picture show combs where something moves; shrunk they would be a blur that never was there.
"""

from collections.abc import Iterator

import av
from av.filter import Graph

SHAPE = tuple[int, int, str]
SMALLEST = 4  # pixels: the filter takes nothing smaller


def deinterlaced(frames: Iterator[av.VideoFrame], stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Give the frames of a stream with their fields made whole, one for one, at the same times."""
    graph: Graph | None = None
    shape: SHAPE = (0, 0, "")
    for frame in frames:
        found = (frame.width, frame.height, frame.format.name)
        if graph is not None and found != shape:
            yield from _rest(graph)
            graph = None
        if graph is None and frame.interlaced_frame and min(found[:2]) >= SMALLEST:
            graph, shape = _graph(frame, stream), found
        if graph is None:
            yield frame
            continue
        graph.vpush(frame)
        yield from _ready(graph)
    if graph is not None:
        yield from _rest(graph)


def _graph(frame: av.VideoFrame, stream: av.VideoStream) -> Graph:
    """Return a filter for frames like this one."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or stream.time_base
    )
    whole = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    source.link_to(whole)
    whole.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
    """Give what a filter has finished; it holds one frame back, to see the next."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _rest(graph: Graph) -> Iterator[av.VideoFrame]:
    """Give what a filter holds back."""
    graph.vpush(None)
    yield from _ready(graph)
