"""What a file is by its first bytes, as far as that can be told: what is no video is refused here, without a decoder.

first 4 KiB -> a known beginning, or text -> the reason to refuse it, or nothing: the decoder decides

Text must not get further: a decoder takes play lists, which name other files and hosts, and draws plain text as film.
A JPEG may be the first of a film's pictures, so that only photos are told here; of the others the decoder is asked.
"""

HEAD_BYTES = 4096
BEGINNINGS: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WEBP", "a still image (WebP)"),
    (0, b"BM", "a still image (BMP)"),
    (0, b"II*\0", "a still image (TIFF)"),
    (0, b"MM\0*", "a still image (TIFF)"),
    (4, b"ftypavif", "a still image (AVIF)"),
    (4, b"ftypheic", "a still image (HEIC)"),
    (4, b"ftypmif1", "a still image (HEIF)"),
    (8, b"WAVE", "audio only (WAV)"),
    (4, b"ftypM4A", "audio only (M4A)"),
    (0, b"fLaC", "audio only (FLAC)"),
    (0, b"ID3", "audio only (MP3)"),
    (8, b"AIFF", "audio only (AIFF)"),
    (0, b"%PDF", "no video but a PDF"),
    (0, b"PK\x03\x04", "no video but an archive (ZIP)"),
    (0, b"\x1f\x8b", "no video but compressed (gzip)"),
    (0, b"BZh", "no video but compressed (bzip2)"),
    (0, b"\xfd7zXZ", "no video but compressed (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "no video but compressed (zstd)"),
    (0, b"7z\xbc\xaf", "no video but an archive (7z)"),
    (0, b"Rar!", "no video but an archive (RAR)"),
    (257, b"ustar", "no video but an archive (tar)"),
    (0, b"\x7fELF", "no video but a program"),
    (0, b"MZ", "no video but a program"),
    (0, b"SQLite format 3", "no video but a database"),
    (0, b"PAR1", "no video but a table (Parquet)"),
    (0, b"\x93NUMPY", "no video but an array (NumPy)"),
    (0, b"\xff\xfe", "no video but text"),
    (0, b"\xfe\xff", "no video but text"),
)
PNG, PNG_ANIMATED, PNG_PICTURE = b"\x89PNG", b"acTL", b"IDAT"
JPEG = b"\xff\xd8\xff"
OF_PHOTOS = (b"Exif\0", b"MPF\0")  # in a JPEG: of a camera, which may put a second picture behind the first
TEXT_THEN_FILM = b"YUV4MPEG2 "  # raw luma of dark grey would pass for text
PLAIN = bytes(set(range(0x20, 0x100)) | set(b"\t\n\r\f\v\x1b")).replace(b"\x7f", b"")


def why_no_video(head: bytes) -> str:
    """Return why a file is no video, empty if it may be one.

    Args:
        head: Its first `HEAD_BYTES` bytes, or all it has.
    """
    for place, magic, what in BEGINNINGS:
        if head.startswith(magic, place):
            return what
    if head.startswith(PNG) and _is_still_png(head):
        return "a still image (PNG)"
    if head.startswith(JPEG) and any(mark in head for mark in OF_PHOTOS):
        return "a still image (JPEG)"
    if head.startswith(TEXT_THEN_FILM):
        return ""
    return "no video but text" if _is_text(head) else ""


def _is_still_png(head: bytes) -> bool:
    """Return whether this is surely no animation: that says so before its first picture."""
    before, picture, _ = head.partition(PNG_PICTURE)
    return PNG_ANIMATED not in before and (bool(picture) or len(head) < HEAD_BYTES)


def _is_text(head: bytes) -> bool:
    """Return whether these are characters of UTF-8 and nothing but; the last one may be cut off."""
    if head.translate(None, PLAIN):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and len(head) == HEAD_BYTES
    return True
