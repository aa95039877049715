"""Frames of some tracks into moments, beside the forward passes of extraction.

Conventions: the moments of a store's tracks lie in its folder, in one file for each rank, which is
rewritten as the rank goes on. They are a set of clips, each known by the content of its audio: what
a killed process had counted and not written is counted again, what another has written is not. So
whether a clip's features are stored and whether it was counted are two questions, and one pass
answers both. Clips are counted in the order in which they are read, whatever batch they came in.
(Beside each shard, moments of its clips would be forty times as large as their features.)
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import lightning as L
import numpy as np
import torch
from torch import Tensor

from datamodules.audio.clips import Clip
from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.features.store import StoredAudio
from datamodules.files import atomic
from datamodules.tracks import Track
from mirprobe.backbones.backbone import Backbone
from mirprobe.sections import SimilarityConfig
from mirprobe.similarity import views
from mirprobe.similarity.clip_sums import SampledClip
from mirprobe.similarity.moments import Layout, Moments, Pair, merged, sampled

ViewOfAudio = Callable[[Tensor, Backbone], Tensor]

INPUT_LAYER = "h0"  # the setting that stands for the view of layer 0
# What layers can be held against beside that, with the values of a frame, as multiples of a band.
OF_AUDIO: Mapping[str, ViewOfAudio] = {
    "mel": partial(views.log_mel, pooling="mean"),
    "mel_stack": partial(views.log_mel, pooling="stack"),
    "mel_center": partial(views.log_mel, pooling="center"),
    "fbank": partial(views.fbank, pooling="mean"),
}
_COUNTING = 1  # raised when a change of code changes moments; part of their folder's name
_SAVE_EVERY_S = 60.0  # what a kill can make to be counted again
_BLOCK_FRAMES = 1024  # that are multiplied at once: enough for matrix products to pay
_LEAST_WORK = 50  # times what writing takes, in between


@dataclass(frozen=True)
class ChosenTrack:
    """A track whose frames count.

    Attributes:
        track: with the id of its audio.
        unit: what it is a piece of, unique over datasets: folds are made of these.
        fold: 0 .. K-1.
    """

    track: Track
    unit: str
    fold: int


def layer_view(layer: int) -> str:
    """The name of a layer's view.

    >>> layer_view(3)
    'h03'
    """
    return f"h{layer:02d}"


def input_view(name: str) -> str:
    """The view that a setting names: `h0` is layer 0."""
    return layer_view(0) if name == INPUT_LAYER else name


def choose(
    tracks: Sequence[Track], digests: KnownDigests, dataset: str, settings: SimilarityConfig
) -> list[ChosenTrack]:
    """Some tracks by a draw that depends on their ids and a seed only, dealt into folds.

    Their files are read here where they are not known yet, so that of equal audio one track counts,
    whichever rank gets it. Files that cannot be read are left to extraction, which names them.

    Args:
        tracks: to choose from.
        digests: of their files.
        dataset: their dataset.
        settings: how many, under which seed, into how many folds.
    """
    songs: dict[str, list[Track]] = {}
    for track in sorted(tracks, key=lambda track: track.track_id):
        songs.setdefault(track.scored_as, []).append(track)

    chosen: list[ChosenTrack] = []
    heard: set[str] = set()
    n_songs = 0
    for song in sorted(songs, key=lambda name: _draw(settings.seed, name)):
        if len(chosen) >= settings.n_tracks:
            break
        with suppress(OSError):
            for track in songs[song]:
                digests.get(track.path)
        named = digests.identify(songs[song])
        new = [track for track in named if track.audio_id and track.audio_id not in heard]
        heard |= {track.audio_id for track in new}
        fold = n_songs % settings.folds
        chosen += [ChosenTrack(track, f"{dataset}:{song}", fold) for track in new]
        n_songs += bool(new)
    digests.save()
    return chosen


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def layout_of(backbone: Backbone, settings: SimilarityConfig) -> Layout:
    """What is accumulated for a backbone: its layers, the inputs, and the pairs of them."""
    layers = [layer_view(layer) for layer in range(backbone.n_layers + 1)]
    second = torch.zeros(1, max(backbone.min_samples, backbone.sample_rate))
    dims = {
        name: OF_AUDIO[name](second, backbone).shape[2]
        for name in settings.inputs
        if name in OF_AUDIO
    }
    dims |= dict.fromkeys(layers, backbone.dim)

    inputs = [input_view(name) for name in settings.inputs]
    pairs = tuple((x, y) for x in inputs for y in layers if x != y)
    plain: list[Pair] = []
    if settings.layers:
        plain = [(x, y) for i, x in enumerate(layers) for y in layers[i + 1 :]]
    step = max(1, round(settings.frame_s / backbone.hop))
    plain_pairs = tuple(pair for pair in plain if pair not in pairs)
    return Layout(dims, pairs, settings.folds, plain_pairs, step)


class FrameCollector(L.Callback):
    """Counts the frames of chosen tracks, and keeps the moments on disk.

    Args:
        backbone: whose frames they are.
        settings: conf/config.yaml, `similarity`.
        chosen: tracks.
        store: folder of the feature store; the moments lie in a folder inside.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: SimilarityConfig,
        chosen: Sequence[ChosenTrack],
        store: Path,
    ) -> None:
        self.backbone, self.settings = backbone, settings
        self.layout = layout_of(backbone, settings)
        self.chosen = {one.track.track_id: one for one in chosen}
        self.folder = store / f"similarity-{self._hash()}"

        self._counted = _counted_in(self.folder)
        self._held: dict[tuple[str, int], SampledClip] = {}
        self._block: list[SampledClip] = []  # of clips that are multiplied together
        self._moments: Moments | None = None
        self._path = self.folder
        self._n_written = 0
        self._saved_at, self._took_s = time.monotonic(), 0.0

    def _hash(self) -> str:
        """12 hex digits over the settings and the audio that they choose."""
        settings = asdict(self.settings) | {"frame_s": self.layout.step * self.backbone.hop}
        del settings["weights"]  # what rows are made with; moments know nothing of it
        audio = sorted((one.track.audio_id, one.fold) for one in self.chosen.values())
        text = json.dumps([_COUNTING, settings, audio], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def missing(self) -> list[Track]:
        """Chosen tracks that are not counted, or not with all of their clips."""
        n_counted: dict[str, int] = {}
        for audio, _ in self._counted:
            n_counted[audio] = n_counted.get(audio, 0) + 1
        n_clips = {audio: n for (audio, _), n in self._counted.items()}
        return [
            one.track
            for one in self.chosen.values()
            if n_counted.get(one.track.audio_id, 0) < n_clips.get(one.track.audio_id, 1)
        ]

    def to_read(self, stored: Mapping[str, StoredAudio]) -> dict[str, StoredAudio]:
        """What need not be read: the stored clips, without those that are still to be counted."""
        done = dict(stored)
        for track in self.missing():
            audio = stored.get(track.audio_id)
            if audio is not None:
                counted = {index for name, index in self._counted if name == track.audio_id}
                done[track.audio_id] = replace(audio, clips=audio.clips & counted)
        return done

    # -- during the forward passes -----------------------------------------------------------------

    def wants(self, clip: Clip) -> bool:
        """Whether a clip is to be counted."""
        place = (clip.place.audio_id, clip.place.index)
        return clip.track_id in self.chosen and place not in self._counted

    def hold(self, clips: Sequence[Clip], frames: Tensor, audio: Tensor) -> None:
        """Keeps the frames of those clips of a forward pass that are to be counted.

        Args:
            clips: of one length.
            frames: (B, L+1, T, D) their states.
            audio: (B, S).
        """
        rows = [row for row, clip in enumerate(clips) if self.wants(clip)]
        if not rows:
            return

        inputs = {
            name: OF_AUDIO[name](audio[rows], self.backbone)
            for name in self.settings.inputs
            if name in OF_AUDIO
        }
        for number, row in enumerate(rows):
            place, one = clips[row].place, self.chosen[clips[row].track_id]
            views = {layer_view(layer): state for layer, state in enumerate(frames[row])}
            views |= {name: view[number] for name, view in inputs.items()}
            n_frames = min(len(view) for view in views.values())
            self._held[place.audio_id, place.index] = sampled(
                place.audio_id,
                place.index,
                track=one.unit,
                fold=one.fold,
                frames={name: view[:n_frames] for name, view in views.items()},
                n_clips=place.n_clips,
                of=self.layout,
            )

    def count(self, clips: Sequence[Clip]) -> None:
        """Counts the clips that are held, in the order in which they were read, block by block.

        Where a block ends depends on that order alone, and what is written while a run goes on
        are whole blocks: so one that was killed ends with the very bits of one that was not.

        Raises:
            UserError: a frame is not finite; names the track.
        """
        for clip in clips:
            place = clip.place
            if not self.wants(clip):  # perhaps a copy of one that is
                continue
            self._block.append(self._held.pop((place.audio_id, place.index)))
            self._counted[place.audio_id, place.index] = place.n_clips
            if sum(one.n_frames for one in self._block) >= _BLOCK_FRAMES:
                self._close_block()

    def _close_block(self) -> None:
        assert self._moments is not None, "counting begins when prediction does"
        block, self._block = self._block, []  # not tried again where it cannot be counted
        # What fails in the middle leaves half a sum behind, which must not be written.
        moments, self._moments = self._moments, None
        with torch.inference_mode():  # in which the sums were made; an exception has left it
            moments.update_all(block)
        self._moments = moments

    # -- Lightning's hooks -------------------------------------------------------------------------

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Goes on with what this rank has counted before."""
        # A Mac's GPU has no float64.
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        self._path = self.folder / f"rank-{trainer.global_rank:03d}.npz"
        self._moments = (
            read_moments(self._path, device)
            if self._path.exists()
            else Moments.empty(self.layout, device)
        )
        self._n_written = len(self._moments.clips)

    def on_predict_batch_end(self, *_: object, **__: object) -> None:
        """Writes now and then."""
        waited_s = time.monotonic() - self._saved_at
        if waited_s > max(_SAVE_EVERY_S, _LEAST_WORK * self._took_s):
            self.save()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes all that was counted."""
        self._close_block()
        self.save()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keeps what was counted: what is asked to stop need not do it again."""
        if self._moments is not None:  # else it never began, or broke off in the middle of a sum
            self._close_block()
            self.save()

    def save(self) -> None:
        """Writes what was counted since the last time, with all that was before."""
        self._saved_at = time.monotonic()
        if self._moments is None or len(self._moments.clips) == self._n_written:
            return
        write_moments(self._path, self._moments)
        self._n_written = len(self._moments.clips)
        self._took_s = time.monotonic() - self._saved_at


def make_collector(
    settings: SimilarityConfig,
    backbone: Backbone,
    store: Path,
    tracks: Sequence[Track],
    digests: KnownDigests,
    dataset: str,
) -> FrameCollector | None:
    """What counts frames for a store; None where nothing is asked for or there are no layers."""
    if backbone.n_layers == 0 or not (settings.inputs or settings.layers):
        return None
    chosen = choose(tracks, digests, dataset, settings)
    return FrameCollector(backbone, settings, chosen, store)


# -- on disk ---------------------------------------------------------------------------------------


def write_moments(path: Path, moments: Moments) -> None:
    """Writes moments, atomically.

    Raises:
        UserError: the disk is full.
    """
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **moments.to_arrays())  # type: ignore[arg-type]


def read_moments(path: Path, device: torch.device | str = "cpu") -> Moments:
    """The moments in a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Moments.from_arrays(arrays, device)
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise _broken(path, error) from error


def read_all(folder: Path) -> Moments:
    """The moments of all ranks together.

    Raises:
        UserError: there are none, a file cannot be read, or a clip is in two of them.
    """
    paths = sorted(folder.glob("rank-*.npz"))
    if not paths:
        raise UserError(f"no moments in {folder}: run `mirprobe similarity` with the same settings")
    try:
        return merged(read_moments(path) for path in paths)
    except UserError as error:
        raise UserError(f"{folder}: {error}. Delete it and run the same command again") from error


def _counted_in(folder: Path) -> dict[tuple[str, int], int]:
    """The clips that were counted by any rank: audio id and place -> number of clips."""
    counted: dict[tuple[str, int], int] = {}
    for path in sorted(folder.glob("rank-*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = (arrays[name].tolist() for name in ("audio_id", "index", "n_clips"))
                counted |= {(audio, index): n for audio, index, n in zip(*names, strict=True)}
        except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
            raise _broken(path, error) from error
    return counted


def _broken(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:100]
    return UserError(
        f"{path} holds no moments ({reason}): delete it and run the same command again: only its "
        "clips are counted anew"
    )
