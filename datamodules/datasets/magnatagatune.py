"""MagnaTagATune (Law et al. 2009): 25 863 clips of 29 s, 16 kHz mono mp3, tagged in a game.

Conventions: a tag is what players of the game agreed on; targets are the 50 most frequent of 188,
in MARBLE v2's fixed order; counting anew would give the same set, but an order that hangs on how
ties are broken. Synonyms and opposites (vocal / vocals / voice, no vocal / no vocals / no voice)
stay apart, as everywhere in the literature. Splits follow the first character of a clip's path:
0-9, a and b train, c val, d-f test (12:1:3).
"""

from collections.abc import Collection, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path

from datamodules.audio.clips import ClipRule
from datamodules.card import Archive, Card
from datamodules.errors import BrokenLabelsError, MissingFilesError
from datamodules.tables import Cells, read_csv
from datamodules.task import TaskDataModule
from datamodules.tracks import BadFile, Split, Track

_TAGS = (  # in MARBLE v2's order
    "guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, "
    "ambient, beat, violin, vocal, synth, female, indian, opera, male, singing, "
    "vocals, no vocals, harpsichord, loud, quiet, flute, woman, male vocal, no vocal, pop, "
    "soft, sitar, solo, man, classic, choir, voice, new age, dance, male voice, "
    "female vocal, beats, harp, cello, no voice, weird, country, metal, female voice, choral"
)
TAGS = tuple(_TAGS.split(", "))
ANNOTATIONS = "annotations_final.csv"
AUDIO_FOLDER = "mp3"

_HOST = "https://mirg.city.ac.uk/datasets/magnatagatune"
CARD = Card(
    title="MagnaTagATune (2009)",
    licence="not stated by its host (music of Magnatune)",
    citation=(
        "E. Law, K. West, M. Mandel, M. Bay, J. S. Downie: Evaluation of algorithms using games: "
        "the case of music tagging, ISMIR 2009"
    ),
    obtain="""\
From City, University of London: https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset
  annotations_final.csv to MagnaTagATune/annotations_final.csv
  mp3.zip.001, .002 and .003 (3 GB), joined (cat mp3.zip.00? > mp3.zip) \
and unpacked to MagnaTagATune/mp3/{0..9,a..f}/*.mp3""",
    archives=(  # SHA-256 of jukemir's assets/magnatagatune.json
        Archive(
            url=f"{_HOST}/{ANNOTATIONS}",
            path=ANNOTATIONS,
            sha256="99b94e95825d4fa576386a5367b9c96e0ec636e9f9c240aceb492f4728f68c3c",
            n_bytes=21_517_373,
        ),
        Archive(
            url=f"{_HOST}/mp3.zip.001",
            path="mp3/mp3.zip.001",
            sha256="f857fe185968773058cc71662c2ef5d8f2d4b7338e3c122cfd52f82dcb9760b9",
            n_bytes=1_100_000_000,
        ),
        Archive(
            url=f"{_HOST}/mp3.zip.002",
            path="mp3/mp3.zip.002",
            sha256="fc2e1ec441755556ed1398b1808f1b08b6034372f8bc27394510c0c58cdb52ce",
            n_bytes=1_100_000_000,
        ),
        Archive(
            url=f"{_HOST}/mp3.zip.003",
            path="mp3/mp3.zip.003",
            sha256="83a689824c17e82f6eb81cdbc4e4ca239a4cfc1fb41f1a5c80b861caec90450f",
            n_bytes=772_769_864,
        ),
    ),
)
# When `known_bad` was compared with jukemir's list of 2021, which MARBLE v1 and v2 share.
_CHECKED = "2026-11-24"
EXPECTED_TAGGED: Mapping[Split, int] = {"train": 15247, "val": 1529, "test": 4332}
_UNTAGGED = (0.0,) * len(TAGS)
_FLAGS: Mapping[str, float] = {"0": 0.0, "1": 1.0}
_SPLITS: Mapping[str, Split] = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "val",
    **dict.fromkeys("def", "test"),
}
_tag_values = itemgetter(*TAGS)


