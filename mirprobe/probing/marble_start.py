"""The random start of MARBLE v1's layer weights, beside the layers that the paper names.

Conventions: layers are 1..12, as in the paper. Nothing here is trained: the start follows from the
seed, the sizes and the order in which the parts of the network are made.
"""

from dataclasses import dataclass

import torch
from torch import nn

SEED, DIM, HIDDEN, N_LAYERS = 1234, 1024, 512, 12  # MARBLE v1: the default of every task


@dataclass(frozen=True)
class PaperLayers:
    """The layer with the largest learned weight of a task, as the paper's Table 1 gives it.

    Attributes:
        task: its name there.
        n_outputs: of its probe.
        muq: layer of MuQ.
        musicfm: layer of MusicFM.
    """

    task: str
    n_outputs: int
    muq: int
    musicfm: int


# arXiv 2505.16306, Table 1, numbers in brackets of the weighted columns. MPC and SQC are taken as
# of two classes, RD as of three, from the text; how many Structure has is not said, nor has v1 it.
PAPER = (
    PaperLayers("Genre", 10, 9, 9),
    PaperLayers("Technique", 10, 9, 9),
    PaperLayers("Emotion", 2, 4, 4),
    PaperLayers("MPC", 2, 4, 4),
    PaperLayers("SQC", 2, 4, 3),
    PaperLayers("RD", 3, 5, 5),
    PaperLayers("Instrument", 11, 11, 3),
    PaperLayers("Pitch", 128, 4, 4),
    PaperLayers("MTT", 50, 2, 2),
    PaperLayers("Singer", 20, 1, 1),
    PaperLayers("Key", 24, 2, 2),
)


def largest_at_start(n_outputs: int, seed: int = SEED) -> int:
    """The layer whose weight is the largest before MARBLE v1 trains anything.

    After the seed is set, v1 makes the hidden layer, the output layer and then the logits of the
    layer weights from N(0, 1) (MARBLE-Benchmark, benchmark/models/probers.py), each of which takes
    its numbers from the one generator: so the start depends on the number of classes.

    >>> largest_at_start(10)
    9
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn.Linear(DIM, HIDDEN)
        nn.Linear(HIDDEN, n_outputs)
        logits = torch.randn(N_LAYERS)
    return int(logits.argmax()) + 1


def paper_lines() -> list[str]:
    """Lines that hold the paper's largest weights against the start, task by task."""
    starts = [largest_at_start(row.n_outputs) for row in PAPER]
    muq = sum(row.muq == start for row, start in zip(PAPER, starts, strict=True))
    musicfm = sum(row.musicfm == start for row, start in zip(PAPER, starts, strict=True))

    width = max(len(row.task) for row in PAPER)
    lines = [
        f"The paper's largest learned weights beside the random start of MARBLE v1, seed {SEED}:",
        f"{'task':<{width}}  classes  start  MuQ  MusicFM",
    ]
    for row, start in zip(PAPER, starts, strict=True):
        numbers = f"{row.n_outputs:>7}  {start:>5}  {row.muq:>3}  {row.musicfm:>7}"
        lines.append(f"{row.task:<{width}}  {numbers}")
    lines.append(
        f"The start alone names the paper's layer in {muq} of {len(PAPER)} tasks for MuQ and in "
        f"{musicfm} for MusicFM; a layer drawn by chance would in {len(PAPER) / N_LAYERS:.1f}."
    )
    return lines
