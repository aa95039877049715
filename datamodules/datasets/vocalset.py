"""VocalSet (Wilkins et al. 2018, CC BY 4.0): 20 singers, 17 techniques, 3613 recordings, 10.1 h,
44.1 kHz mono.

Conventions: singer and technique are the names of folders, never of files, because 30 file names
lack the singer or give a
wrong one. Layouts: `FULL/<singer>/<context>/<technique>/<file>.wav` (version 1.1) and the same
below `data_by_singer` (1.2, whose other folders hold the same audio again). A track id is the path
below that folder without suffix, so both versions have the same ids and splits. `KNOWN_PROBLEMS`
says what is dropped, and what is kept although it looks wrong.

Deviations from MARBLE v1, whose splits hang on one numpy state, the listing of folders and the
pieces that silence trimming leaves, and are not shipped:
- technique: test is the dataset's own list of five singers, as in v1. v1's code then cuts the other
  fifteen 60/40 by a file's index in its folder, so train and val share singers; here they share
  none, 9 and 6 singers, as MARBLE's paper says.
- singer: recordings are dealt 12:8:5 to train, val and test within each singer, in the order of the
SHA-1 of their ids.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from datamodules.card import Archive, Card
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import LeftOut, Split, Track

TECHNIQUES = (
    "belt",
    "breathy",
    "inhaled",
    "lip_trill",
    "spoken",
    "straight",
    "trill",
    "trillo",
    "vibrato",
    "vocal_fry",
)
DYNAMICS = (
    "fast_forte",
    "fast_piano",
    "forte",
    "messa",
    "pp",
    "slow_forte",
    "slow_piano",
)  # no classes, but sung by somebody
SINGER_FOLDERS = (
    *(f"female{number}" for number in range(1, 10)),
    *(f"male{number}" for number in range(1, 12)),
)
SINGERS = tuple(folder.replace("female", "f").replace("male", "m") for folder in SINGER_FOLDERS)

TEST_LIST = "test_singers_technique.txt"
TEST_SINGERS = ("female2", "female8", "male3", "male5", "male10")  # what TEST_LIST holds
_N_VAL_PER_SEX = 3
_SEED = 42617  # that of MARBLE v1
_SHARES: Mapping[Split, int] = {"train": 12, "val": 8, "test": 5}

_FOLDERS = ("FULL", "VocalSet11/FULL", "data_by_singer", "VocalSet1-2/data_by_singer")
_MISSPELT = {"vibrado": "vibrato"}

CARD = Card(
    title="VocalSet (2018), version 1.1",
    licence="CC BY 4.0",
    citation="J. Wilkins, P. Seetharaman, A. Wahl, B. Pardo: VocalSet: a singing voice dataset, ISMIR 2018",
    obtain="""\
From Zenodo, either version; splits are the same:
  1.1 https://zenodo.org/records/1203819 (VocalSet11.zip, 2.1 GB), which unpacks to VocalSet/FULL/<singer>/...
  1.2 https://zenodo.org/records/1442513 (VocalSet1-2.zip, 6 GB), which unpacks to VocalSet/data_by_singer/<singer>/...""",
    archives=(
        Archive(
            url="https://zenodo.org/records/1203819/files/VocalSet11.zip?download=1",
            path="VocalSet11.zip",
            md5="0c09396242f946e7111ad7d8fc649b81",
            n_bytes=2_077_243_579,
        ),
    ),
)


@dataclass(frozen=True)
class KnownProblem:
    """Recordings with a flaw.

    Attributes:
        tracks: their id, or a pattern of ids.
        problem: what is wrong with them.
        action: whether they are `dropped` or `kept`.
    """

    tracks: str
    problem: str
    action: Literal["dropped", "kept"]


