"""VocalSet (Wilkins et al. 2018, CC BY 4.0): 20 singers, 17 techniques, 3613 recordings, 10.1 h.

Conventions: audio is 44.1 kHz mono. Singer and technique are the names of folders, never of files,
because 30 file names lack the singer or give a wrong one. Layouts:
`FULL/<singer>/<context>/<technique>/<file>.wav` (version 1.1) and the same below `data_by_singer`
(1.2, whose other folders hold the same audio again). A track id is the path below that folder
without suffix, so both versions have the same ids and splits. `DOUBLES` are dropped;
`KEPT_PROBLEMS` names what is kept although it looks wrong. No list of the recordings is published,
only their number: where some are missing they are taken to be spread over the splits like those
that are there, and an incomplete copy is only used if that is asked for.

Deviations from MARBLE v1, whose splits hang on one numpy state, the listing of folders and the
pieces that silence trimming leaves, and are not shipped:
- technique: test is the dataset's own list of five singers, as in v1. v1's code then cuts the other
  fifteen 60/40 by a file's index in its folder, so train and val share singers; here they share
  none, 9 and 6 singers, as MARBLE's paper says.
- singer: recordings are dealt 12:8:5 to train, val and test within each singer, in the order of the
  SHA-1 of their ids.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.card import Archive, Card
from datamodules.errors import MissingFilesError, UserError
from datamodules.excluding import MISSING, exclude_remedy
from datamodules.task import TaskDataModule
from datamodules.tracks import BadFile, Split, Track

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
DYNAMICS = (  # no classes, but sung by somebody
    "fast_forte",
    "fast_piano",
    "forte",
    "messa",
    "pp",
    "slow_forte",
    "slow_piano",
)
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

N_RECORDINGS = 3610  # of 3613 files three are `DOUBLES`
_SUFFIX = ".wav"
_FOLDERS = ("FULL", "VocalSet11/FULL", "data_by_singer", "VocalSet1-2/data_by_singer")
_MISSPELT = {"vibrado": "vibrato"}

CARD = Card(
    title="VocalSet (2018), version 1.1",
    licence="CC BY 4.0",
    citation=(
        "J. Wilkins, P. Seetharaman, A. Wahl, B. Pardo: VocalSet: a singing voice dataset, "
        "ISMIR 2018"
    ),
    obtain="""\
From Zenodo, either version; splits are the same:
  1.1 https://zenodo.org/records/1203819 (VocalSet11.zip, 2.1 GB), \
which unpacks to VocalSet/FULL/<singer>/...
  1.2 https://zenodo.org/records/1442513 (VocalSet1-2.zip, 6 GB), \
