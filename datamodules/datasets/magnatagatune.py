"""MagnaTagATune (Law et al. 2009): 25 863 clips of 29 s, 16 kHz mono mp3, with the tags that
players of a game agreed on.

Conventions: the 50 most frequent of 188 tags, in MARBLE v2's fixed order; counting anew would give
the same set, but an order that hangs on how ties are broken. Synonyms and opposites (vocal / vocals
/ voice, no vocal / no vocals / no voice) stay apart, as everywhere in the literature. Splits follow
the first character of a clip's path: 0-9, a and b train, c val, d-f test (12:1:3).
"""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from datamodules.audio.clips import ClipRule
from datamodules.card import Archive, Card
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import LeftOut, Split, Track

TAGS = (
    *(
        "guitar",
        "classical",
        "slow",
        "techno",
        "strings",
        "drums",
        "electronic",
        "rock",
        "fast",
        "piano",
    ),
    *(
        "ambient",
        "beat",
        "violin",
        "vocal",
        "synth",
        "female",
        "indian",
        "opera",
        "male",
        "singing",
    ),
    *(
        "vocals",
        "no vocals",
        "harpsichord",
        "loud",
        "quiet",
        "flute",
        "woman",
        "male vocal",
        "no vocal",
        "pop",
    ),
    *(
        "soft",
        "sitar",
        "solo",
        "man",
        "classic",
        "choir",
        "voice",
        "new age",
        "dance",
        "male voice",
    ),
    *(
        "female vocal",
        "beats",
        "harp",
        "cello",
        "no voice",
        "weird",
        "country",
        "metal",
        "female voice",
        "choral",
    ),
)
# when CORRUPT was compared with its sources: jukemir's list of 2021, which MARBLE v1 and v2 share
CHECKED = "2026-11-24"
# Clips of the release whose mp3 holds no music, by id.
CORRUPT: Mapping[str, str] = {
    "35644": "corrupt mp3: 6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "55753": "corrupt mp3: 8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "57881": (
        "corrupt mp3: 9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-"
        "le_petit_rien_xiveme_ordre_couperin-88-117.mp3"
    ),
}
ANNOTATIONS = "annotations_final.csv"
AUDIO_FOLDER = "mp3"

_HOST = "https://mirg.city.ac.uk/datasets/magnatagatune"
_ARCHIVES = (  # SHA-256 of jukemir's assets/magnatagatune.json
    (
        "",
        ANNOTATIONS,
        "99b94e95825d4fa576386a5367b9c96e0ec636e9f9c240aceb492f4728f68c3c",
        21_517_373,
    ),
    (
        "mp3/",
        "mp3.zip.001",
        "f857fe185968773058cc71662c2ef5d8f2d4b7338e3c122cfd52f82dcb9760b9",
        1_100_000_000,
    ),
    (
        "mp3/",
        "mp3.zip.002",
        "fc2e1ec441755556ed1398b1808f1b08b6034372f8bc27394510c0c58cdb52ce",
        1_100_000_000,
    ),
    (
        "mp3/",
        "mp3.zip.003",
        "83a689824c17e82f6eb81cdbc4e4ca239a4cfc1fb41f1a5c80b861caec90450f",
        772_769_864,
    ),
)
CARD = Card(
    title="MagnaTagATune (2009)",
    licence="not stated by its host (music of Magnatune)",
    citation=(
        "E. Law, K. West, M. Mandel, M. Bay, J. S. Downie: Evaluation of algorithms using games: "
        "the case of music tagging, "
        "ISMIR 2009"
    ),
    obtain="""\
From City, University of London: https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset
  annotations_final.csv to MagnaTagATune/annotations_final.csv
  mp3.zip.001, .002 and .003 (3 GB), joined (cat mp3.zip.00? > mp3.zip) and unpacked to MagnaTagATune/mp3/{0..9,a..f}/*.mp3""",
    archives=tuple(
        Archive(f"{_HOST}/{name}", path=folder + name, sha256=sha256, n_bytes=n_bytes)
        for folder, name, sha256, n_bytes in _ARCHIVES
    ),
)
EXPECTED_TAGGED: Mapping[Split, int] = {"train": 15247, "val": 1529, "test": 4332}
_COLUMNS = ("clip_id", "mp3_path", *TAGS)
_UNTAGGED = (0.0,) * len(TAGS)
_FLAGS: Mapping[str, float] = {"0": 0.0, "1": 1.0}
_SPLITS: Mapping[str, Split] = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "val",
    **dict.fromkeys("def", "test"),
}


