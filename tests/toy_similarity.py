"""Rows of similarity made by hand, beside a cell: tests of reporting share them."""

from collections.abc import Sequence

from mirprobe.cell import Cell
from mirprobe.similarity.rows import (
    KIND,
    MomentsNote,
    SimilarityRow,
    sources_of,
    write_note,
    write_similarity,
)


def similarity_row(
    measure: str, layer: int, value: float | None, given: str | None = None, **changes: object
) -> SimilarityRow:
    fields: dict[str, object] = {
        "kind": KIND,
        "model": "fcpe",
        "datasets": "nsynth-demo",
        "measure": measure,
        "input": given,
        "layer": layer,
        "value": value,
        "failed": None if value is not None else "not defined here",
        "n_tracks": 60,
        "n_frames": 9000,
        "n_effective": 1500.0 if given else None,
        "rank_input": 128 if given else None,
        "rank_layer": 512 if given else None,
        "warning": "9000 frames say as much as 1500 independent ones" if given else None,
        "weights_of": "input",
        "demo": True,
        "weights": "0123456789abcdef",
        "made_of": "01234567",
        "versions": {"torch": "2.11"},
    }
    return SimilarityRow(**(fields | changes))  # type: ignore[arg-type]


def save_similarity(cell: Cell, curve: Sequence[float]) -> list[SimilarityRow]:
    """Gives the cell's model rows: a curve against mel, one against layer 0, effective ranks."""
    rows = []
    for layer, value in enumerate(curve):
        rows += [
            similarity_row("pwcca", layer, value, "mel"),
            similarity_row("held_out", layer, value - 0.2, "mel"),
            similarity_row("null", layer, 0.3, "mel"),
            similarity_row("pwcca", layer, 1.0 if layer == 0 else value / 2, "h0"),
            similarity_row("effective_rank", layer, 10.0 + layer),
            similarity_row("curvature", layer, 90.0 - layer),
        ]
    write_note(cell, MomentsNote("nsynth-demo", "a-store", "0" * 12, "0" * 16, "similarity-0"))
    (source,) = sources_of([cell])
    write_similarity(source.path, rows)
    return rows