which unpacks to VocalSet/data_by_singer/<singer>/...""",
    archives=(
        Archive(
            url="https://zenodo.org/records/1203819/files/VocalSet11.zip?download=1",
            path="VocalSet11.zip",
            md5="0c09396242f946e7111ad7d8fc649b81",
            n_bytes=2_077_243_579,
        ),
    ),
)

_CHECKED = "2026-11-23"  # when both lists were written, from facts/tasks 4.2
_DOUBLE = "same bytes as the file without (1)"
DOUBLES = (
    BadFile("female2/scales/slow_piano/f2_scales_f_slow_piano_u(1)", _DOUBLE, _CHECKED),
    BadFile("female2/scales/straight/f2_scales_straight_u(1)", _DOUBLE, _CHECKED),
    BadFile("female2/scales/vibrato/f2_scales_vibrato_a(1)", _DOUBLE, _CHECKED),
)
_NO_SINGER = "the name lacks the singer"
# Ids of tracks, or patterns of them -> what is wrong with recordings that are tracks nevertheless.
KEPT_PROBLEMS: Mapping[str, str] = {
    "female2/arpeggios/vibrado/*": "folder misspelt, read as vibrato; v1 loses all of it",
    "male8/excerpts/vibrato/m9_caro_vibrato": (
        "the name says m9, whose file v1 overwrites with it"
    ),
    "male10/excerpts/vibrato/[cdr]*_vibrato": (
        "caro, dona and row lack the singer; v1 deletes them"
    ),
    "male1/scales/straight/m1_straight_tone_scales_u": "parts of the name are in another order",
    "female2/arpeggios/lip_trill/lip_trill_arps": _NO_SINGER,
    "female2/arpeggios/fast_piano/fast_piano_arps_f": _NO_SINGER,
    "female2/scales/vocal_fry/scales_vocal_fry": _NO_SINGER,
    "female3/scales/fast_piano/scales_fast_piano_f": _NO_SINGER,
    "female4/*/straight/[as]*_straight_[aeiou]": "ten names lack the singer",
    "female9/arpeggios/fast_forte/arps_fast_piano_c": (
        "the name lacks the singer and says fast_piano"
    ),
    "male3/scales/lip_trill/scales_lip_trill": _NO_SINGER,
    "male3/arpeggios/fast_piano/arps_c_fast_piano": _NO_SINGER,
    "male8/excerpts/straight/row_straight": _NO_SINGER,
    "male10/scales/fast_piano/scales_[cf]_fast_piano_[aeiou]": "ten names lack the singer",
}


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
    """All recordings of either layout but `DOUBLES`.

    Raises:
        UserError: no folder of singers, one of the 20 singers is missing, or a folder is no known
            singer or technique.
    """
    folder = _singers_folder(root)
    singers = {path.name for path in folder.glob("[!._]*") if path.is_dir()}
    _check_known(folder, "singers", singers, SINGER_FOLDERS)
    missing = [singer for singer in SINGER_FOLDERS if singer not in singers]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(SINGER_FOLDERS)} VocalSet singers have no folder under "
            f"{folder} (first: {missing[0]}): unpack the archive again"
        )

    recordings = list(_list_recordings(folder))
    techniques = {recording.technique for recording in recordings}
    _check_known(folder, "techniques", techniques, (*TECHNIQUES, *DYNAMICS))
    return recordings


def _singers_folder(root: Path) -> Path:
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        remedy = f"Unpack VocalSet11.zip into {root}"
        raise MissingFilesError("VocalSet audio", root, "folder FULL or data_by_singer", remedy)
    return folder


def _list_recordings(folder: Path) -> Iterator[Recording]:
    doubles = {bad.name for bad in DOUBLES}
    for path in sorted(folder.glob("[!._]*/[!.]*/[!.]*/[!.]*")):
        if path.suffix.lower() != _SUFFIX:
            continue
        track_id = path.relative_to(folder).with_suffix("").as_posix()
        if track_id not in doubles:
            singer, _, technique, _ = track_id.split("/")
            yield Recording(track_id, path, singer, _MISSPELT.get(technique, technique))


def _check_known(folder: Path, kind: str, found: Collection[str], known: Sequence[str]) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise UserError(
            f"{folder} has {len(unknown)} folders of unknown {kind} (first: {unknown[0]}): "
            f"rename or remove them. The known {kind} are {', '.join(known)}"
        )


# -- splits ----------------------------------------------------------------------------------------


def technique_split() -> dict[str, Split]:
    """Split of each singer for the technique task: 9 are train, 6 val, and the dataset's 5 test.

    Val are the 3 women and the 3 men with the smallest SHA-1 of `42617:<singer>`, test singers
    aside.

    >>> [singer for singer, split in technique_split().items() if split == "val"]
    ['female1', 'female4', 'female9', 'male1', 'male8', 'male9']
    """
    splits: dict[str, Split] = dict.fromkeys(SINGER_FOLDERS, "train")
    splits.update(dict.fromkeys(TEST_SINGERS, "test"))

    others = [singer for singer in SINGER_FOLDERS if singer not in TEST_SINGERS]
    others.sort(key=lambda singer: _sha1(f"{_SEED}:{singer}"))
    for sex in ("female", "male"):
        of_sex = [singer for singer in others if singer.startswith(sex)]
        splits.update(dict.fromkeys(of_sex[:_N_VAL_PER_SEX], "val"))
    return splits


def deal(track_ids: Sequence[str]) -> dict[str, Split]:
    """Split of each recording of one singer, 12:8:5 in the order of the ids' SHA-1.

    The first are test, then val, the rest train; val and test have one recording at the least.

    >>> from collections import Counter
    >>> sorted(Counter(deal([f"male1/scales/belt/{n}" for n in range(50)]).values()).items())
    [('test', 10), ('train', 24), ('val', 16)]
    >>> sorted(deal(["a", "b", "c"]).values())
    ['test', 'train', 'val']
    """
    ordered = sorted(track_ids, key=_sha1)
    part = len(ordered) / sum(_SHARES.values())
    n_test = max(1, round(_SHARES["test"] * part))
    n_val = max(1, round(_SHARES["val"] * part))

    splits: dict[str, Split] = dict.fromkeys(ordered, "train")
    splits.update(dict.fromkeys(ordered[:n_test], "test"))
    splits.update(dict.fromkeys(ordered[n_test : n_test + n_val], "val"))
    return splits


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _check_test_list(root: Path) -> None:
    """Raises UserError if the dataset's list is there and not the one that splits are made of."""
    path = _singers_folder(root).parent / TEST_LIST
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {line.strip() for line in lines} - {""}
    if found != set(TEST_SINGERS):
        raise UserError(
            f"{path} lists {', '.join(sorted(found)) or 'nobody'}, but VocalSet's test singers are "
            f"{', '.join(TEST_SINGERS)}: unpack the archive again, or remove the file"
        )


