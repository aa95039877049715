"""Whole extraction beside bare forward passes, and two ranks beside one, in one run.

    python tests/bench/bench_extraction.py [--model musicfm] [--scale 0.1] [--ranks-model fcpe]
                                           [--ranks-scale 0.5] [--repeat 3] [--threads 2]

Conventions: NSynth's notes of 4 s, those of the demo. A bare pass gets the clips decoded, in the
batches that extraction makes of them; extraction reads files, pools, and writes its shards. Turns
alternate, a ratio is of one turn. Ranks have one thread each; their speed is what the command
prints, without the start of its processes.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from mirprobe.assembly import Job, extracting_backbone, make_demo_data
from mirprobe.backbones.backbone import Backbone
from mirprobe.extraction.extract import extract
from mirprobe.extraction.module import AUTO_BATCH_SECONDS
from mirprobe.progress import quiet_lightning
from mirprobe.settings import compose_cell
from mirprobe.sweep.plan import make_plan

RATE = re.compile(r"(\d+) x real time")


def main() -> None:
    """Prints both ratios."""
    options = parse_options()
    quiet_lightning()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare_with_bare(Path(folder), options)
        compare_ranks(Path(folder), options)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="musicfm", help="with random weights, but fcpe")
    parser.add_argument("--scale", type=float, default=0.1, help="1: 640 notes")
    parser.add_argument("--ranks-model", default="fcpe", help="of the comparison of ranks")
    parser.add_argument("--ranks-scale", type=float, default=1.0, help="of its notes")
    parser.add_argument("--repeat", type=int, default=3, help="turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of one process")
    return parser.parse_args()


def settings(folder: Path, model: str, scale: float, turn: str) -> list[str]:
    """Settings of one turn, whose features lie apart."""
    paths = [f"paths.data={folder / 'data'}", f"paths.runs={folder / turn / 'runs'}"]
    return [
        *("task=nsynth_pitch", "logger=none", "extract.precision=32", f"model={model}"),
        *([] if model == "fcpe" else ["model.weights=random"]),
        *(f"data.scale={scale}", f"paths.features={folder / turn / 'features'}", *paths),
    ]


def compare_with_bare(folder: Path, options: argparse.Namespace) -> None:
    """Prints how much longer extraction takes than its forward passes alone."""
    cell = compose_cell(settings(folder, options.model, options.scale, "bare"))
    make_demo_data([cell])
    backbone = extracting_backbone(cell)
    batches = decoded(job_of(folder, options, "decoded"), backbone)
    n_clips = sum(len(batch) for batch in batches)
    n_parameters = sum(one.numel() for one in backbone.parameters()) / 1e6
    print(
        f"{options.model}, {n_parameters:.0f} M parameters, {n_clips} clips of 4 s, "
        f"{torch.get_num_threads()} threads"
    )

    bare_s, whole_s = [], []
    for turn in range(options.repeat):
        start_s = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                backbone(batch)
        bare_s.append(time.perf_counter() - start_s)

        job = job_of(folder, options, f"turn{turn}")
        start_s = time.perf_counter()
        extract(job, backbone)
        whole_s.append(time.perf_counter() - start_s)

    ratios = [whole / bare for whole, bare in zip(whole_s, bare_s, strict=True)]
    say("extraction / bare forward passes", ratios, f"bare {min(bare_s):.1f} s at best")


def job_of(folder: Path, options: argparse.Namespace, turn: str) -> Job:
    """The one job of a turn, with nothing extracted."""
    (job,) = make_plan([compose_cell(settings(folder, options.model, options.scale, turn))]).jobs
    return job


def decoded(job: Job, backbone: Backbone) -> list[Tensor]:
    """(B, S) clips of all tracks, in batches of as many seconds as extraction takes at once."""
    import soundfile
    import soxr

    audio = []
    for track in job.tracks():
        samples, rate = soundfile.read(track.path, dtype="float32")
        audio.append(torch.from_numpy(soxr.resample(samples, rate, backbone.sample_rate)))

    seconds = len(audio[0]) / backbone.sample_rate
    size = max(1, int(AUTO_BATCH_SECONDS["cpu"] / seconds))
    return [torch.stack(audio[first : first + size]) for first in range(0, len(audio), size)]


def compare_ranks(folder: Path, options: argparse.Namespace) -> None:
    """Prints how much faster two ranks of one thread each are than one."""
    ratios = []
    for turn in range(options.repeat):
        one, two = (ranks_speed(folder, options, turn, n_ranks) for n_ranks in (1, 2))
        ratios.append(two / one)
    say("2 ranks / 1 rank, a thread each", ratios, f"{options.ranks_model}, one: {one:.0f} x")


def ranks_speed(folder: Path, options: argparse.Namespace, turn: int, n_ranks: int) -> float:
    """Seconds of audio a second, as the command prints it."""
    own = settings(folder, options.ranks_model, options.ranks_scale, f"ranks{turn}-{n_ranks}")
    command = [sys.executable, "-m", "mirprobe", "extract", *own, f"launcher.devices={n_ranks}"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout
    return float(RATE.findall(said)[-1])


def say(what: str, ratios: list[float], more: str) -> None:
    """Prints the median and the range of the ratios of turns."""
    print(
        f"  {what}: {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}] "
        f"in {len(ratios)} turns ({more})",
        flush=True,
    )


if __name__ == "__main__":
    main()
