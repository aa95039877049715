"""A probed task as a curve over layers, for notebooks: from rows alone.

Conventions: scores are fractions, drawings and tables say per cent. The layer is chosen on val and
reported on test.
"""

import html
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from datamodules.tracks import Split
from mirprobe.reporting.text import counts_text, interval_text, layer_text, score_text
from mirprobe.results import Probe, Row
from mirprobe.scoring.selection import best_layer, by_metric, head_rows

Array = NDArray[np.float64]
_SIZE = (5.5, 3.2)  # inches; 25 layers stay legible in it
_COLOURS = {"mlp": "#4a7fb5", "linear": "#9aa5b1"}


@dataclass(frozen=True)
class Curve:
    """Scores of all layers of one cell, with intervals.

    Attributes:
        rows: of the cell: every head on val and test, by each of its metrics; the first metric is
            the one that is drawn.
    """

    rows: tuple[Row, ...]

    @property
    def metric(self) -> str:
        """The metric that is drawn and that `best` goes by."""
        return self.rows[0].metric

    @property
    def best(self) -> Row | None:
        """The test row of the layer that is best on val; None where no layer has a score."""
        return best_layer(self._scores(), "val")

    @property
    def weighted(self) -> Row | None:
        """The test row of the learned weighted sum; None where there is none."""
        rows = head_rows(self._scores(), "test", single=False)
        return rows[0] if rows else None

    def layers(self, split: Split = "test", probe: Probe = "mlp") -> list[Row]:
        """The rows of layers 0..L, in order."""
        return head_rows(self._scores(), split, single=True, probe=probe)

    def values(self, split: Split = "test", probe: Probe = "mlp") -> Array:
        """(L+1,) scores of the layers, as fractions; NaN for a layer without a score."""
        rows = self.layers(split, probe)
        return np.array([np.nan if row.value is None else row.value for row in rows])

    def intervals(self, split: Split = "test", probe: Probe = "mlp") -> Array:
        """(L+1, 2) ends of the 95 % intervals over tracks; NaN where a score has none."""
        pairs = [(row.ci_low, row.ci_high) for row in self.layers(split, probe)]
        return np.array(pairs, dtype=np.float64).reshape(-1, 2)

    def plot(self, split: Split = "test") -> Figure:
        """Draws the scores over layers with their intervals as a band, and the linear twin.

        Of matplotlib's own, not of pyplot's: nothing has to be closed.
        """
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for probe, name in self._probes(split):
            values, ends = 100 * self.values(split, probe), 100 * self.intervals(split, probe)
            layers, colour = np.arange(len(values)), _COLOURS[probe]
            axes.plot(layers, values, "o-", color=colour, markersize=4, label=name)
            if probe == "mlp":
                axes.fill_between(layers, ends[:, 0], ends[:, 1], color=colour, alpha=0.2, lw=0)

        best = self.best
        if best is not None and best.layer is not None:
            axes.axvline(best.layer, color="black", lw=0.8, ls=":", label="chosen on val")
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{self.metric}, {split}, %", parse_math=False)
        axes.set_title(self._title(), fontsize=10, parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
        axes.legend(fontsize=8)
        return figure

    def _probes(self, split: Split) -> Iterator[tuple[Probe, str]]:
        """The probes that there are rows of, the bank's last: it is drawn on top."""
        if self.layers(split, "linear"):
            yield "linear", "linear twin"
        yield "mlp", "probe, 95 % interval"

    def _scores(self) -> list[Row]:
        return by_metric(self.rows)[self.metric]

    def _title(self) -> str:
        row = self.rows[0]
        demo = " (demo data)" if row.demo else ""
        return f"{row.model}, {row.task}, n={counts_text(row)}{demo}"

    def __str__(self) -> str:
        best = self.best
        if best is None:
            return f"{self._title()}: no layer has a score on val by {self.metric}"
        score = f"{score_text(best)} {interval_text(best)}"
        return f"{self._title()}: layer {best.layer} chosen on val, test {self.metric} {score}"

    def _repr_html_(self) -> str:
        """The curve and its numbers, as a notebook shows them."""
        drawing = io.StringIO()
        self.plot().savefig(drawing, format="svg")
        image = drawing.getvalue().partition("<svg")
        heads = [*self.layers(), *([self.weighted] if self.weighted else [])]
        lines = [
            f"<tr><td>{html.escape(row.head)}</td><td>{_detail(row)}</td>"
            f"<td>{score_text(row)}</td><td>{interval_text(row)}</td></tr>"
            for row in heads
        ]
        header = "<tr><th>head</th><th></th><th>test, %</th><th>95 % interval</th></tr>"
        return (
            f"<p>{html.escape(str(self))}</p>{image[1]}{image[2]}"
            f"<table>{header}{''.join(lines)}</table>"
        )


def _detail(row: Row) -> str:
    """What there is to say of a head of several layers."""
    return "" if row.layer is not None else html.escape(f"largest: {layer_text(row)}")
