"""A stand-in for Music Taste, the paper's private dataset (paper 3.4): any folder of its form.

Conventions: `audio/` holds wav, flac, ogg or mp3 files; `ratings.csv` has the columns track (the
file's path below `audio/`, with or without its suffix), rater, mpc (0 unpleasant .. 2
professional), rd (0 all rap .. 2 no rap) and sqc (0 bad, 1 good), one row per track and rater, and
perhaps artist. A track's score is the mean over its raters, exact in decimals. The paper splits
3:1:1 without saying how; here the split is drawn, and tracks of one artist stay together. Music
Taste itself is not public: numbers made from another folder are not those of the paper's MPC, RD
and SQC and must not be reported as Music Taste.
"""

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from datamodules.audio.clips import ClipRule
from datamodules.card import Card
from datamodules.errors import UserError
from datamodules.splitting import split_groups
from datamodules.tables import Cells, read_csv
from datamodules.task import TaskDataModule
from datamodules.tracks import Track

Question = Literal["mpc", "rd", "sqc"]
SCALES: Mapping[Question, int] = {"mpc": 2, "rd": 2, "sqc": 1}  # highest score; the lowest is 0
COLUMNS = ("track", "rater", *SCALES)  # and perhaps artist
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

CARD = Card(
    title="A stand-in for Music Taste, the private dataset of the paper",
    licence="that of your audio",
    citation=(
        "Layer-wise investigation of large-scale self-supervised music representation models, "
        "arXiv 2505.16306, 2025 "
        "(the tasks; numbers from other data are not those of its MPC, RD and SQC)"
    ),
    obtain="""\
Music Taste is not public. Any folder of yours in the same form serves, \
under a name of its own in what you report:
  MusicTaste/audio/ with wav, flac, ogg or mp3 files
  MusicTaste/ratings.csv with the columns track,rater,mpc,rd,sqc and perhaps artist, \
one row per track and rater:
  mpc 0 unpleasant to 2 professional, rd 0 all rap to 2 no rap, sqc 0 bad or 1 good""",
)


@dataclass(frozen=True)
class Rating:
    """One row of ratings.csv."""

    track_id: str
    rater: str
    artist: str
    scores: Mapping[Question, Decimal]


@dataclass(frozen=True)
class RatedTrack:
    """A track with its mean scores; `artist` is None where it is not known."""

    track_id: str
    artist: str | None
    means: Mapping[Question, Decimal]

    @property
    def group(self) -> str:
        """What stays together when splits are drawn: the artist's tracks, or this track alone."""
        return f"track:{self.track_id}" if self.artist is None else f"artist:{self.artist}"


def read_ratings(path: Path) -> list[RatedTrack]:
    """The tracks of ratings.csv.

    Raises:
        UserError: the table lacks a column, a score is not on its scale, a rater has rated a track
            twice, or a track has two artists.
    """
    table = read_csv(path, required=COLUMNS, optional=("artist",))
    ratings = table.parse(_rating)
    _check_raters(path, ratings)

    by_track: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        by_track[rating.track_id].append(rating)
    _check_artists(path, by_track)
    return [_rated_track(track_id, of_track) for track_id, of_track in by_track.items()]


def _rating(cells: Cells) -> Rating:
    for column in ("track", "rater"):
        if not cells[column]:
            raise ValueError(f"has no {column}")
    return Rating(
        _track_id(cells["track"]),
        cells["rater"],
        artist=cells.get("artist", "").casefold(),
        scores={question: _score(question, cells[question]) for question in SCALES},
    )


def _score(question: Question, text: str) -> Decimal:
    try:
        score = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"has {question}={text!r}, which is not a number") from None
    if not (score.is_finite() and 0 <= score <= SCALES[question]):
        raise ValueError(
            f"has {question}={text}, which is not on the scale from 0 to {SCALES[question]}"
        )
    return score


def _track_id(name: str) -> str:
    """A file's path without the suffix that the table may give it or not."""
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()


def _check_raters(path: Path, ratings: Sequence[Rating]) -> None:
    votes = Counter((rating.track_id, rating.rater) for rating in ratings)
    twice = [vote for vote, n in votes.items() if n > 1]
    if twice:
        track_id, rater = twice[0]
        raise UserError(
            f"{len(twice)} times a rater has rated a track more than once in {path} "
            f"(first: rater {rater}, track {track_id}): keep one row of each"
        )


def _check_artists(path: Path, by_track: Mapping[str, Sequence[Rating]]) -> None:
    artists = {
        track_id: {rating.artist for rating in ratings} for track_id, ratings in by_track.items()
    }
    mixed = [track_id for track_id, names in artists.items() if len(names) > 1]
    if mixed:
        raise UserError(
            f"{len(mixed)} tracks have more than one artist in {path} (first: {mixed[0]}): "
            "write the same in all rows"
        )


def _rated_track(track_id: str, ratings: Sequence[Rating]) -> RatedTrack:
    means: dict[Question, Decimal] = {}
    for question in SCALES:
        scores = [rating.scores[question] for rating in ratings]
        means[question] = sum(scores, Decimal()) / len(scores)
    return RatedTrack(track_id, ratings[0].artist or None, means)


