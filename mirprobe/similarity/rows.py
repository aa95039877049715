"""Rows of similarity: one number of one layer, with what it takes to read it.

Conventions: the rows of a model are one file, `similarity.jsonl`, in a folder that is named by the
moments that they were made of: `runs/<model>/similarity/<hash>`. They are written at once, when all
is computed. Without torch, since reports are made of them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from datamodules.errors import UserError
from datamodules.files import write_text
from mirprobe.cell import MOMENTS, Cell

FILE = "similarity.jsonl"
KIND = "similarity"

# Of an input and a layer. `null` is PWCCA of unrelated views with the same frames, `within` that of
# frames about the mean of their track.
PAIR_MEASURES = (
    "pwcca",
    "held_out",
    "null",
    "within",
    "pwcca_squared",
    "mean_cca",
    "held_out_mean_cca",
    "svcca",
    "cka",
    "debiased_cka",
    "procrustes",
    "r2",
)
# Of a layer alone; curvature is in degrees, entropy in nats.
LAYER_MEASURES = (
    "effective_rank",
    "entropy",
    "isotropy",
    "curvature",
    "participation_ratio",
    "top_share",
    "mean_cosine",
)


@dataclass(frozen=True)
class SimilarityRow:
    """One number.

    Attributes:
        kind: `similarity`.
        model: backbone, such as `musicfm`.
        datasets: whose tracks were counted, joined by `+`.
        measure: one of `PAIR_MEASURES` or `LAYER_MEASURES`.
        input: what the layer is held against: an input, another layer (`h03`), or None for a
            measure of the layer alone.
        layer: 0 is the input of the first block.
        value: the number; None where there is none.
        failed: why there is none.
        n_tracks: tracks, or songs of several tracks.
        n_frames: frames that were counted.
        n_effective: independent frames that would give unrelated views as much similarity as the
            null shows; None where there is no null.
        rank_input: directions of the input.
        rank_layer: directions of the layer.
        warning: what to beware of; None where nothing is known.
        weights_of: the view whose neurons weigh PWCCA.
        demo: whether a dataset is the rendered stand-in.
        weights: fingerprint of the backbone.
        made_of: hash of the moments.
        versions: software.
    """

    kind: str
    model: str
    datasets: str
    measure: str
    input: str | None
    layer: int
    value: float | None
    failed: str | None
    n_tracks: int
    n_frames: int
    n_effective: float | None
    rank_input: int | None
    rank_layer: int | None
    warning: str | None
    weights_of: str
    demo: bool
    weights: str
    made_of: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if self.kind != KIND or self.measure not in (*PAIR_MEASURES, *LAYER_MEASURES):
            raise ValueError(f"unknown kind or measure: {self.kind} {self.measure}")
        if (self.value is None) != (self.failed is not None):
            raise ValueError("a row has either a value or a reason why it has none")


@dataclass(frozen=True)
class MomentsNote:
    """Where the moments of a cell's dataset lie; a file of the cell.

    Attributes:
        dataset: whose tracks were counted.
        store: folder of the feature store, below `paths.features`.
        store_hash: of the store.
        weights: fingerprint of the backbone.
        moments: their folder, in the store's.
    """

    dataset: str
    store: str
    store_hash: str
    weights: str
    moments: str


@dataclass(frozen=True)
class Source:
    """The moments that the rows of a model are made of.

    Attributes:
        cells: of the model.
        notes: of each dataset.
    """

    cells: tuple[Cell, ...]
    notes: tuple[MomentsNote, ...]

    @property
    def folders(self) -> list[Path]:
        """Of the moments of each dataset."""
        features = Path(self.cells[0].paths.features)
        return [features / note.store / note.moments for note in self.notes]

    @property
    def hash(self) -> str:
        """8 hex digits over the moments and the settings that make rows of them."""
        made_of = [[note.moments, note.store_hash] for note in self.notes]
        text = json.dumps([made_of, self.cells[0].similarity.weights])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def path(self) -> Path:
        """Of the rows."""
        cell = self.cells[0]
        return Path(cell.paths.runs) / cell.model_name / KIND / self.hash / FILE


def sources_of(cells: Sequence[Cell]) -> list[Source]:
    """The moments that extraction has left for each model of some cells, a dataset once.

    Raises:
        UserError: a cell's note of its moments cannot be read.
    """
    models: dict[str, list[Cell]] = {}
    for cell in cells:
        if (cell.folder / MOMENTS).is_file():
            key = json.dumps([cell.model_name, cell.model], sort_keys=True)
            models.setdefault(key, []).append(cell)

    sources = []
    for of_model in models.values():
        found: dict[str, MomentsNote] = {}
        for cell in of_model:
            note = _read_note(cell)
            found.setdefault(note.dataset, note)
        sources.append(Source(tuple(of_model), tuple(found[name] for name in sorted(found))))
    return sources


def write_note(cell: Cell, note: MomentsNote) -> None:
    """Leaves in a cell's folder where its moments lie."""
    write_text(cell.folder / MOMENTS, json.dumps(asdict(note), indent=1) + "\n")


def _read_note(cell: Cell) -> MomentsNote:
    path = cell.folder / MOMENTS
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if not all(
            isinstance(value, str) and value == Path(value).name for value in entry.values()
        ):
            raise ValueError("expected names")
        return MomentsNote(**entry)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} does not name moments ({' '.join(str(error).split())}): delete it and run "
            "`mirprobe similarity` with the same settings"
        ) from error


def write_similarity(path: Path, rows: Iterable[SimilarityRow]) -> None:
    """Writes all rows of a model, atomically."""
    lines = (json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows)
    write_text(path, "".join(lines))


def read_similarity(path: Path) -> list[SimilarityRow]:
    """The rows of a model; none where they are not computed yet.

    Raises:
        UserError: the file is broken or of another version.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [_parse(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a list of similarity rows ({reason}): delete it and run `mirprobe "
            "similarity` with the same settings"
        ) from error


def _parse(entry: Mapping[str, object]) -> SimilarityRow:
    known = {field.name for field in fields(SimilarityRow)}
    if not isinstance(entry, dict) or set(entry) != known:
        raise ValueError("it is of another version")
    return SimilarityRow(**entry)