# -- tasks -----------------------------------------------------------------------------------------


class VocalSetTask(TaskDataModule):
    """Base of the two tasks, which differ in what they ask of a recording."""

    dataset = "vocalset"
    card = CARD
    known_bad = DOUBLES

    def recordings(self) -> list[Recording]:
        """All recordings.

        Raises:
            UserError: as `read_recordings`, or some are missing and `exclude` does not say so.
        """
        found = read_recordings(self.root)
        is_part = self.is_demo or MISSING in self.exclude or self._missing in self.exclude
        if len(found) < N_RECORDINGS and not is_part:
            remedy = exclude_remedy(self.dataset, [MISSING], self.exclude)
            raise UserError(
                f"{N_RECORDINGS - len(found)} of {N_RECORDINGS} VocalSet recordings are not under "
                f"{self.root}: unpack the archive again, or go on without them with {remedy} "
                "(tables will say so)"
            )
        return found

    @property
    def _missing(self) -> str:
        return f"{self.dataset}:{MISSING}"

    def expect(self, tracks: Sequence[Track], n_found: int) -> None:
        """Sets how many tracks of each split a complete copy would give."""
        n_tracks = Counter(track.split for track in tracks)
        complete = N_RECORDINGS / n_found
        self.expected = {split: round(n * complete) for split, n in n_tracks.items()}


class VocalSetSinger(VocalSetTask):
    """Singer of a recording of any technique, 20 classes (paper 3.4, MARBLE v1 VocalSetS)."""

    classes = SINGERS

    def read_tracks(self) -> list[Track]:
        """All recordings with their singer.

        Raises:
            UserError: as `recordings`, or a singer has too few recordings for three splits.
        """
        recordings = self.recordings()
        ids: dict[str, list[str]] = {singer: [] for singer in SINGER_FOLDERS}
        for item in recordings:
            ids[item.singer].append(item.track_id)
        few = [singer for singer in SINGER_FOLDERS if len(ids[singer]) < len(_SHARES)]
        if few:
            raise UserError(
                f"{len(few)} VocalSet singers have fewer than {len(_SHARES)} recordings under "
                f"{self.root} (first: {few[0]} has {len(ids[few[0]])}): unpack the archive again"
            )

        splits: dict[str, Split] = {}
        for of_singer in ids.values():
            splits.update(deal(of_singer))
        # No group: that singers are in all splits is the task.
        tracks = [
            Track(
                item.track_id, item.path, splits[item.track_id], SINGER_FOLDERS.index(item.singer)
            )
            for item in recordings
        ]
        self.expect(tracks, len(recordings))
        return tracks


class VocalSetTechnique(VocalSetTask):
    """Technique of a recording, 10 of the 17 techniques (paper 3.4, MARBLE v1 VocalSetT)."""

    classes = TECHNIQUES

    def read_tracks(self) -> list[Track]:
        """The recordings of the ten techniques; no singer is in two splits.

        Raises:
            UserError: as `recordings`, or the dataset's list of test singers is another one.
        """
        recordings = self.recordings()
        _check_test_list(self.root)
        splits = technique_split()
        tracks = [
            Track(
                item.track_id,
                item.path,
                splits[item.singer],
                TECHNIQUES.index(item.technique),
                group=item.singer,
            )
            for item in recordings
            if item.technique in TECHNIQUES
        ]
        self.expect(tracks, len(recordings))
        return tracks
