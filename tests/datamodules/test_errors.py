"""Errors that build their text: they arrive whole from another process."""

import pickle
from pathlib import Path

import pytest

from datamodules.errors import BrokenLabelsError, MissingFilesError, UserError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            MissingFilesError("GTZAN audio", Path("/data"), "genres folder", "Unpack it there"),
            "no GTZAN audio: /data has no genres folder. Unpack it there",
        ),
        (
            BrokenLabelsError(Path("keys.txt"), "has the key 'H'", "expected C to B", line=3),
            "line 3 of keys.txt has the key 'H': expected C to B",
        ),
        (
            BrokenLabelsError(Path("keys.txt"), "is empty", "download it again"),
            "keys.txt is empty: download it again",
        ),
    ],
)
def test_errors_say_what_was_wrong_and_what_to_do_also_when_they_are_sent(
    error: UserError, text: str
) -> None:
    for received in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(received, UserError)
        assert str(received) == text
        assert vars(received) == vars(error)
