"""GiantSteps key: which rows are kept, which artists are in val, and the two annotation formats."""

import hashlib
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

import pytest

from datamodules.audio.clips import ClipRule
from datamodules.datasets.giantsteps import KEYS, GiantStepsKey, key_class, val_artists
from datamodules.errors import UserError

TEST_KEYS = {"1224698": "D major", "1442809": "Db major", "4452003": "Gb minor"}
HEADER = "ID\tARTIST\tSONG TITLE\tMIX\tLABEL\tBP GENRE\tBP BPM\tBP KEY\n"


def artist(split: str, number: int = 0) -> str:
    """The `number`-th name that is in `split` by itself.

    It is in val if SHA-1 of the lower-cased name mod 116 is 100 or more (jukemir).
    """
    names = (f"DJ Number {n}" for n in count())
    hashes = (
        (name, int(hashlib.sha1(name.lower().encode()).hexdigest(), 16) % 116) for name in names
    )
    matching = (name for name, value in hashes if (value >= 100) == (split == "val"))
    return next(islice(matching, number, None))


TRAIN, TRAIN2, TRAIN3, TRAIN4 = (artist("train", number) for number in range(4))
VAL = artist("val")

MTG: list[tuple[str, str, str, str]] = [  # id, manual key, confidence, artists
    ("10089", "D# minor", "2", TRAIN),
    ("10090", "F minor / G# major", "2", TRAIN),  # more than one key
    ("10091", "B major ", "2", VAL),  # trailing blank
    ("10092", "C major", "1", TRAIN),  # not sure
    ("10093", "-", "0", TRAIN),
    ("10094", "A# minor", "2", f"{TRAIN2}, {VAL}"),  # with an artist of val
    ("10095", "E / B / A minor", "2", TRAIN),
    ("10096", " ", "0", TRAIN),
    ("10097", "G# major", "2", TRAIN3),
    ("10098", "A-A# minor", "0", TRAIN),
]


def write_mtg(folder: Path, rows: Sequence[tuple[str, str, str, str]] = MTG) -> None:
    annotations = folder / "annotations"
    (annotations / "key").mkdir(parents=True, exist_ok=True)
    (folder / "audio").mkdir(exist_ok=True)
    lines = [f"{name}\t{key}\t{confidence}\n" for name, key, confidence, _ in rows]
    (annotations / "annotations.txt").write_text("ID\tMANUAL KEY\tC\n" + "".join(lines))
    songs = [
        f'{name}\t{artists}\tSong "{name}"\tOriginal Mix\tLabel\tTechno\t128\tCmin\n'
        for name, _, _, artists in rows
    ]
    (annotations / "beatport_metadata.txt").write_text(HEADER + "".join(songs))
    for name, key, confidence, _ in rows:
        # not the format of the test set's file of the same name
        lower = f"{key[:1].lower()}{key[1:]}\t{confidence}\t"
        (annotations / "key" / f"{name}.LOFI.key").write_text(lower)
        (folder / "audio" / f"{name}.LOFI.mp3").touch()


def write_test(folder: Path) -> None:
    for kind in ("key", "genre", "giantsteps", "jams"):
        (folder / "annotations" / kind).mkdir(parents=True)
    (folder / "audio").mkdir()
    (folder / "md5").mkdir()
    for name, key in TEST_KEYS.items():
        (folder / "annotations/key" / f"{name}.LOFI.key").write_text(key)  # one line, no newline
        (folder / "annotations/giantsteps" / f"{name}.LOFI.key").write_text("A major")
        (folder / "annotations/genre" / f"{name}.LOFI.genre").write_text("techno")
        (folder / "annotations/jams" / f"{name}.LOFI.jams").write_text("{}")
        (folder / "md5" / f"{name}.LOFI.md5").write_text("0" * 32)
        (folder / "audio" / f"{name}.LOFI.mp3").touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_test(tmp_path / "giantsteps-key-dataset-6bcd492")
    write_mtg(tmp_path / "giantsteps-mtg-key-dataset-fd7b8c5")
    return tmp_path


def mtg(root: Path) -> Path:
    return root / "giantsteps-mtg-key-dataset-fd7b8c5"


def tracks(root: Path, split: str | None = None) -> dict[str, str]:
    found = GiantStepsKey(root, ClipRule(30.0)).tracks()
    return {track.track_id: KEYS[track.target] for track in found if split in (None, track.split)}


# -- classes ---------------------------------------------------------------------------------------


def test_classes_are_twelve_major_keys_from_c_then_twelve_minor() -> None:
    tonics = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
    assert GiantStepsKey.classes == tuple(
        [f"{tonic} major" for tonic in tonics] + [f"{tonic} minor" for tonic in tonics]
    )
    assert [key_class(name) for name in GiantStepsKey.classes] == list(range(24))


