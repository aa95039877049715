"""Harmonix Set structure (Nieto et al. 2019): 912 pop songs with sections; audio is the user's own.

Conventions: `segments/<File>.txt` (or `dataset/segments/`, as the repository is laid out) has a
line `<seconds> <label>` for every section, separated by a blank or a tab; audio lies in
`tracks/<File>.<ext>`. 126 raw labels become seven classes by the first of 26 ordered rules that
matches (Wang, Hung & Smith 2022, Algorithm 1; facts/tasks 7.3). What precedes the first line and
what follows `end` has no label and is ignored. No split is published: folds are All-In-One's (index
of the sorted ids modulo 8; test is fold k, val fold k + 1), but versions of one song (charted anew,
edits, remixes) stay together. They share a YouTube URL, a MusicBrainz id, or title and first
artist, without what stands behind the title in brackets: 64 songs have 134 entries.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path

from datamodules.audio.clips import ClipRule
from datamodules.card import Card
from datamodules.errors import BrokenLabelsError, MissingFilesError, UserError
from datamodules.tables import read_csv, read_text, to_number
from datamodules.task import FrameTask
from datamodules.tracks import Segment, Split, Track

CLASSES = ("intro", "verse", "chorus", "bridge", "outro", "inst", "silence")
# A label has the class of the first of these that it contains; one that contains none is
# instrumental.
RULES = (
    ("silence", "silence"),
    ("pre-chorus", "verse"),
    ("prechorus", "verse"),
    ("refrain", "chorus"),
    ("chorus", "chorus"),
    ("theme", "chorus"),
    ("stutter", "chorus"),
    ("verse", "verse"),
    ("rap", "verse"),
    ("section", "verse"),
    ("slow", "verse"),
    ("build", "verse"),
    ("dialog", "verse"),
    ("intro", "intro"),
    ("fadein", "intro"),
    ("opening", "intro"),
    ("bridge", "bridge"),
    ("trans", "bridge"),
    ("out", "outro"),
    ("coda", "outro"),
    ("ending", "outro"),
    ("break", "inst"),
    ("inst", "inst"),
    ("interlude", "inst"),
    ("impro", "inst"),
    ("solo", "inst"),
)
N_FOLDS = 8
FOLDERS = ("", "dataset")  # below the root: files as they come, or the repository
AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus", ".aiff", ".au")
SEGMENT_FILES = "[0-9][0-9][0-9][0-9]_*.txt"  # such as 0001_12step.txt
URLS, METADATA = "youtube_urls.csv", "metadata.csv"
_NEXT_ARTIST = re.compile(r",|&|;|/|\b(?:feat|ft|featuring|and|vs|with)\b")
_REMEDY = "unpack the Harmonix Set's dataset/segments again"

CARD = Card(
    title="Harmonix Set (Nieto et al. 2019), structure",
    licence="annotations MIT; the audio is not distributed",
    citation=(
        "O. Nieto, M. McCallum, M. E. P. Davies, A. Robertson, A. Stark, E. Egozy: The Harmonix "
        "Set: Beats, Downbeats, and Functional Segment Annotations of Western Popular Music. "
        "ISMIR 2019"
    ),
    obtain="""\