CHECKED = "2026-11-23"  # when KNOWN_PROBLEMS was written, from facts/tasks 4.2
KNOWN_PROBLEMS: tuple[KnownProblem, ...] = (
    KnownProblem(
        "female2/scales/slow_piano/f2_scales_f_slow_piano_u(1)",
        "same bytes as the file without (1)",
        "dropped",
    ),
    KnownProblem(
        "female2/scales/straight/f2_scales_straight_u(1)",
        "same bytes as the file without (1)",
        "dropped",
    ),
    KnownProblem(
        "female2/scales/vibrato/f2_scales_vibrato_a(1)",
        "same bytes as the file without (1)",
        "dropped",
    ),
    KnownProblem(
        "female2/arpeggios/vibrado/*",
        "folder misspelt, read as vibrato; v1 loses all of it",
        "kept",
    ),
    KnownProblem(
        "male8/excerpts/vibrato/m9_caro_vibrato",
        "the name says m9, whose file v1 overwrites with it",
        "kept",
    ),
    KnownProblem(
        "male10/excerpts/vibrato/[cdr]*_vibrato",
        "caro, dona and row lack the singer; v1 deletes them",
        "kept",
    ),
    KnownProblem(
        "male1/scales/straight/m1_straight_tone_scales_u",
        "parts of the name are in another order",
        "kept",
    ),
    KnownProblem("female2/arpeggios/lip_trill/lip_trill_arps", "the name lacks the singer", "kept"),
    KnownProblem(
        "female2/arpeggios/fast_piano/fast_piano_arps_f", "the name lacks the singer", "kept"
    ),
    KnownProblem("female2/scales/vocal_fry/scales_vocal_fry", "the name lacks the singer", "kept"),
    KnownProblem(
        "female3/scales/fast_piano/scales_fast_piano_f", "the name lacks the singer", "kept"
    ),
    KnownProblem("female4/*/straight/[as]*_straight_[aeiou]", "ten names lack the singer", "kept"),
    KnownProblem(
        "female9/arpeggios/fast_forte/arps_fast_piano_c",
        "the name lacks the singer and says fast_piano",
        "kept",
    ),
    KnownProblem("male3/scales/lip_trill/scales_lip_trill", "the name lacks the singer", "kept"),
    KnownProblem(
        "male3/arpeggios/fast_piano/arps_c_fast_piano", "the name lacks the singer", "kept"
    ),
    KnownProblem("male8/excerpts/straight/row_straight", "the name lacks the singer", "kept"),
    KnownProblem(
        "male10/scales/fast_piano/scales_[cf]_fast_piano_[aeiou]",
        "ten names lack the singer",
        "kept",
    ),
)


@dataclass(frozen=True)
class Recording:
    """One file, labelled by its folders.

    Attributes:
        track_id: path below the folder of singers, without suffix.
        path: audio file.
        singer: one of `SINGER_FOLDERS`.
        technique: one of `TECHNIQUES` or `DYNAMICS`.
    """

    track_id: str
    path: Path
    singer: str
    technique: str


def read_recordings(root: Path) -> list[Recording]:
    """All recordings of both layouts but the dropped ones of `KNOWN_PROBLEMS`.

    Raises:
        UserError: no folder of singers, one of the 20 singers is missing, or a folder is no known
            singer or technique.
    """
    folder = _singers_folder(root)
    singers = sorted(path.name for path in folder.glob("[!._]*") if path.is_dir())
    _check_names(folder, "singers", singers, SINGER_FOLDERS)
    if len(singers) < len(SINGER_FOLDERS):
        missing = [singer for singer in SINGER_FOLDERS if singer not in singers]
        raise UserError(
            f"{len(missing)} of {len(SINGER_FOLDERS)} VocalSet singers have no folder under "
            f"{folder} (first: {missing[0]}): "
            "unpack the archive again"
        )
    recordings = list(_list_recordings(folder))
    _check_names(
        folder,
        "techniques",
        {recording.technique for recording in recordings},
        (*TECHNIQUES, *DYNAMICS),
    )
    return recordings


def _singers_folder(root: Path) -> Path:
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"no VocalSet audio: {root} has no folder FULL or data_by_singer. Unpack "
            f"VocalSet11.zip into {root}"
        )
    return folder


def _list_recordings(folder: Path) -> Iterator[Recording]:
    for path in sorted(folder.glob("[!._]*/[!.]*/[!.]*/[!.]*.wav")):
        track_id = path.relative_to(folder).with_suffix("").as_posix()
        singer, _, technique, _ = track_id.split("/")
        flaw = known_problem(track_id)
        if flaw is None or flaw.action == "kept":
            yield Recording(track_id, path, singer, _MISSPELT.get(technique, technique))


def _check_names(
    folder: Path, kind: str, found: Sequence[str] | set[str], known: Sequence[str]
) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise UserError(
            f"{folder} has {len(unknown)} folders of unknown {kind} (first: {unknown[0]}): rename "
            "or remove them. "
            f"The known {kind} are {', '.join(known)}"
        )


def dropped() -> list[LeftOut]:
    """The dropped recordings of `KNOWN_PROBLEMS`."""
    return [
        LeftOut(known.tracks, known.problem, CHECKED)
        for known in KNOWN_PROBLEMS
        if known.action == "dropped"
    ]


def known_problem(track_id: str) -> KnownProblem | None:
    """The entry of `KNOWN_PROBLEMS` for a track.

    >>> known_problem("female4/scales/straight/scales_straight_a").problem
    'ten names lack the singer'
    >>> known_problem("female4/scales/straight/f4_scales_straight_a") is None
    True
    """
    return next((known for known in KNOWN_PROBLEMS if fnmatchcase(track_id, known.tracks)), None)


