"""Batches between processes: all audio of one is one piece of shared memory."""

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ReadBatch, ReadFile
from datamodules.digests import FileDigest
from datamodules.tracks import ClipPlace, UnusableFile


def file(name: str, *lengths: int) -> ReadFile:
    """A file whose clips have some numbers of samples, all of them different."""
    seed = int.from_bytes(name.encode(), "little")
    audio = np.random.default_rng(seed).standard_normal(sum(lengths)).astype(np.float32)
    clips, start = [], 0
    for index, length in enumerate(lengths):
        place = ClipPlace(name, index, len(lengths), float(index))
        clips.append(Clip(place, audio[start : start + length], f"track {name}"))
        start += length
    return ReadFile(1, FileDigest(f"/{name}", 1, 2, "0" * 64), clips)


BAD = ReadFile(1, unusable=[UnusableFile("c", Path("c.wav"), "is empty (0 bytes)")])


@pytest.mark.parametrize(
    "files",
    [
        [],
        [BAD],
        [file("a", 100)],
        [file("a", 100, 100, 40), BAD, file("b", 70), ReadFile(2), file("d", 100)],
    ],
)
def test_a_batch_arrives_as_it_was(files: list[ReadFile]) -> None:
    arrived = pickle.loads(bytes(ForkingPickler.dumps(ReadBatch(files))))
    assert isinstance(arrived, ReadBatch) and len(arrived) == len(files)
    for one, other in zip(arrived, files, strict=True):
        assert (one.n_tracks, one.digest, one.unusable) == (
            other.n_tracks,
            other.digest,
            other.unusable,
        )
        assert [clip.place for clip in one.clips] == [clip.place for clip in other.clips]
        assert [clip.track_id for clip in one.clips] == [clip.track_id for clip in other.clips]
        for clip, sent in zip(one.clips, other.clips, strict=True):
            np.testing.assert_array_equal(clip.audio, sent.audio)
            assert clip.audio.dtype == np.float32


def test_no_audio_is_in_the_message() -> None:
    """A second of audio is 64 kB or more; what is sent of it is where it lies."""
    batch = ReadBatch([file(name, 16000, 16000) for name in "abcd"])
    assert len(bytes(ForkingPickler.dumps(batch))) < 4000
    assert len(batch[0].clips[0].audio) == 16000, "sending changes nothing here"