def folder_split(mp3_path: str) -> Split:
    """Split of a clip by the folder that its path starts with.

    >>> [folder_split(f"{folder}/a-b-01-c-0-29.mp3") for folder in "9cf"]
    ['train', 'val', 'test']

    Raises:
        ValueError: the path does not start with a folder from 0 to f.
    """
    folder, _, name = mp3_path.partition("/")
    if folder not in _SPLITS or not name:
        raise ValueError(f"has the path {mp3_path!r}, expected one below a folder from 0 to f")
    return _SPLITS[folder]


class MagnaTagATuneTags(TaskDataModule):
    """The 50 most frequent tags of a clip (paper 3.4, MARBLE v1 and v2 MTT).

    Args:
        root: of the dataset.
        clip: cutting rule.
        exclude: ids of clips to leave out.
        keep_untagged: keep the clips that have none of the 50 tags (MARBLE); False leaves them out
            (Won et al. 2020).
    """

    dataset = "magnatagatune"
    kind = "multilabel"
    classes = TAGS
    card = CARD
    expected: Mapping[Split, int] = {"train": 18706, "val": 1825, "test": 5329}
    lasts_s = (29.0, 29.5)  # decoders disagree on the padding
    known_bad = (
        BadFile(
            "35644",
            "corrupt mp3: 6/norine_braun-now_and_zen-08-gently-117-146.mp3",
            _CHECKED,
        ),
        BadFile(
            "55753",
            "corrupt mp3: 8/jacob_heringman-josquin_des_prez_lute_settings-19-"
            "gintzler__pater_noster-204-233.mp3",
            _CHECKED,
        ),
        BadFile(
            "57881",
            "corrupt mp3: 9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-"
            "le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
            _CHECKED,
        ),
    )

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        keep_untagged: bool = True,
    ) -> None:
        super().__init__(root, clip, exclude)
        self.keep_untagged = keep_untagged
        if not keep_untagged:
            self.expected = EXPECTED_TAGGED

    def read_tracks(self) -> list[Track]:
        """Every annotated clip but the corrupt ones, and but the untagged ones if so chosen.

        Raises:
            UserError: the annotations are missing, not tab-separated, lack a column, or hold
                anything else than 0 and 1.
        """
        path = self.root / ANNOTATIONS
        if not path.is_file():
            remedy = f"Put {ANNOTATIONS} there"
            raise MissingFilesError("MagnaTagATune labels", self.root, ANNOTATIONS, remedy)
        table = read_csv(
            path,
            required=("clip_id", "mp3_path", *TAGS),
            delimiter="\t",
            remedy="download it again",
        )
        clips = table.parse(partial(_track, self.root / AUDIO_FOLDER))

        twice = len(clips) - len({clip.track_id for clip in clips})
        if twice:
            raise BrokenLabelsError(path, f"has {twice} clips more than once", table.remedy)

        corrupt = {bad.name for bad in self.known_bad}
        kept = [clip for clip in clips if clip.track_id not in corrupt]
        return [clip for clip in kept if self.keep_untagged or clip.target != _UNTAGGED]


def _track(audio: Path, row: Cells) -> Track:
    clip_id, mp3_path = row["clip_id"], row["mp3_path"]
    try:
        target = tuple(map(_FLAGS.__getitem__, _tag_values(row)))
        split = folder_split(mp3_path)
    except KeyError as error:
        raise ValueError(f"(clip {clip_id}) has the tag value {error}, expected 0 or 1") from error
    except ValueError as error:
        raise ValueError(f"(clip {clip_id}) {error}") from error

    # The release names its files <folder>/<artist>-<album>-<number>-<title>-<start>-<end>.mp3.
    artist = mp3_path.partition("/")[2].partition("-")[0]
    return Track(clip_id, audio / mp3_path, split, target, artist)
