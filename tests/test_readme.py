"""What the README promises can be pasted."""

import re
from pathlib import Path

import pytest

from mirprobe.settings import compose_cells

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
DEVIATIONS = README.partition("### Deviations")[2].partition("\n## ")[0]
ITEMS = [" ".join(item.split()) for item in re.split(r"^- ", DEVIATIONS, flags=re.MULTILINE)[1:]]


def settings_of(item: str) -> list[str]:
    return [text for text in re.findall(r"`([^`]+)`", item) if "=" in text]


def test_there_is_a_list_of_deviations() -> None:
    assert len(ITEMS) > 15


@pytest.mark.parametrize("item", ITEMS)
def test_every_deviation_has_a_setting_or_says_that_there_is_none(item: str) -> None:
    assert settings_of(item) or "(no setting" in item


@pytest.mark.parametrize("item", [item for item in ITEMS if settings_of(item)])
def test_every_setting_that_undoes_a_deviation_exists_and_changes_the_cell(item: str) -> None:
    for text in settings_of(item):
        overrides = text.split()
        task = [word for word in overrides if word.startswith(("task=", "model="))]
        usual = {cell.hash for cell in compose_cells([*task, "baseline=null"])}
        changed = {cell.hash for cell in compose_cells([*overrides, "baseline=null"])}
        assert changed - usual, text
