"""Builds the offline demo corpus: small, labelled exactly, and laid out like the real datasets.

Conventions: a data root holds one folder per recipe and scale, and in it one folder per dataset,
which is what a datamodule takes as its root. `demo.json` in it says that the dataset is complete,
and that it is a demo. Whatever is killed when, the next build goes on with the files that are
missing. Numbers made from this corpus are demo numbers, wherever they appear.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.demo import (
    emomusic,
    giantsteps,
    gtzan,
    harmonix,
    magnatagatune,
    musictaste,
    nsynth,
    vocalset,
)
from datamodules.demo.recipe import RECIPE_VERSION, Item, Recipe
from datamodules.demo.sound.soundfont import packaged_font
from datamodules.demo.workers import write_items
from datamodules.errors import UserError
from datamodules.files import is_disk_full, lock, remove_temporary, write_text
from datamodules.tracks import MARKER

_LOCK = ".build.lock"


@dataclass(frozen=True)
class _Dataset:
    folder: str
    recipe: Callable[[float], Recipe]


_DATASETS: Mapping[str, _Dataset] = {
    "nsynth": _Dataset(nsynth.FOLDER, nsynth.recipe),
    "giantsteps": _Dataset(giantsteps.FOLDER, giantsteps.recipe),
    "gtzan": _Dataset(gtzan.FOLDER, gtzan.recipe),
    "emomusic": _Dataset(emomusic.FOLDER, emomusic.recipe),
    "magnatagatune": _Dataset(magnatagatune.FOLDER, magnatagatune.recipe),
    "vocalset": _Dataset(vocalset.FOLDER, vocalset.recipe),
    "musictaste": _Dataset(musictaste.FOLDER, musictaste.recipe),
    "harmonix": _Dataset(harmonix.FOLDER, harmonix.recipe),
}
DATASETS: tuple[str, ...] = tuple(_DATASETS)


def dataset_root(root: Path, dataset: str) -> Path:
    """Folder of one dataset under a demo root: what its datamodule takes as root.

    >>> dataset_root(Path("demo"), "giantsteps").as_posix()
    'demo/GS'
    """
    return root / _dataset(dataset).folder


def is_built(root: Path, dataset: str, scale: float) -> bool:
    """Whether the marker says that this dataset is complete at `scale` under this recipe.

    Single files are not looked at.
    """
    try:
        marker = json.loads((dataset_root(root, dataset) / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(marker == _marker(scale, _dataset(dataset).recipe(scale).items))


def build(
    root: Path,
    dataset: str,
    *,
    scale: float = 1.0,
    n_jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Renders what is missing of one dataset, then writes its labels and last its marker.

    Args:
        root: what `demo_root` gives.
        dataset: one of `DATASETS`.
        scale: multiplies the number of items of each class; a larger corpus contains the smaller
            one.
        n_jobs: processes that render.
        progress: called in this process with the number of audio files that are there and the
            number wanted.

    Raises:
        UserError: an unknown dataset, no scale or jobs above 0, no SoundFont, or a folder that
            cannot be written.
    """
    if not 0 < scale < float("inf") or n_jobs < 1:
        raise UserError(
            "the demo corpus needs a scale and a number of jobs above 0, "
            f"found scale={scale:g} n_jobs={n_jobs}"
        )
    folder = dataset_root(root, dataset)
    recipe = _dataset(dataset).recipe(scale)
    marker = json.dumps(_marker(scale, recipe.items))

    try:
        folder.mkdir(parents=True, exist_ok=True)

        # Workers of a killed build hold on to the lock until they have ended. Where the file system
        # has none, nobody may build twice at once.
        with lock(folder / _LOCK, wait=True):
            _render(folder, recipe.items, n_jobs, progress)
            _write_labels(folder, recipe.labels(folder), marker)
    except OSError as error:
        reason = "no space left" if is_disk_full(error) else error.strerror or str(error)
        raise UserError(
            f"cannot write the demo corpus to {folder} ({reason}): "
            "make room there or set another data root"
        ) from error


def _dataset(name: str) -> _Dataset:
    if name not in _DATASETS:
        raise UserError(f"no demo corpus for {name!r}: there is one for {', '.join(DATASETS)}")
    return _DATASETS[name]


def _marker(scale: float, items: Sequence[Item]) -> dict[str, float]:
    return {"recipe_version": RECIPE_VERSION, "scale": scale, "n_files": len(items)}


def _render(
    folder: Path, items: Sequence[Item], n_jobs: int, progress: Callable[[int, int], None] | None
) -> None:
    """Writes the audio files that are not there yet."""
    for parent in {(folder / item.path).parent for item in items}:
        parent.mkdir(parents=True, exist_ok=True)
        remove_temporary(parent)

    missing = [item for item in items if not (folder / item.path).exists()]
    n_done = len(items) - len(missing)

    def report(n_new: int) -> None:
        nonlocal n_done
        n_done += n_new
        if progress is not None:
            progress(n_done, len(items))

    report(0)
    if missing:
        # Until the labels are written again, nothing says that the dataset is complete.
        (folder / MARKER).unlink(missing_ok=True)
        packaged_font()  # read before the workers fork, so that they share it
        write_items(folder, missing, n_jobs, lambda: report(1))


def _write_labels(folder: Path, labels: Mapping[str, str], marker: str) -> None:
    """Writes each text that is not there already, and the marker last."""
    for parent in {folder, *((folder / path).parent for path in labels)}:
        parent.mkdir(parents=True, exist_ok=True)
        remove_temporary(parent)

    changed = {path: text for path, text in labels.items() if not _holds(folder / path, text)}
    if changed:
        (folder / MARKER).unlink(missing_ok=True)
    for path, text in changed.items():
        write_text(folder / path, text)

    if not _holds(folder / MARKER, marker):
        write_text(folder / MARKER, marker)


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() == text.encode()
