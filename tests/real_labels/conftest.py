"""Real labels are tried where their files are."""

import pytest
from real_labels.reading import FOLDER


@pytest.fixture(scope="session", autouse=True)
def labels_are_here() -> None:
    """Skips where the folder of real labels is absent."""
    if not FOLDER.is_dir():
        pytest.skip(
            f"no real labels: {FOLDER} is not a folder (the files are not part of the repository; "
            "MIRPROBE_REAL_LABELS names another place)"
        )
