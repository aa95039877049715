"""kill -9 for a random rank at random moments: nothing but open shards is lost, and what is there
in the end is that of a run which nobody disturbed, bit for bit.

Conventions: `KILLS=50 make trial` kills so often; fewer by default, as each needs a start of its
own.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_notes

from datamodules.features.store import FeatureStore, parse_store_id

Settings = Callable[..., list[str]]
KILLS = int(os.environ.get("KILLS", "8"))
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
TWO_RANKS = (
    *("task=nsynth_pitch", "baseline=null", "launcher.devices=2", "extract.n_workers=0"),
    *("model.name=slow", "model._target_=slow_backbone.SlowBackbone"),
    *("extract.batch_seconds=0.5", "extract.shard_clips=4"),
)


def start(arguments: list[str], seconds_a_clip: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mirprobe", "extract", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "SLOW_SECONDS": str(seconds_a_clip)},
    )


def stored(folder: Path) -> dict[tuple[str, int], bytes]:
    """The states of every clip in a folder of stores, by its audio and its place in it.

    Each shard is verified by its checksum, and no clip may be in two.
    """
    found: dict[tuple[str, int], bytes] = {}
    for description in folder.glob("*/store.json"):
        store = FeatureStore(folder, parse_store_id(description.read_text()))
        for shard in store.shards():
            layers = shard.layers()
            for audio_id, clip in zip(shard.audio_ids, shard.clips, strict=True):
                rows = slice(clip["row"], clip["row"] + clip["n_rows"])
                key = (audio_id, int(clip["clip"]))
                assert key not in found, f"{key} is stored twice"
                found[key] = b"".join(layer[rows].tobytes() for layer in layers)
    return found


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The living processes that extract for a command, without their decoders."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        return [int(number) for number in listed.read_text().split()]
    except OSError:  # it has just ended
        return []


def kill_one(process: subprocess.Popen[str], chance: random.Random, longest_s: float) -> bool:
    """Kills a random rank at a random moment after both were started; False if all was over."""
    deadline = time.monotonic() + 60
    while len(ranks_of(process)) < 2:
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)

    time.sleep(chance.uniform(0, longest_s))
    ranks = ranks_of(process)
    if not ranks:
        return False
    os.kill(chance.choice(ranks), signal.SIGKILL)
    return True


@pytest.mark.trial
def test_a_rank_killed_at_any_moment_costs_open_shards_and_no_bit(
    settings: Settings, tmp_path: Path
) -> None:
    root = write_notes(tmp_path / "notes", per_pitch={"train": 8, "valid": 2, "test": 2})
    arguments = [*settings(*TWO_RANKS), f"data.root={root}"]

    calm = [*settings(*TWO_RANKS, out=tmp_path / "calm"), f"data.root={root}"]
    began_s = time.monotonic()
    whole = start(calm, seconds_a_clip=0.0)
    _, said = whole.communicate(timeout=120)
    start_s = time.monotonic() - began_s  # nearly all of it is the start of processes
    assert whole.returncode == 0, said
    undisturbed = stored(tmp_path / "calm" / "features")
    assert len(undisturbed) == 288

    chance = random.Random(0)
    features, n_kills, n_runs, before = tmp_path / "features", 0, 0, 0
    while n_kills < KILLS:
        n_runs += 1
        process = start(arguments, seconds_a_clip=0.03)
        killed = kill_one(process, chance, longest_s=start_s / 2 + 4)
        _, said = process.communicate(timeout=120)
        assert "Traceback" not in said, said
        n_kills += killed and process.returncode != 0

        states = stored(features)
        assert len(states) >= before, "what was stored is lost"
        assert all(undisturbed[clip] == values for clip, values in states.items())
        before = len(states)
        if before == len(undisturbed):  # once more from nothing
            shutil.rmtree(features)
            before = 0

    last = start(arguments, seconds_a_clip=0.0)
    _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    assert stored(features) == undisturbed
    print(f"{n_kills} ranks killed in {n_runs} runs: every clip as in an undisturbed run")
