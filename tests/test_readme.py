"""What the README promises can be pasted."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

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


@pytest.mark.trial  # of CI, which runs it
def test_the_script_of_python_runs_offline_on_fcpe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for variable in ("MIRPROBE_DATA", "MIRPROBE_CACHE", "MIRPROBE_RUNS"):
        monkeypatch.delenv(variable, raising=False)

    (tmp_path / "audio").mkdir()
    for artist in range(10):
        for label, pitch in (("low", 200), ("high", 900)):
            tone = np.sin(2 * np.pi * (pitch + 7 * artist) * np.arange(4000) / 16000) / 3
            soundfile.write(tmp_path / "audio" / f"{label}_artist{artist}.wav", tone, 16000)

    names: dict[str, object] = {}
    exec(compile(script, "README.md", "exec"), names)
    assert (names["states"].shape[0], names["everything"].shape) == (7, (7, 20, 512))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(names["layer_3"], names["everything"][3])  # type: ignore[index]
    assert "layer" in str(names["curve"]) and (tmp_path / "curve.png").is_file()
    assert "fcpe   manifest  accuracy" in capsys.readouterr().out
