"""The demo's GTZAN: clips that belong to the real splits."""

from collections import Counter
from pathlib import Path

import soundfile

from datamodules.datasets.gtzan import GENRES, read_split
from datamodules.demo.gtzan import recipe


def test_there_are_the_promised_counts_and_never_more_than_the_real_split_has() -> None:
    assert len(recipe(1.0).items) == 10 * (8 + 4 + 6)
    assert len(recipe(1000.0).items) == 930


def test_clips_belong_to_the_real_splits(corpus: Path) -> None:
    split = read_split()
    files = sorted((corpus / "GTZAN").rglob("*.wav"))
    found = Counter((path.parent.name, split[path.stem]) for path in files)
    assert found == {(genre, name): 1 for genre in GENRES for name in ("train", "val", "test")}
    for path in files:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (22050, 1)
        assert (info.frames, info.subtype) == (661794, "PCM_16")
        assert path.stem.split(".")[0] == path.parent.name
