"""GTZAN genre (Tzanetakis & Cook 2002): 1000 clips of 30 s, 22 050 Hz mono, ten genres.

Conventions: the split is the fault-filtered one of Kereliuk, Sturm & Larsen 2015 (443 / 197 / 290,
artist-filtered, replicas removed), which the paper's accuracies confirm: they are multiples of
1/290. 70 files belong to no split. The label is the folder. Layouts:
`genres/<genre>/<genre>.<NNNNN>.wav` or `.au`, and `Data/genres_original/...` of the Kaggle copy.
The one file of `known_bad` is left out where it cannot be read, which makes 442 in train; any other
that cannot be read is an error.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from datamodules.audio.decode import AudioError, audio_info
from datamodules.card import Archive, Card
from datamodules.errors import MissingFilesError
from datamodules.task import TaskDataModule
from datamodules.tracks import BadFile, Split, Track

GENRES = (
    "blues",
    "classical",
    "country",
    "disco",
    "hiphop",
    "jazz",
    "metal",
    "pop",
    "reggae",
    "rock",
)
_SPLIT_LIST = "datasets/splits/gtzan_fault_filtered.txt"
_SPLIT_NAMES: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}
_FOLDERS = ("genres", "Data/genres_original", ".")

CARD = Card(
    title="GTZAN genre collection (2002)",
    licence="not stated",
    citation=(
        "G. Tzanetakis, P. Cook: Musical genre classification of audio signals, "
        "IEEE Transactions on Speech and Audio Processing 10(5), 2002; "
        "split: C. Kereliuk, B. L. Sturm, J. Larsen: Deep learning and music adversaries, "
        "IEEE Transactions on Multimedia 17(11), 2015"
    ),
    obtain="""\
The original host (opihi.cs.uvic.ca) is gone. Copies of its genres.tar.gz:
  https://huggingface.co/datasets/marsyas/gtzan (packed anew, 1.2 GB)
  https://web.archive.org/web/20220328223413/http://opihi.cs.uvic.ca/sound/genres.tar.gz \
(the original)
  https://www.kaggle.com/datasets/andradaolteanu/gtzan-dataset-music-genre-classification
Unpack into GTZAN: GTZAN/genres/<genre>/<genre>.<NNNNN>.wav or .au, \
or as Kaggle has it GTZAN/Data/genres_original/...
In the copies of Hugging Face and Kaggle jazz.00054.wav cannot be read: \
it is left out there, and train has 442 clips.""",
    archives=(
        Archive(
            url="https://huggingface.co/datasets/marsyas/gtzan/resolve/7031b102fce5383cfdfa12714eaf42065e82b855/data/genres.tar.gz",
            path="genres.tar.gz",
            sha256="b28cc067ff6199bd826f5d1a6931458586d64acae7f44b2e882b7a97af057531",
        ),
    ),
)


def read_split() -> dict[str, Split]:
    """Split of each of the 930 clips of the fault-filtered list, keyed by `blues.00029`.

    >>> split = read_split()
    >>> len(split), split["blues.00029"], split["jazz.00099"], "classical.00042" in split
    (930, 'train', 'test', False)
    """
    text = files("datamodules").joinpath(_SPLIT_LIST).read_text(encoding="utf-8")
    splits: dict[str, Split] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        genre, split, *ranges = line.split()
        for clip_range in ranges:
            for number in _numbers(clip_range):
                splits[f"{genre}.{number:05d}"] = _SPLIT_NAMES[split]
    return splits


def _numbers(clip_range: str) -> range:
    """Numbers of a range such as `29-31`, or of a single `29`."""
    first, _, last = clip_range.partition("-")
    return range(int(first), int(last or first) + 1)


class GTZANGenre(TaskDataModule):
    """Genre of a clip, ten classes (paper 3.4, MARBLE v1 GTZAN_dataset.py)."""

    dataset = "gtzan"
    classes = GENRES
    card = CARD
    expected: Mapping[Split, int] = {"train": 443, "val": 197, "test": 290}
    lasts_s = (29.9, 30.7)  # 660 000 to 676 000 samples
    known_bad = (
        BadFile(
            "jazz.00054", "cannot be read in the copies of Kaggle and Hugging Face", "2026-11-24"
        ),
    )

    def read_tracks(self) -> list[Track]:
        """Clips of the fault-filtered split, with the genre of their name, which is their folder's.

        A clip of the list that is not there is listed with the path where it should be, so that it
        is missed.

        Raises:
            UserError: none of the known folders exists.
        """
        folder = _genres_folder(self.root)
        left_out = {bad.name for bad in self.left_out()}
        return [
            _track(folder, name, split)
            for name, split in read_split().items()
            if name not in left_out
        ]

    def left_out(self) -> list[BadFile]:
        """Those of `known_bad` that are there and cannot be read: the original archive is sound."""
        folder, splits = _genres_folder(self.root), read_split()
        tracks = {bad: _track(folder, bad.name, splits[bad.name]) for bad in self.known_bad}
        return [bad for bad, track in tracks.items() if _is_unreadable(track.path)]


def _genres_folder(root: Path) -> Path:
    folder = next((root / name for name in _FOLDERS if (root / name / "blues").is_dir()), None)
    if folder is None:
        remedy = f"Unpack genres.tar.gz into {root}"
        raise MissingFilesError("GTZAN audio", root, "genres/blues folder", remedy)
    return folder


def _is_unreadable(path: Path) -> bool:
    """Whether a file is there whose header cannot be read."""
    try:
        audio_info(path)
    except AudioError:
        return path.is_file()
    return False


def _track(folder: Path, name: str, split: Split) -> Track:
    genre = name.split(".", maxsplit=1)[0]
    path = folder / genre / f"{name}.wav"
    older = path.with_suffix(".au")
    return Track(name, older if older.exists() else path, split, GENRES.index(genre))
