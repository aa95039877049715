"""Toy data for the whole suite: sine notes in NSynth's layout, and settings that keep everything in
a temporary folder.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

torch.set_num_threads(1)  # toy sizes: more threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # the same for the processes that tests start

RATE = 16000
SECONDS = 0.25
PITCHES = range(48, 72, 3)
PARTIALS = {
    0: (1.0,),
    1: (1.0, 0.0, 0.6),
    3: (1.0, 0.7, 0.5, 0.4),
}  # family -> strengths of the partials


def write_notes(root: Path, *, per_pitch: dict[str, int]) -> Path:
    """A tiny NSynth: three families that differ in their partials, eight pitches, `per_pitch` notes
    of each and split; no two have the same content.
    """
    for number, (split, repeats) in enumerate(per_pitch.items()):
        folder = root / "NSynth" / f"nsynth-{split}"
        (folder / "audio").mkdir(parents=True)
        examples = {}
        for family, partials in PARTIALS.items():
            for pitch in PITCHES:
                for velocity in range(repeats):
                    name = f"{split}{family}_synthetic_{family:03d}-{pitch:03d}-{velocity:03d}"
                    soundfile.write(
                        folder / "audio" / f"{name}.wav",
                        _note(pitch, partials, 1000 * number + len(examples)),
                        RATE,
                    )
                    examples[name] = {
                        "note_str": name,
                        "pitch": pitch,
                        "velocity": velocity,
                        "instrument_family": family,
                    }
        (folder / "examples.json").write_text(json.dumps(examples))
    return root


def _note(pitch: int, partials: tuple[float, ...], seed: tuple[int, int]) -> np.ndarray:
    time = np.arange(round(RATE * SECONDS)) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    tone = sum(
        strength * np.sin(2 * np.pi * k * frequency * time)
        for k, strength in enumerate(partials, start=1)
    )
    return 0.2 * tone + 0.01 * np.random.default_rng(seed).standard_normal(len(time))


@pytest.fixture(scope="session")
def notes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root with 72 notes: 48 train, 24 val... in NSynth's layout."""
    return write_notes(
        tmp_path_factory.mktemp("data"), per_pitch={"train": 2, "valid": 1, "test": 1}
    )


@pytest.fixture
def settings(tmp_path: Path, notes_root: Path) -> Callable[..., list[str]]:
    """Hydra overrides that read the tiny notes and write below `tmp_path`; more can be given."""

    def make(*more: str, out: Path = tmp_path) -> list[str]:
        paths = [f"paths.{name}={out / name}" for name in ("data", "features", "runs")]
        quick = [
            "protocol.hidden=32",
            "protocol.max_epochs=4",
            "extract.n_workers=0",
            "launcher.accelerator=cpu",
            "logger=none",
            "similarity.inputs=[]",  # 5 s of every sweep; its own tests ask for it
        ]
        return [f"data.root={notes_root}", *paths, *quick, *more]

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that the processes of the suite end together."""
    items.sort(
        key=lambda item: item.path.name not in ("test_run.py", "test_extract.py", "test_build.py")
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of bad input where its cases were run."""
    from bad_input.table import table_lines

    stats = terminalreporter.stats
    for line in table_lines([*stats.get("passed", ()), *stats.get("failed", ())]):
        terminalreporter.write_line(line)