@pytest.mark.parametrize(
    ("sharp", "flat"),
    [("C#", "Db"), ("D#", "Eb"), ("F#", "Gb"), ("G#", "Ab"), ("A#", "Bb"), ("F", "F"), ("B", "B")],
)
def test_sharps_and_flats_are_the_same_class(sharp: str, flat: str) -> None:
    for mode in ("major", "minor"):
        assert (
            key_class(f"{sharp} {mode}")
            == key_class(f" {flat} {mode} ")
            == KEYS.index(f"{flat} {mode}")
        )


@pytest.mark.parametrize(
    "name", ["", "-", "C", "H major", "A-A# minor", "C dorian", "E / B / A minor", "C  major major"]
)
def test_what_is_not_one_key_is_an_error(name: str) -> None:
    with pytest.raises(ValueError):
        key_class(name)


# -- which rows ------------------------------------------------------------------------------------


def test_rows_of_confidence_2_with_a_single_key_are_kept(root: Path) -> None:
    kept = tracks(root, "train") | tracks(root, "val")
    assert kept == {
        "10089": "Eb minor",
        "10091": "B major",
        "10094": "Bb minor",
        "10097": "Ab major",
    }


def test_test_tracks_are_all_of_the_giantsteps_key_set(root: Path) -> None:
    assert tracks(root, "test") == TEST_KEYS


def test_files_are_the_mp3s_of_their_own_set(root: Path) -> None:
    paths = {track.track_id: track.path for track in GiantStepsKey(root, ClipRule(30.0)).tracks()}
    assert paths["1224698"] == root / "giantsteps-key-dataset-6bcd492/audio/1224698.LOFI.mp3"
    assert paths["10089"] == mtg(root) / "audio/10089.LOFI.mp3"


def test_sizes_of_the_complete_set_are_those_of_the_code_not_of_the_paper() -> None:
    assert GiantStepsKey.expected == {"train": 923, "val": 236, "test": 604}


def test_junk_beside_the_annotations_is_ignored(root: Path) -> None:
    keys = root / "giantsteps-key-dataset-6bcd492/annotations/key"
    (keys / "._1224698.LOFI.key").write_bytes(b"\x00\x05\x16\x07")
    (keys / "README").write_text("keys")
    (root / "giantsteps-key-dataset-6bcd492.zip").touch()
    assert tracks(root, "test") == TEST_KEYS


def test_quotes_in_titles_do_not_swallow_rows(root: Path) -> None:
    rows = [*MTG, ("10099", "C major", "2", f'"{TRAIN}'), ("10100", "D major", "2", VAL)]
    write_mtg(mtg(root), rows)
    assert {"10099", "10100"} <= set(tracks(root))
    assert "10100" in tracks(root, "val")


def test_windows_line_ends_change_nothing(root: Path) -> None:
    before = tracks(root)
    for path in (mtg(root) / "annotations").glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert tracks(root) == before


# -- val by artist ---------------------------------------------------------------------------------


def test_tracks_of_a_val_artist_and_of_those_who_appear_with_one_are_val(root: Path) -> None:
    assert set(tracks(root, "val")) == {"10091", "10094"}
    assert set(tracks(root, "train")) == {"10089", "10097"}


def test_val_starts_with_the_hash_of_the_lower_cased_name() -> None:
    assert VAL.lower() != VAL
    assert val_artists([[VAL], [TRAIN]]) == {VAL}
    for name in (artist("val", 3), artist("val", 7)):
        assert val_artists([[name.upper()]]) == {name.upper()}


def test_val_spreads_over_two_hops_and_no_further_against_the_order_of_rows() -> None:
    rows = [[TRAIN3, TRAIN4], [TRAIN2, TRAIN3], [TRAIN, TRAIN2], [VAL, TRAIN]]
    # The first pass reaches TRAIN, the second TRAIN2.
    assert val_artists(rows) == {VAL, TRAIN, TRAIN2}


def test_val_runs_along_the_order_of_rows_in_one_pass() -> None:
    """As in jukemir's code, where a row sees what the rows before it have changed."""
    rows = [[VAL, TRAIN], [TRAIN, TRAIN2], [TRAIN2, TRAIN3], [TRAIN3, TRAIN4]]
    assert val_artists(rows) == {VAL, TRAIN, TRAIN2, TRAIN3, TRAIN4}


def test_rows_that_are_dropped_still_carry_val_on(root: Path) -> None:
    rows = [*MTG, ("10099", "-", "0", f"{TRAIN3},{VAL}")]  # no key, but it binds TRAIN3 to VAL
    write_mtg(mtg(root), rows)
    assert set(tracks(root, "val")) == {"10091", "10094", "10097"}


def test_no_artist_has_tracks_in_train_and_in_val(root: Path) -> None:
    rows = [
        (str(20000 + n), "C major", "2", f"{artist('train', n)}, {artist('val', n % 2)}")
        for n in range(4)
    ]
    rows += [(str(30000 + n), "C major", "2", artist("train", n)) for n in range(8)]
    write_mtg(mtg(root), rows)
    names = {name: set(artists.split(", ")) for name, _, _, artists in rows}
    train, val = (
        set().union(*(names[name] for name in tracks(root, split))) for split in ("train", "val")
    )
    assert train
    assert val
    assert not train & val


# -- what is missing or broken ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["giantsteps-key-dataset", "giantsteps-mtg-key-dataset"])
def test_a_missing_or_a_second_repository_is_counted(root: Path, name: str) -> None:
    (root / f"{name}-0000000").mkdir()
    with pytest.raises(UserError, match=rf"must hold one folder {name}\[-<commit>\], found 2"):
        tracks(root)
    (root / f"{name}-0000000").rmdir()
    next(root.glob(f"{name}-*")).rename(root / "elsewhere")
    with pytest.raises(
        UserError, match=rf"must hold one folder {name}\[-<commit>\], found 0: unpack"
    ):
        tracks(root)


def test_folders_without_a_commit_in_their_name_are_read_too(root: Path) -> None:
    before = tracks(root)
    mtg(root).rename(root / "giantsteps-mtg-key-dataset")
    assert tracks(root) == before


@pytest.mark.parametrize("table", ["annotations.txt", "beatport_metadata.txt"])
def test_a_missing_table_is_named(root: Path, table: str) -> None:
    (mtg(root) / "annotations" / table).unlink()
    with pytest.raises(
        UserError, match=rf"no GiantSteps MTG labels: .*annotations has no {table}\. Unpack"
    ):
        tracks(root)


def test_a_bad_key_of_the_test_set_names_the_file_and_the_key(root: Path) -> None:
    (root / "giantsteps-key-dataset-6bcd492/annotations/key/1224698.LOFI.key").write_text("D maj\n")
    with pytest.raises(
        UserError,
        match=r"1224698\.LOFI\.key has the key 'D maj': expected one tonic and major or minor",
    ):
        tracks(root)


def test_a_bad_key_of_the_mtg_set_names_the_file_and_the_key(root: Path) -> None:
    write_mtg(mtg(root), [*MTG, ("10099", "A-A# minor", "2", TRAIN)])
    message = (
        r"1 of 11 rows of .*annotations\.txt cannot be used \(first: line 12 has the key "
        r"'A-A# minor', expected one tonic and major or minor\): unpack"
    )
    with pytest.raises(UserError, match=message):
        tracks(root)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("annotations.txt", "ID,MANUAL KEY,C\n10089,C major,2\n"),  # saved again with commas
        ("annotations.txt", "ID\tMANUAL KEY\tC\n10089\tC major\n"),  # a row that breaks off
        ("annotations.txt", ""),
        ("beatport_metadata.txt", "ID\tTITLE\n10089\tSong\n"),
        ("beatport_metadata.txt", f"{HEADER}10089\n"),
    ],
)
def test_a_table_that_lacks_columns_is_named(root: Path, table: str, text: str) -> None:
    (mtg(root) / "annotations" / table).write_text(text)
    with pytest.raises(UserError, match=r"annotations|metadata|tracks for"):
        tracks(root)


def test_missing_mp3s_are_counted_over_both_sets(root: Path) -> None:
    (mtg(root) / "audio/10097.LOFI.mp3").unlink()
    (root / "giantsteps-key-dataset-6bcd492/audio/1442809.LOFI.mp3").unlink()
    with pytest.raises(
        UserError,
        match=r"2 of 7 giantsteps tracks have no audio "
        r".*data\.exclude=\[giantsteps:10097,giantsteps:1442809\]",
    ):
        tracks(root)


def test_a_key_file_that_is_no_text_is_named(root: Path) -> None:
    path = next(root.glob("giantsteps-key-dataset*/annotations/key/*.key"))
    path.write_bytes("D\u00e9 major".encode("latin-1"))
    with pytest.raises(UserError, match=rf"{path.name} is not UTF-8 text .*unpack the repository"):
        tracks(root)
    path.write_text("C major " * 10_000)
    with pytest.raises(UserError, match="has the key") as error:
        tracks(root)
    assert len(str(error.value)) < 400
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=rf"cannot read .*{path.name} \(Is a directory\)"):
        tracks(root)
