"""What feature stores there are, who uses them, and their end: the verb `features`.

Conventions: a store is a folder directly below `paths.features` that holds shards or a description.
Nothing is computed and no feature is read: sizes are those of files, clips are counted as the
shards announce them. Links are shown and never followed. A store that is deleted gets a hidden name
first, so that it is either whole or gone; what a kill leaves of it goes at the next call.
"""

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import UserError, nearest, printable
from datamodules.features.shards import PATTERN, count_clips
from datamodules.features.store import DESCRIPTION, LOCK, StoreId, parse_store_id
from datamodules.files import lock
from mirprobe.cell import STORE
from mirprobe.results import FILE

_DELETED = ".deleted"  # ending of what is about to go
_SHORTEST = 4  # digits of a hash that are taken for one
_MOST_BYTES = 10**5  # of a description


@dataclass(frozen=True)
class UsedStore:
    """A store and what is known of it.

    Attributes:
        folder: of it.
        id: what identifies its features; None where its description is broken.
        problems: what is wrong with it.
        n_bytes: of its files.
        n_shards: of it.
        n_clips: in the shards that can be read; a clip that two runs have stored counts twice.
        notes: of the cells that name the store.
        used_s: when it was last written, or named or probed by a cell, in s since 1970.
    """

    folder: Path
    id: StoreId | None
    problems: tuple[str, ...]
    n_bytes: int
    n_shards: int
    n_clips: int
    notes: tuple[Path, ...]
    used_s: float

    @property
    def cells(self) -> list[str]:
        """Those that use it: `<model>/<task>/<protocol>-s<seed>-<hash>`."""
        return ["/".join(note.parent.parts[-3:]) for note in self.notes]


def find_stores(features: Path, runs: Path) -> list[UsedStore]:
    """All stores, by name.

    Args:
        features: folder of all stores.
        runs: folder of all results, whose cells are looked at.
    """
    notes = _notes_by_store(runs)
    return [_look_at(folder, notes) for folder in _folders(features)]


def list_lines(features: Path, runs: Path) -> Iterator[str]:
    """Some lines for each store, and one for each note of a cell that names none."""
    stores = find_stores(features, runs)
    for store in stores:
        yield from store_lines(store)
    for note in _broken_notes(runs):
        yield f"{note} does not name a feature store: run `mirprobe extract` for its cell again"

    n_bytes = sum(store.n_bytes for store in stores)
    yield f"{len(stores)} stores below {features}, {_size(n_bytes)}"


def store_lines(store: UsedStore) -> Iterator[str]:
    """What there is to say of a store; the first line is its name."""
    yield store.folder.name
    if store.id is not None:
        id = store.id
        yield (
            f"  {id.backbone} (weights {id.fingerprint}) over {id.dataset}; clips {id.clip_rule}, "
            f"pooling {id.pooling}, resampler {id.resampler}, precision {id.precision}"
        )
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used_s))
    shards = f"{store.n_shards} shard{'' if store.n_shards == 1 else 's'}"
    yield f"  {_size(store.n_bytes)}: {store.n_clips} clips in {shards}; last use {used}"
    yield f"  used by {', '.join(store.cells) or 'no cell'}"
    for problem in store.problems:
        yield f"  {problem}"


def choose_store(name: str, features: Path, runs: Path) -> UsedStore:
    """The store of that name, or whose hash begins with it.

    Raises:
        UserError: there is none, or there are several; or it is a link.
    """
    stores = find_stores(features, runs)
    found = [store for store in stores if store.folder.name == name]
    if not found and len(name) >= _SHORTEST:
        found = [store for store in stores if _hash_of(store).startswith(name)]

    names = [store.folder.name for store in stores]
    if not found:
        known = f"{', '.join(names) or 'none'}{nearest(name, names)}"
        raise UserError(f"no store {name!r} below {features}. There are: {known}")
    if len(found) > 1:
        several = ", ".join(store.folder.name for store in found)
        raise UserError(f"{name!r} is more than one store: give one of {several}")
    if found[0].folder.is_symlink():
        raise UserError(
            f"{found[0].folder} is a link, to {found[0].folder.readlink()}: nothing outside "
            f"{features} is deleted. Delete the link and what it leads to by hand"
        )
    return found[0]


def loss_lines(store: UsedStore) -> Iterator[str]:
    """What is lost with a store."""
    yield f"{store.folder.name}: {store.n_clips} clips, {_size(store.n_bytes)}"
    if not store.cells:
        yield "no cell uses it"
        return
    yield (
        f"{len(store.cells)} cells have to be extracted again before they are probed again (their "
        "results stay):"
    )
    yield from (f"  {cell}" for cell in store.cells)


