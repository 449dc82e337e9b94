"""The settings of a video ingestion that decide what the store holds; how many processes work on it is none of them."""

from dataclasses import dataclass, field

from bytropix.datasets.store import VideoLayout
from bytropix.errors import ConfigError
from bytropix.gaad.config import RegionConfig
from bytropix.pipelines.decoders.contract import MIB, DecoderName, Fit, Wanted
from bytropix.pipelines.video.scenes import SceneRules

MOST_SIDE = 8192  # pixels
MOST_PART_BYTES = 1 << 30
MOST_CLIP_FRAMES = 4096
MOST_STRIDE = 999_999  # frames; a stream of clips takes no longer hop


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """What decides the bytes of a store of video."""

    size: tuple[int, int] = (128, 128)
    """Height and width of the stored frames, in pixels."""
    fit: Fit = "crop"
    """How a frame of another shape gets this one: its middle is cut out, black is put around it, or it is distorted."""
    fps: float = 0.0
    """Frames a second, picked by their times; 0: every frame there is."""
    clip_frames: int = 16
    """Frames of a clip, for which the store is laid out."""
    stride: int = 0
    """Frames from the start of one clip to that of the next; 0: as many as a clip has."""
    decoder: DecoderName = "auto"
    """Who decodes; auto: pyav, and where that crashes or is stuck the next one."""
    keep_partial: bool = False
    """Keep the frames before a fault of a video that is damaged; it is listed in the quarantine all the same."""
    val_fraction: float = 0.05
    """Share of videos, chosen by a hash of their content, that go to the val split."""
    part_bytes: int = 64 << 20
    """Bytes of the decoded frames of a part, the unit of commit; a worker holds about twice as much."""
    layout: VideoLayout = field(default_factory=VideoLayout)
    """How a part lies on disk."""
    scenes: SceneRules = field(default_factory=SceneRules)
    """Where scenes begin, and what is left out."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    """Which regions of each frame are kept with it."""
    stall_seconds: float = 30.0
    """Longest wait for a decoder's next frames; then the next decoder tries."""
    file_seconds: float = 6 * 3600.0
    """Longest time that one video may take its decoder."""
    memory_bytes: int = 3072 * MIB
    """Address space that a decoder's process may have."""
    most_pixels: int = 2**26
    """Most pixels of a frame as it lies in the file; a video of larger ones is refused."""

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(16 <= side <= MOST_SIDE for side in self.size):
            raise ConfigError(f"size must be a height and a width from 16 to {MOST_SIDE}, got {self.size}")
        self.wanted(self.decoder)  # checks what it takes over
        self.layout.check_size(*self.size)
        if not 1 <= self.clip_frames <= MOST_CLIP_FRAMES:
            raise ConfigError(f"clip_frames must lie in 1..{MOST_CLIP_FRAMES}, got {self.clip_frames}")
        if not 0 <= self.stride <= MOST_STRIDE:
            raise ConfigError(f"stride (--stride) must lie in 0..{MOST_STRIDE}, got {self.stride}")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction must lie in [0, 1), got {self.val_fraction}")
        if not 4096 <= self.part_bytes <= MOST_PART_BYTES:
            raise ConfigError(f"part_bytes must lie in 4096..{MOST_PART_BYTES}, got {self.part_bytes}")
        if self.part_frames * self.frame_bytes > MOST_PART_BYTES:
            raise ConfigError(
                f"a clip of {self.clip_frames} frames of {self.size[0]} x {self.size[1]} is larger than the largest "
                f"part, {MOST_PART_BYTES} bytes; lower --clip-frames or --size"
            )

    @property
    def frame_bytes(self) -> int:
        """Bytes of a stored frame, as it is decoded."""
        return self.size[0] * self.size[1] * 3

    @property
    def part_frames(self) -> int:
        """Most frames of a part: as many as `part_bytes` holds, and a clip at least."""
        return max(self.clip_frames, self.part_bytes // self.frame_bytes)

    @property
    def hop(self) -> int:
        """Frames from the start of one clip to that of the next."""
        return self.stride or self.clip_frames

    def wanted(self, decoder: DecoderName = "auto") -> Wanted:
        """Return what a decoder is asked for."""
        height, width = self.size
        return Wanted(
            height=height,
            width=width,
            fit=self.fit,
            fps=self.fps,
            decoder=decoder,
            stall_seconds=self.stall_seconds,
            file_seconds=self.file_seconds,
            memory_bytes=self.memory_bytes,
            most_pixels=self.most_pixels,
        )
