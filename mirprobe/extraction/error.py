"""What a precision does to the states of a backbone, measured before a store is filled.

Conventions: the error of a layer is the rms of its change against float32 over the rms of its
states, over all frames and features of the clips; (L+1,) for layers 0..L.
"""

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ClipLoader
from datamodules.features.store import FeatureStore
from datamodules.files import write_text
from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.comparing import span

FILE = "precision.json"  # in a store's folder
N_CLIPS = 20


def note_error(store: FeatureStore, backbone: Backbone, loader: ClipLoader) -> None:
    """Measures the error of a store's precision on some of its clips, prints and keeps it.

    Nothing is done for float32, nor where the store has its note already.

    Args:
        store: that is about to be filled.
        backbone: on the device and in the precision of the extraction, in which it is left.
        loader: of the clips that the store lacks.
    """
    path = store.folder / FILE
    if backbone.precision == "float32" or path.is_file():
        return
    clips = some_clips(loader, N_CLIPS)
    if not clips:  # no file can be used, as extraction will say
        return

    error = error_of_layers(backbone, clips)
    note = {"precision": backbone.precision, "n_clips": len(clips), "rms": error.tolist()}
    write_text(path, json.dumps(note) + "\n")
    print(
        f"{store.id.backbone} in {backbone.precision}: states of {len(clips)} clips are off those "
        f"in float32 by {span(error)} rms",
        flush=True,
    )


def some_clips(loader: ClipLoader, n_clips: int) -> list[Clip]:
    """Up to `n_clips` clips from tracks that lie far apart in the list; files that cannot be used
    give none.
    """
    clips: list[Clip] = []
    for track in loader.tracks[:: max(1, len(loader.tracks) // n_clips)]:
        clips += loader.read([track]).clips[: max(1, n_clips // len(loader.tracks))]
        if len(clips) >= n_clips:
            break
    return clips[:n_clips]


def error_of_layers(backbone: Backbone, clips: Sequence[Clip]) -> Tensor:
    """(L+1,) error of a backbone's precision against float32.

    Float32 comes first for all clips, since changing the precision may cast every weight.
    """
    precision = backbone.precision
    audio = [torch.from_numpy(clip.audio)[None].to(backbone.device) for clip in clips]
    backbone.at("float32")
    exact = [backbone(one).cpu() for one in audio]  # not on a card, which it may fill

    backbone.at(precision)
    change = torch.zeros(backbone.n_layers + 1, dtype=torch.float64)
    power = torch.zeros_like(change)
    for one, reference in zip(audio, exact, strict=True):
        states = backbone(one).cpu()
        change += (states - reference).double().square().sum((0, 2, 3))
        power += reference.double().square().sum((0, 2, 3))
    return (change / power.clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