def delete_store(store: UsedStore, say: Callable[[str], None]) -> None:
    """Deletes a store, and the notes of the cells that say that their features are there.

    Args:
        store: to delete.
        say: is given a line when it is gone.

    Raises:
        UserError: a writer is at work in it.
        OSError: its folder, or a file in it, cannot be removed.
    """
    doomed = store.folder.with_name(f".{store.folder.name}.{uuid.uuid4().hex[:8]}{_DELETED}")
    with lock(store.folder / LOCK, wait=False):
        # From here on it is gone for everybody, whatever becomes of this process.
        store.folder.rename(doomed)

    for note in store.notes:
        note.unlink(missing_ok=True)
    _remove(doomed)
    say(f"deleted {store.folder.name}: {_size(store.n_bytes)} are free again")


def remove_leftovers(features: Path, say: Callable[[str], None]) -> None:
    """Finishes deletions that were interrupted, and says so."""
    for path in sorted(features.glob(f".*{_DELETED}")):
        if path.is_dir() and not path.is_symlink():
            _remove(path)
            say(f"removed what an interrupted deletion had left: {path.name}")


def _remove(folder: Path) -> None:
    """Deletes a folder with all it holds, of links only themselves."""

    def check(_function: object, _path: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):  # another process may be as quick
            raise error

    # `onerror`, which gives three things of an error, is all that Python 3.11 knows.
    shutil.rmtree(folder, onerror=lambda function, path, error: check(function, path, error[1]))


def _folders(features: Path) -> list[Path]:
    """Folders that are stores, or were meant to be; hidden ones are not."""
    if not features.is_dir():
        return []
    folders = [path for path in features.iterdir() if path.is_dir() and path.name[0] != "."]
    return sorted(folder for folder in folders if _is_store(folder))


def _is_store(folder: Path) -> bool:
    return (folder / DESCRIPTION).exists() or any(folder.glob(PATTERN))


def _look_at(folder: Path, notes: Mapping[str, Sequence[Path]]) -> UsedStore:
    id, problems = _identify(folder)
    shards = sorted(folder.glob(PATTERN))
    n_clips = 0
    for shard in shards:
        try:
            n_clips += count_clips(shard)
        except UserError as error:
            problems.append(str(error))

    if folder.is_symlink():
        problems.append(f"is a link, to {folder.readlink()}")
    files = [entry.stat(follow_symlinks=False) for entry in os.scandir(folder)]
    of_cells = tuple(notes.get(folder.name, ()))
    times = [status.st_mtime for status in files] + [_used_s(note) for note in of_cells]
    return UsedStore(
        folder=folder,
        id=id,
        problems=tuple(problems),
        n_bytes=sum(status.st_size for status in files),
        n_shards=len(shards),
        n_clips=n_clips,
        notes=of_cells,
        used_s=max(times),
    )


def _identify(folder: Path) -> tuple[StoreId | None, list[str]]:
    """What a store's description says, and what is wrong with that."""
    path = folder / DESCRIPTION
    remedy = "no cell can read this store as it is; delete it, or put the file back"
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is missing" if not path.exists() else "it is no such file")
        id = parse_store_id(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, [f"{path} does not describe a store ({error}): {remedy}"]
    if id.folder != folder.name:
        return id, [f"is found by no cell under this name: rename it to {id.folder}"]
    return id, []


def _hash_of(store: UsedStore) -> str:
    return store.folder.name.rpartition("-")[2]


def _notes(runs: Path) -> list[tuple[Path, StoreId | None]]:
    """The files in which cells name their store, and what they say; None where it is broken."""
    found: list[tuple[Path, StoreId | None]] = []
    for note in sorted(runs.glob(f"*/*/*/{STORE}")):
        try:
            found.append((note, parse_store_id(note.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            found.append((note, None))
    return found


def _notes_by_store(runs: Path) -> dict[str, list[Path]]:
    by_store: dict[str, list[Path]] = {}
    for note, id in _notes(runs):
        if id is not None:
            by_store.setdefault(id.folder, []).append(note)
    return by_store


def _broken_notes(runs: Path) -> list[Path]:
    return [note for note, id in _notes(runs) if id is None]


def _used_s(note: Path) -> float:
    """When a cell was last extracted or probed: each run that finds its features writes its note
    anew.
    """
    rows = note.parent.glob(f"*/{FILE}")
    return max(path.stat().st_mtime for path in (note, *rows))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.2f} MB"


def confirm(question: str) -> bool:
    """Asks on a terminal; only `yes` is a yes."""
    try:
        return input(f"{printable(question)} Type yes to go on: ").strip().lower() == "yes"
    except EOFError:
        return False