# -- splits ----------------------------------------------------------------------------------------


def technique_split() -> dict[str, Split]:
    """Split of each singer for the technique task: the dataset's 5 are test, 6 of the other 15 val,
    9 train.

    Val are the 3 women and the 3 men with the smallest SHA-1 of `42617:<singer>`, test singers
    aside.

    >>> [singer for singer, split in technique_split().items() if split == "val"]
    ['female1', 'female4', 'female9', 'male1', 'male8', 'male9']
    """
    others = [singer for singer in SINGER_FOLDERS if singer not in TEST_SINGERS]
    others.sort(key=lambda name: _sha1(f"{_SEED}:{name}"))
    val = {
        name
        for sex in ("female", "male")
        for name in [name for name in others if name.startswith(sex)][:_N_VAL_PER_SEX]
    }
    return {
        name: "test" if name in TEST_SINGERS else "val" if name in val else "train"
        for name in SINGER_FOLDERS
    }


def deal(track_ids: Sequence[str]) -> dict[str, Split]:
    """Split of each recording of one singer: 12:8:5 for train, val and test, in the order of the
    ids' SHA-1.

    >>> from collections import Counter
    >>> sorted(Counter(deal([f"male1/scales/belt/{n}" for n in range(50)]).values()).items())
    [('test', 10), ('train', 24), ('val', 16)]
    >>> sorted(deal(["a", "b", "c"]).values())
    ['test', 'train', 'val']
    """
    ordered = sorted(track_ids, key=_sha1)
    part = len(ordered) / sum(_SHARES.values())
    n_test, n_val = max(1, round(_SHARES["test"] * part)), max(1, round(_SHARES["val"] * part))
    splits: dict[str, Split] = dict.fromkeys(ordered, "train")
    splits.update(dict.fromkeys(ordered[:n_test], "test"))
    splits.update(dict.fromkeys(ordered[n_test : n_test + n_val], "val"))
    return splits


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _check_test_list(root: Path) -> None:
    """The dataset's own list, where it is there, must be the one that the splits are made of."""
    path = _singers_folder(root).parent / TEST_LIST
    if not path.is_file():
        return
    found = {
        line.strip()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    }
    if found != set(TEST_SINGERS):
        raise UserError(
            f"{path} lists {', '.join(sorted(found)) or 'nobody'}, but VocalSet's test singers are "
            f"{', '.join(TEST_SINGERS)}: unpack the archive again, or remove the file"
        )


# -- tasks -----------------------------------------------------------------------------------------


class VocalSetSinger(TaskDataModule):
    """Singer of a recording of any of the 17 techniques, 20 classes (paper 3.4, MARBLE v1
    VocalSetS).
    """

    dataset = "vocalset"
    classes = SINGERS
    card = CARD

    def read_tracks(self) -> list[Track]:
        """All recordings with their singer.

        Raises:
            UserError: as `read_recordings`, or a singer has too few recordings for three splits.
        """
        recordings = read_recordings(self.root)
        ids = {
            singer: [item.track_id for item in recordings if item.singer == singer]
            for singer in SINGER_FOLDERS
        }
        few = [singer for singer in SINGER_FOLDERS if len(ids[singer]) < len(_SHARES)]
        if few:
            raise UserError(
                f"{len(few)} VocalSet singers have fewer than {len(_SHARES)} recordings under "
                f"{self.root} (first: {few[0]} has "
                f"{len(ids[few[0]])}): unpack the archive again"
            )
        splits = {
            track_id: split for group in ids.values() for track_id, split in deal(group).items()
        }
        return [
            Track(
                item.track_id, item.path, splits[item.track_id], SINGER_FOLDERS.index(item.singer)
            )
            for item in recordings
        ]

    def left_out(self) -> list[LeftOut]:
        """The dropped recordings of `KNOWN_PROBLEMS`."""
        return dropped()


class VocalSetTechnique(TaskDataModule):
    """Technique of a recording, 10 classes of the 17 techniques (paper 3.4, MARBLE v1 VocalSetT)."""

    dataset = "vocalset"
    classes = TECHNIQUES
    card = CARD

    def read_tracks(self) -> list[Track]:
        """The recordings of the ten techniques; no singer is in two splits.

        Raises:
            UserError: as `read_recordings`, or the dataset's list of test singers is another one.
        """
        recordings = read_recordings(self.root)
        _check_test_list(self.root)
        splits = technique_split()
        return [
            Track(
                item.track_id,
                item.path,
                splits[item.singer],
                TECHNIQUES.index(item.technique),
                item.singer,
            )
            for item in recordings
            if item.technique in TECHNIQUES
        ]

    def left_out(self) -> list[LeftOut]:
        """The dropped recordings of `KNOWN_PROBLEMS`."""
        return dropped()
