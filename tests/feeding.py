"""Clips of a data module, as extraction gets them: decoded, cut, in the order of its tracks."""

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ClipLoader
from datamodules.task import TaskDataModule
from datamodules.tracks import UnusableFile


def items_of(
    data: TaskDataModule, sample_rate: int = 16000, *, min_samples: int = 100
) -> list[Clip | UnusableFile]:
    """All clips of a task's tracks, and the files that cannot be used, through its own loader."""
    data.audio = ClipLoader(
        tracks=data.tracks(),
        rule=data.clip,
        stored={},
        sample_rate=sample_rate,
        min_samples=min_samples,
        batch_seconds=60.0,
        n_workers=0,
    )
    files = [file for batch in data.predict_dataloader() for file in batch]
    return [item for file in files for item in (*file.clips, *file.unusable)]


def track_of(item: Clip | UnusableFile) -> str:
    """Id of the track that an item belongs to."""
    return item.track_id
