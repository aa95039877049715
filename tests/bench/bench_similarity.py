"""What counting frames costs on top of a forward pass, and what the rows of all layers cost.

Run by `make bench`. The share is of a track that is counted: of a dataset it falls with the share
of its tracks that are (similarity.n_tracks).
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from datamodules.audio.clips import Clip
from datamodules.tracks import ClipPlace, Track
from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.fcpe import FCPE
from mirprobe.backbones.musicfm import MusicFM
from mirprobe.sections import SimilarityConfig
from mirprobe.similarity.collecting import ChosenTrack, FrameCollector
from mirprobe.similarity.compare import compare_layers
from mirprobe.similarity.moments import Moments

SECONDS = 30.0
SETTINGS = SimilarityConfig(["mel", "h0"], False, "input", 500, 0.2, 5, 0)


def synchronize(device: str) -> float:
    """The time, when the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bench(name: str, backbone: Backbone, device: str, n_clips: int) -> None:
    """Prints s per clip of the network and of counting, one after the other, and their ratio."""
    backbone = backbone.freeze().to(device)
    folder = Path(tempfile.mkdtemp())
    chosen = [
        ChosenTrack(Track(f"t{i}", folder, "test", 0, audio_id=f"a{i}"), f"t{i}", i % 5)
        for i in range(n_clips)
    ]
    collector = FrameCollector(backbone, SETTINGS, chosen, folder)
    collector._moments = moments = Moments.empty(collector.layout, device)

    generator = torch.Generator().manual_seed(0)
    network, counting = [], []
    for number in range(n_clips):
        audio = torch.randn(1, round(SECONDS * backbone.sample_rate), generator=generator) / 8
        clip = Clip(ClipPlace(f"a{number}", 0, 1, 0.0), audio[0].numpy(), f"t{number}")
        audio = audio.to(device)
        start = synchronize(device)
        frames = backbone(audio)
        middle = synchronize(device)
        collector.hold([clip], frames, audio)
        collector.count([clip])
        network.append(middle - start)
        counting.append(synchronize(device) - middle)

    start = synchronize(device)
    collector._close_block()
    counting.append(synchronize(device) - start)

    # Most clips only wait for the product of their block: the mean says what one costs.
    of_network, of_counting = median(network), sum(counting) / n_clips
    print(
        f"{name}, {SECONDS:g} s clips on {device}: network {of_network:.3f} s, counting "
        f"{of_counting:.3f} s a clip, {100 * of_counting / of_network:.1f} % on top"
    )
    if moments.n_frames > 2 * backbone.dim:
        start = time.perf_counter()
        compare_layers(moments, backbone.n_layers + 1, SETTINGS)
        print(f"{name}: rows of {backbone.n_layers + 1} layers {time.perf_counter() - start:.0f} s")


def main() -> None:
    """Both backbones on the device there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20, help="at least 14 for the rows of MusicFM")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bench("fcpe (10.8 M)", FCPE(weights="random"), device, options.clips)
    bench("musicfm (316 M)", MusicFM(weights="random"), device, options.clips)


if __name__ == "__main__":
    main()
