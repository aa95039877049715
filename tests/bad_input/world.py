"""A small world to spoil: data of two kinds, features and results of a finished sweep, settings.

Conventions: everything lies under one folder, whose files are put back before each case with their
times of change, so that what was computed stays current. `damage` functions take that folder.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from conftest import RATE, write_notes

from mirprobe.settings import conf_dir

Damage = Callable[[Path], object]
NOTES = "data/NSynth"
TRAIN = f"{NOTES}/nsynth-train"
LABELS = f"{TRAIN}/examples.json"
AUDIO = f"{TRAIN}/audio/train0_synthetic_000-048-000.wav"
OWN = "own/my.csv"

QUICK = (
    *("protocol.hidden=8", "protocol.max_epochs=1", "extract.n_workers=0"),
    *("launcher.accelerator=cpu", "model=fbank_chroma", "baseline=null", "logger=none"),
)
MAY_CHANGE = (".lock", ".jsonl.tmp", "known/", "/stamp-", "report/", "wandb/cache", "wandb/.lock")


def settings(world: Path) -> list[str]:
    """Settings that keep everything in the world; those of a case come after, and win."""
    paths = [f"paths.{name}={world}/{name}" for name in ("features", "runs")]
    return [f"data.root={world}/data", f"paths.data={world}/demo", *paths, "task=nsynth_pitch"]


def build_world(world: Path) -> None:
    """Writes data, an own table and a copy of `conf`; the sweep is the caller's."""
    write_notes(world / "data", per_pitch={"train": 1, "valid": 1, "test": 1})
    shutil.copytree(conf_dir(), world / "conf")

    (world / "own").mkdir()
    lines = ["path,label,split"]
    for number in range(12):
        split = ("train", "train", "val", "test")[number % 4]
        name = f"{split}{number:02d}.wav"
        noise = np.random.default_rng(number).standard_normal(RATE // 4)
        soundfile.write(world / "own" / name, 0.1 * noise, RATE)
        lines.append(f"{name},{'ab'[number // 4 % 2]},{split}")
    (world / OWN).write_text("\n".join(lines) + "\n")
    for path in world.rglob("*"):  # older than the grain of a clock: what was read is remembered
        os.utime(path, (1e9, 1e9))


def restore(pristine: Path, world: Path) -> None:
    """Puts back every file of the world, with its times."""
    shutil.rmtree(world, ignore_errors=True)
    shutil.copytree(pristine, world, symlinks=True)


def contents(world: Path) -> dict[str, str]:
    """Digests of all files that a command must not lose, by their place in the world."""
    found = {}
    for path in world.rglob("*"):
        name = path.relative_to(world).as_posix()
        if path.is_file() and not any(part in f"/{name}" for part in MAY_CHANGE):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# -- damages ---------------------------------------------------------------------------------------


def write(name: str, content: str | bytes) -> Damage:
    """Replaces a file, or all that a pattern names; a new file where there is none."""

    def damage(world: Path) -> None:
        for path in _named(world, name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def change(name: str, old: str, new: str, count: int = 1) -> Damage:
    """Replaces text in a file; it must be there."""

    def damage(world: Path) -> None:
        for path in _named(world, name):
            text = path.read_text()
            assert old in text, f"{path} has no {old!r}"
            path.write_text(text.replace(old, new, count))

    return damage


def cut(name: str, part: float) -> Damage:
    """Keeps the first part of a file."""

    def damage(world: Path) -> None:
        for path in _named(world, name):
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * part)])

    return damage


def remove(name: str) -> Damage:
    """Deletes a file, or all that a pattern names."""

    def damage(world: Path) -> None:
        for path in _named(world, name):
            path.unlink()

    return damage


def folder_instead(name: str) -> Damage:
    """Puts a folder where a file is meant."""

    def damage(world: Path) -> None:
        for path in _named(world, name):
            path.unlink(missing_ok=True)
            path.mkdir(parents=True)

    return damage


def file_instead(name: str) -> Damage:
    """Puts a file where a folder is meant."""

    def damage(world: Path) -> None:
        for path in _named(world, name):
            shutil.rmtree(path, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("no folder")

    return damage


def both(*damages: Damage) -> Damage:
    """One damage after the other."""

    def damage(world: Path) -> None:
        for one in damages:
            one(world)

    return damage


def _named(world: Path, name: str) -> list[Path]:
    if "*" not in name:
        return [world / name]
    found = sorted(world.glob(name))
    assert found, f"nothing is called {name}"
    return found