def find_audio(folder: Path) -> dict[str, Path]:
    """Audio files below `folder` by track id, without hidden ones.

    Raises:
        UserError: two files have the same name but for their suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        is_junk = any(part.startswith((".", "__MACOSX")) for part in place.parts)
        if is_junk or path.suffix.lower() not in SUFFIXES:
            continue

        track_id = place.with_suffix("").as_posix()
        if track_id in found:
            raise UserError(
                f"two audio files for one track: {found[track_id]} and {path.name}. "
                "Keep one of them"
            )
        found[track_id] = path
    return found


# -- classes ---------------------------------------------------------------------------------------


def binary_class(mean: Decimal, threshold: Decimal) -> int:
    """1 above the threshold, 0 on or below it (paper 3.4).

    >>> binary_class(Decimal("1.0"), Decimal("1")), binary_class(Decimal("1.2"), Decimal("1"))
    (0, 1)
    """
    return int(mean > threshold)


def rap_class(mean: Decimal, rap_below: Decimal, non_rap_above: Decimal) -> int:
    """0 rap, 1 mix, 2 non-rap; both boundaries are mix (paper 3.4).

    >>> means = [Decimal(mean) for mean in ("0.6", "0.67", "1.34", "1.4")]
    >>> [rap_class(mean, Decimal("0.67"), Decimal("1.34")) for mean in means]
    [0, 1, 1, 2]
    """
    if mean < rap_below:
        return 0
    return 2 if mean > non_rap_above else 1


class MusicTasteTask(TaskDataModule):
    """Base of the three tasks, which differ in their question and how its mean becomes a class."""

    dataset = "musictaste"
    card = CARD
    question: ClassVar[Question]

    def __init__(
        self, root: Path, clip: ClipRule, exclude: Collection[str] = (), *, split_seed: int = 0
    ) -> None:
        super().__init__(root, clip, exclude)
        self.split_seed = split_seed

    @abstractmethod
    def to_class(self, mean: Decimal) -> int:
        """Class of a track with this mean score."""

    def read_tracks(self) -> list[Track]:
        """The rated tracks; one without audio has the path where it should be, and is missed there.

        Raises:
            UserError: ratings.csv is missing or wrong, or audio files have no rating.
        """
        folder = self.root / "audio"
        rated, audio = read_ratings(self.root / "ratings.csv"), find_audio(folder)
        unrated = sorted(set(audio) - {track.track_id for track in rated})
        if unrated:
            raise UserError(
                f"{len(unrated)} of {len(audio)} audio files under {folder} have no rating "
                f"in ratings.csv (first: {audio[unrated[0]].name}): "
                "add their ratings or move the files away"
            )

        splits = split_groups((track.group for track in rated), self.split_seed)
        return [
            Track(
                track.track_id,
                audio.get(track.track_id, folder / f"{track.track_id}.wav"),
                splits[track.group],
                self.to_class(track.means[self.question]),
                track.artist,
            )
            for track in rated
        ]

    def _threshold(self, option: str, value: float) -> Decimal:
        """An option that some mean on the question's scale can exceed."""
        top = SCALES[self.question]
        if not isinstance(value, int | float) or not 0 <= value < top:
            raise UserError(
                f"task.options.{option} must be from 0 up to below {top}, which no mean of "
                f"{self.question} exceeds, found {value}"
            )
        return Decimal(str(value))  # as it is written: 0.67, not the binary number beside it


class _AboveThreshold(MusicTasteTask):
    """Two classes: on or below a threshold, and above it."""

    default: ClassVar[float]

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        threshold: float | None = None,
        split_seed: int = 0,
    ) -> None:
        super().__init__(root, clip, exclude, split_seed=split_seed)
        value = self.default if threshold is None else threshold
        self.threshold = self._threshold("threshold", value)

    def to_class(self, mean: Decimal) -> int:
        """1 above the threshold, 0 on or below it."""
        return binary_class(mean, self.threshold)


class MusicTastePreference(_AboveThreshold):
    """Whether listeners like a track: non-preferred or preferred (MPC, paper 3.4)."""

    question = "mpc"
    classes = ("non-preferred", "preferred")
    default = 1.0


class MusicTasteQuality(_AboveThreshold):
    """Whether a recording sounds good: bad or good (SQC, paper 3.4).

    Why the default is 0.5 is said in conf/task/musictaste_quality.yaml.
    """

    question = "sqc"
    classes = ("bad", "good")
    default = 0.5


class MusicTasteRap(MusicTasteTask):
    """Whether a track is rapped: rap, mix or non-rap (RD, paper 3.4)."""

    question = "rd"
    classes = ("rap", "mix", "non-rap")

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        rap_below: float = 0.67,
        non_rap_above: float = 1.34,
        split_seed: int = 0,
    ) -> None:
        super().__init__(root, clip, exclude, split_seed=split_seed)
        self.rap_below = self._threshold("rap_below", rap_below)
        self.non_rap_above = self._threshold("non_rap_above", non_rap_above)
        if self.rap_below > self.non_rap_above:
            raise UserError(
                f"task.options.rap_below={rap_below} is above non_rap_above={non_rap_above}: "
                "between them is mix, exchange them"
            )

    def to_class(self, mean: Decimal) -> int:
        """Rap below, non-rap above, mix between."""
        return rap_class(mean, self.rap_below, self.non_rap_above)