1. Clone github.com/urinieto/harmonixset and put the content of its folder dataset \
into <data.root>/Harmonix:
   segments/*.txt, youtube_urls.csv, metadata.csv
2. Put your own audio of the songs into <data.root>/Harmonix/tracks/<File>.mp3 \
(or .wav .flac .ogg), such as
   tracks/0001_12step.mp3. The songs behind the YouTube links may be other edits than those \
that were annotated
   (alignment scores are in youtube_alignment_scores.csv); labels are then wrong in time.
3. Leave out the songs that you do not have with data.exclude=[harmonix:missing].""",
)


# -- sections --------------------------------------------------------------------------------------


def structure_class(label: str) -> int | None:
    """Class of a raw label; None for `end`, which closes a song.

    >>> labels = ("preChorus", "instbridge", "introchorus", "ending", "mainriff")
    >>> [CLASSES[structure_class(label)] for label in labels]
    ['verse', 'bridge', 'chorus', 'outro', 'inst']
    >>> structure_class("end")
    """
    lower = label.lower()
    if lower == "end":
        return None
    return CLASSES.index(next((name for part, name in RULES if part in lower), "inst"))


def read_segments(path: Path) -> tuple[Segment, ...]:
    """Sections of one song in order of time, without those that last no time.

    Each goes to the start of the next, the last to the end of the audio unless `end` closes it.

    Raises:
        UserError: a line is not a time and a label, or times decrease.
    """
    starts: list[tuple[float, int | None]] = []
    for number, line in enumerate(read_text(path, _REMEDY).splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        time = to_number(words[0])
        earliest = starts[-1][0] if starts else 0.0
        if len(words) < 2 or not earliest <= time < math.inf:
            raise BrokenLabelsError(
                path,
                f"is {line.strip()!r}",
                "expected a time in s, not before the line above, and a label",
                line=number,
            )
        starts.append((time, structure_class(words[1].strip())))
    if not starts:
        raise BrokenLabelsError(path, "has no sections", _REMEDY)

    ends = [time for time, _ in starts[1:]] + [math.inf]
    return tuple(
        Segment(start, end, label)
        for (start, label), end in zip(starts, ends, strict=True)
        if label is not None and start < end
    )


# -- splits ----------------------------------------------------------------------------------------


def fold_splits(groups: Mapping[str, str], fold: int) -> dict[str, Split]:
    """Split of every song: a song has the fold of the first song of its group.

    Args:
        groups: id of every song -> its group, which is the id of the group's first song.
        fold: 0 .. 7, which is test; the next one is val.

    >>> fold_splits({"a": "a", "b": "a", "c": "c"}, fold=0)
    {'a': 'test', 'b': 'test', 'c': 'train'}
    """
    fold_of = {song: number % N_FOLDS for number, song in enumerate(sorted(groups))}
    names: dict[int, Split] = {fold: "test", (fold + 1) % N_FOLDS: "val"}
    return {song: names.get(fold_of[group], "train") for song, group in groups.items()}


def read_version_groups(urls: Path, metadata: Path, songs: Sequence[str]) -> dict[str, str]:
    """Id of each song -> id of the first song that it is a version of.

    Args:
        urls: the table of YouTube URLs.
        metadata: the table of titles, artists and MusicBrainz ids.
        songs: sorted ids.

    Raises:
        UserError: a table cannot be read.
    """
    remedy = "unpack the repository again"
    marks: dict[str, list[Hashable]] = {song: [] for song in songs}
    for row in read_csv(urls, required=("File", "URL"), remedy=remedy).rows:
        marks.setdefault(row["File"], []).append(("url", row["URL"]) if row["URL"] else None)

    columns = ("File", "Title", "Artist")
    table = read_csv(metadata, required=columns, optional=("MusicBrainz Id",), remedy=remedy)
    for row in table.rows:
        recording = row.get("MusicBrainz Id")
        found = marks.setdefault(row["File"], [])
        found.append(("recording", recording) if recording else None)
        found.append(song_of(row["Title"], row["Artist"]))

    first: dict[Hashable, str] = {}
    group: dict[str, str] = {}
    for song in songs:
        known = [mark for mark in marks[song] if mark is not None]
        joined = sorted({group[first[mark]] for mark in known if mark in first})
        group[song] = joined[0] if joined else song

        # A song may be the link between two that had nothing in common.
        for other, name in group.items():
            if name in joined:
                group[other] = joined[0]
        for mark in known:
            first.setdefault(mark, song)
    return group


def song_of(title: str, artist: str) -> tuple[str, str] | None:
    """Title and first artist as versions of a song have them in common; None without a title.

    >>> song_of("Hello (Dada Life remix)", "Martin Solveig & Dragonette")
    ('hello', 'martin solveig')
    >>> song_of("(I've Had) The Time of My Life", "Bill Medley & Jennifer Warnes")
    ('ivehadthetimeofmylife', 'bill medley')
    """
    plain = re.sub(r"(?<=.)[(\[].*", "", title.casefold())
    letters = re.sub(r"[\W_]+", "", plain)
    first_artist = _NEXT_ARTIST.split(artist.casefold(), maxsplit=1)[0].strip()
    return (letters, first_artist) if letters else None


# -- task ------------------------------------------------------------------------------------------


class HarmonixStructure(FrameTask):
    """Section of every frame, seven classes (paper 3.4, which gives no classes, split or rate).

    `expected` counts the songs that have labels, by the split rule: audio that is missing shows in
    tables as n=found/expected.

    Args:
        root: of the dataset.
        clip: cutting rule.
        exclude: ids of songs to leave out, such as those whose audio is missing.
        frame_rate: of the label grid, in Hz.
        fold: 0 .. 7, the fold that is test.
        group_versions: keep versions of one song in one split; False is All-In-One's rule to the
            letter, which leaks.

    Raises:
        UserError: a fold beyond 7, or a frame rate that does not go with the clips.
    """

    dataset = "harmonix"
    classes = CLASSES
    card = CARD

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        frame_rate: float = 8.0,
        fold: int = 0,
        group_versions: bool = True,
    ) -> None:
        super().__init__(root, clip, exclude, frame_rate=frame_rate)
        if fold not in range(N_FOLDS):
            raise UserError(f"task.options.fold must be from 0 to {N_FOLDS - 1}, found {fold}")
        self.fold, self.group_versions = fold, group_versions

    def read_tracks(self) -> list[Track]:
        """Every song with a segment file; one without audio has the path where it should be.

        Raises:
            UserError: no segments, a segment file that cannot be read, or no tables to group by.
        """
        labels = self._segment_files()
        groups = self._groups(sorted(labels))
        splits = fold_splits(
            groups if self.group_versions else {song: song for song in labels}, self.fold
        )
        self.expected = dict(Counter(splits.values()))

        folder = self._audio_folder()
        audio = {path.stem: path for path in sorted(folder.glob("[!.]*")) if _is_audio(path)}
        return [
            Track(
                song,
                audio.get(song, folder / f"{song}.mp3"),
                splits[song],
                read_segments(path),
                groups.get(song),
            )
            for song, path in labels.items()
        ]

    def _segment_files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in FOLDERS:
            paths = sorted((self.root / folder / "segments").glob(SEGMENT_FILES))
            found.update({path.stem: path for path in paths})
        if not found:
            raise MissingFilesError(
                "Harmonix labels",
                self.root,
                "segments/*.txt",
                "Put the folder dataset of the repository urinieto/harmonixset there, "
                "and your audio into tracks/<File>.mp3",
            )
        return found

    def _audio_folder(self) -> Path:
        places = [self.root / folder / "tracks" for folder in FOLDERS]
        return next((place for place in places if place.is_dir()), places[0])

    def _groups(self, songs: Sequence[str]) -> dict[str, str]:
        """What each song is a version of; empty where that is not known and not asked for."""
        urls, metadata = self._table(URLS), self._table(METADATA)
        if urls is not None and metadata is not None:
            return read_version_groups(urls, metadata, songs)
        if self.group_versions:
            raise UserError(
                f"{self.root} has no {METADATA if urls else URLS}, which tells the songs that are "
                "there twice: put it beside segments/, or split without it by "
                "task.options.group_versions=false"
            )
        return {}

    def _table(self, name: str) -> Path | None:
        places = [self.root / folder / name for folder in FOLDERS]
        return next((place for place in places if place.is_file()), None)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES
