"""A description of a store that is damaged in any way is one line, and the remedy works."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from datamodules.errors import UserError
from datamodules.features.store import FeatureStore, StoreId, parse_store_id

ID = StoreId("fcpe", "0a1b2c", "toy", "1s", "mean", "soxr-HQ", "float32")
DAMAGE = [
    b"",
    b"\x00" * 100,
    b"\xff\xfe{\x00",
    b"{",
    b'{"backbone": "fbank',
    b"[]",
    b"7",
    b"null",
    b'"text"',
    b"NaN",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"9" * 5000,
    b"{}{}",
    b"\xef\xbb\xbf{}",
]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path, ID)
    store.folder.mkdir()
    return store


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: repr(damage[:12]))
def test_damage_is_one_line_and_the_remedy_works(store: FeatureStore, damage: bytes) -> None:
    """Shards say themselves whose they are: only the description has to go."""
    path = store.folder / "store.json"
    path.write_bytes(damage)
    with pytest.raises(UserError) as caught:
        store.prepare()
    text = f"{path} is not a description of a feature store: delete this file and run the same "
    assert str(caught.value) == f"{text}command again"

    path.unlink()
    store.prepare()
    assert parse_store_id(path.read_text()) == ID


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: repr(damage[:12]))
def test_an_id_that_is_damaged_is_a_value_error(damage: bytes) -> None:
    """Which whoever has read the file says with its name."""
    with pytest.raises(ValueError, match=r"."):
        parse_store_id(damage.decode(errors="replace"))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fingerprint": "other"}, "fingerprint is 'other', wanted '0a1b2c'"),
        ({"fingerprint": None}, "fingerprint is None"),
        ({"fingerprint": ["x"] * 3}, "fingerprint is ['x', 'x', 'x']"),
        ({"dataset": "a\nb"}, r"dataset is 'a\nb'"),
        ({"colour": "red"}, "it has fields of another version"),
    ],
)
def test_another_configuration_is_named(
    store: FeatureStore, changes: dict[str, object], what: str
) -> None:
    path = store.folder / "store.json"
    path.write_text(json.dumps(asdict(ID) | changes))
    with pytest.raises(UserError) as caught:
        store.prepare()
    assert f"another configuration ({what}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_its_place_is_named(store: FeatureStore) -> None:
    (store.folder / "store.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*store\.json \(Is a directory\): move it"):
        store.prepare()
