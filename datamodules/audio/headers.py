"""What a file says about its own length, where libsndfile does not pass it on.

Conventions: libsndfile corrects the length of a cut WAV without a word, knows no length of an Ogg
stream, and takes that of an MP3 from a tag or, without one, guesses it from the first frame. Here
are those statements themselves, from the bytes. Nothing is decoded.
"""

import re
from collections.abc import Iterator
from pathlib import Path

# Lines of libsndfile's log. `riff` in small letters is Wave64, which has no other one.
_TOO_SHORT = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)
_TOO_FEW = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
# Of a stream whose end was not known when its header was written (ffmpeg, sox).
_UNKNOWN_BYTES = (range(0x7FFFF000, 0x80000000), range(0xFFFFFF00, 0x100000000))

_OGG_PAGE_BYTES = 65307  # at most
_OGG_HEADER_BYTES = 27
_OGG_LAST_PAGE = 4  # flag

_TAG_BYTES = 4096  # a tag is in the first frame, which is shorter than this
_BITRATES = {  # kbit/s of layer III, by whether the version is MPEG 1
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = (44100, 48000, 32000)  # Hz, of MPEG 1; halved in MPEG 2, and again in 2.5


def cut_share(log: str) -> float | None:
    """Share of its announced samples that a WAV, AIFF, AU or Wave64 file has; None if it has all.

    Args:
        log: what libsndfile has noted while it opened the file.

    >>> cut_share("data : 32000 (should be 16000)"), cut_share("data : 32000")
    (0.5, None)
    """
    if found := _TOO_FEW.search(log):
        return int(found[1]) / int(found[2])

    found = _TOO_SHORT.search(log)
    if found is None or any(int(found[1]) in unknown for unknown in _UNKNOWN_BYTES):
        return None
    return int(found[2]) / int(found[1])


def ogg_ends(path: Path) -> bool:
    """Whether an Ogg stream has its last page, marked as such and whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _OGG_PAGE_BYTES))
        end = file.read()

    start = end.rfind(b"OggS")
    page = end[start:]
    if start < 0 or len(page) < _OGG_HEADER_BYTES or not page[5] & _OGG_LAST_PAGE:
        return False
    n_segments = page[26]
    lengths = page[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + n_segments]
    return len(page) >= _OGG_HEADER_BYTES + n_segments + sum(lengths)


def mp3_has_length(path: Path) -> bool:
    """Whether an MP3 has a tag (Xing, Info, VBRI) that says how many frames it has."""
    with path.open("rb") as file:
        file.seek(_after_id3(path))
        start = file.read(_TAG_BYTES)

    if b"VBRI" in start:
        return True
    tag = re.search(rb"Xing|Info", start)
    if tag is None:
        return False
    flags = int.from_bytes(start[tag.end() : tag.end() + 4])
    n_frames = int.from_bytes(start[tag.end() + 4 : tag.end() + 8])
    return bool(flags & 1) and n_frames > 0


def mp3_samples(path: Path) -> int:
    """Samples of the frames that follow each other from the start of an MP3, by their headers."""
    return sum(_mp3_frames(path.read_bytes(), _after_id3(path)))


def _mp3_frames(content: bytes, place: int) -> Iterator[int]:
    """Samples of each frame, until what follows is none."""
    while place + 4 <= len(content):
        header = int.from_bytes(content[place : place + 4])
        version, layer = header >> 19 & 3, header >> 17 & 3  # 3 is MPEG 1, 2 is 2, 0 is 2.5
        bitrate, rate = header >> 12 & 15, header >> 10 & 3
        if header >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
            return

        is_mpeg1 = version == 3
        n_samples = 1152 if is_mpeg1 else 576
        bits_per_s = 1000 * _BITRATES[is_mpeg1][bitrate - 1]
        sample_rate = _MPEG_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
        place += n_samples // 8 * bits_per_s // sample_rate + (header >> 9 & 1)
        yield n_samples


def _after_id3(path: Path) -> int:
    """Where the audio of an MP3 starts: behind the ID3 tags, which may hold a picture."""
    place = 0
    with path.open("rb") as file:
        while (header := file.read(10))[:3] == b"ID3" and len(header) == 10:
            # A size in four bytes of seven bits, and perhaps a copy of the header at the end.
            size = sum((byte & 0x7F) << 7 * (3 - n) for n, byte in enumerate(header[6:]))
            place += 10 + size + (10 if header[5] & 0x10 else 0)
            file.seek(place)
    return place