def folder_split(mp3_path: str) -> Split:
    """Split of a clip by the folder that its path starts with.

    >>> folder_split("9/a-b-01-c-0-29.mp3"), folder_split("c/a-b-01-c-0-29.mp3"), folder_split("f/a-b-01-c-0-29.mp3")
    ('train', 'val', 'test')

    Raises:
        ValueError: the path does not start with a folder from 0 to f.
    """
    folder, _, name = mp3_path.partition("/")
    if folder not in _SPLITS or not name:
        raise ValueError(mp3_path)
    return _SPLITS[folder]


class MagnaTagATuneTags(TaskDataModule):
    """The 50 most frequent tags of a clip (paper 3.4, MARBLE v1 and v2 MTT)."""

    dataset = "magnatagatune"
    kind = "multilabel"
    classes = TAGS
    card = CARD
    expected: Mapping[Split, int] = {"train": 18706, "val": 1825, "test": 5329}

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        keep_untagged: bool = True,
    ) -> None:
        """`keep_untagged` keeps the clips that have none of the 50 tags (MARBLE); False leaves them
        out (Won et al. 2020).
        """
        super().__init__(root, clip, exclude)
        self.keep_untagged = keep_untagged
        if not keep_untagged:
            self.expected = EXPECTED_TAGGED

    def read_tracks(self) -> list[Track]:
        """Every annotated clip but the three corrupt ones, and but the untagged ones if so chosen.

        Raises:
            UserError: the annotations are missing, not tab-separated, lack a column, or hold
                anything else than 0 and 1.
        """
        rows = _read_rows(self.root / ANNOTATIONS)
        clips = [
            _track(self.root, number, values) for number, values in rows if values[0] not in CORRUPT
        ]
        twice = len(clips) - len({clip.track_id for clip in clips})
        if twice:
            raise UserError(
                f"{self.root / ANNOTATIONS} has {twice} clips more than once: download it again"
            )
        return [clip for clip in clips if self.keep_untagged or clip.target != _UNTAGGED]

    def left_out(self) -> list[LeftOut]:
        """The three clips of `CORRUPT`."""
        return [LeftOut(clip_id, reason, CHECKED) for clip_id, reason in CORRUPT.items()]


def _track(root: Path, number: int, values: Sequence[str]) -> Track:
    clip_id, mp3_path, *tags = values
    try:
        target = tuple(map(_FLAGS.__getitem__, tags))
        artist = mp3_path.partition("/")[2].partition("-")[0]
        return Track(
            clip_id, root / AUDIO_FOLDER / mp3_path, folder_split(mp3_path), target, artist
        )
    except KeyError as error:
        raise UserError(
            f"row {number} of {ANNOTATIONS} (clip {clip_id}) has the tag value {error}: expected 0 "
            "or 1"
        ) from error
    except ValueError as error:
        raise UserError(
            f"row {number} of {ANNOTATIONS} (clip {clip_id}) has the path {mp3_path!r}: expected "
            "one below a folder from 0 to f"
        ) from error


def _read_rows(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Number of each row in the file, counted from 1, and its values in the order of `_COLUMNS`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter="\t")
            header = next(lines, [])
            pick = itemgetter(*_positions(path, header))
            for number, line in enumerate(lines, start=2):
                if len(line) != len(header):
                    raise UserError(
                        f"row {number} of {path} has {len(line)} columns, its header "
                        f"{len(header)}: download it again"
                    )
                yield number, pick(line)
    except FileNotFoundError as error:
        raise UserError(
            f"no MagnaTagATune labels: {path} does not exist. Put {ANNOTATIONS} there"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a text in UTF-8 ({error.reason}): download it again"
        ) from error


def _positions(path: Path, header: Sequence[str]) -> list[int]:
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r} ({len(missing)} of {len(_COLUMNS)} missing): "
            "expected a table with tabs and "
            "188 tags, as distributed"
        )
    return [header.index(column) for column in _COLUMNS]
