"""Moments of frames: all that the similarity of two views needs, in memory that knows no length.

Conventions: a view is a sequence of vectors on a backbone's frames: a layer's state (`h00`, `h01`,
..), or an input such as `mel`. T frames of a clip, D values of a frame, K folds, N clips.

The scatter of a clip is taken about the clip's own mean, and the means of all clips are kept, so
the moments about any other mean follow exactly (Chan, Golub and LeVeque 1983,
doi:10.1080/00031305.1983.10483115). No pilot mean is needed on which ranks and restarts would have
to agree: a clip passes whole through one process. What grows is the table of clips, not the state.

A clip counts once: it is known by the content of its audio, and one that is known already is
refused. All sums are float64, whatever the frames are.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.similarity.clip_sums import (
    ClipSums,
    Raw,
    SampledClip,
    SquareSums,
    add_gram,
    phases_of,
    scramble,
    shift_squares,
    stack_means,
    symmetric,
    turning,
)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Layout:
    """What is accumulated.

    Attributes:
        dims: D of each view.
        pairs: views that are held against each other, the input first.
        n_folds: K, into which the tracks are dealt.
        plain_pairs: further pairs, without folds and without a null: of layers with layers.
        step: one frame of so many is counted. Neighbouring frames are alike: at 25 Hz every fifth
            says as much as all (facts/pwcca section 5), at a fifth of the cost.
    """

    dims: Mapping[str, int]
    pairs: tuple[Pair, ...]
    n_folds: int = 5
    plain_pairs: tuple[Pair, ...] = ()
    step: int = 1


@dataclass
class Moments:
    """Shifted first and second moments of views, by folds of tracks.

    Attributes:
        layout: what is accumulated.
        scatter: of each pair, (K, Dx, Dy): sum over clips of (x - clip mean)(y - clip mean)'; of a
            plain pair (1, Dx, Dy). Of a view with itself only the upper part is filled, see
            `symmetric`.
        scrambled: of each pair, (Dx, Dy): the same where the time course of the input is scrambled.
        directions: of each view, (D,): the sum of its frames, each of length 1.
        squares: of each pair, and of each view with itself.
        origin: of each view, (D,): the mean of the first clip, which `squares` are taken about.
        clips: that were counted, in the order in which they came.
    """

    layout: Layout
    scatter: dict[Pair, Tensor]
    scrambled: dict[Pair, Tensor]
    directions: dict[str, Tensor]
    squares: dict[Pair, SquareSums]
    origin: dict[str, Tensor] = field(default_factory=dict)
    clips: dict[tuple[str, int], ClipSums] = field(default_factory=dict)

    @classmethod
    def empty(cls, layout: Layout, device: torch.device | str = "cpu") -> "Moments":
        """Moments of nothing, on a device that has float64."""

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        dims = layout.dims
        own = [(name, name) for name in dims]
        pairs = [*own, *layout.pairs]
        scatter = {(x, y): zeros(layout.n_folds, dims[x], dims[y]) for x, y in pairs}
        scatter |= {(x, y): zeros(1, dims[x], dims[y]) for x, y in layout.plain_pairs}
        return cls(
            layout,
            scatter=scatter,
            scrambled={(x, y): zeros(dims[x], dims[y]) for x, y in layout.pairs},
            directions={name: zeros(dim) for name, dim in dims.items()},
            squares={(x, y): SquareSums(zeros(), zeros(dims[x]), zeros(dims[y])) for x, y in pairs},
        )

    @property
    def n_frames(self) -> int:
        """Frames of all clips."""
        return sum(clip.n_frames for clip in self.clips.values())

    def update(
        self,
        audio_id: str,
        index: int,
        *,
        track: str,
        fold: int,
        frames: Mapping[str, Tensor],
        n_clips: int = 1,
    ) -> None:
        """Counts a clip.

        Args:
            audio_id: of its track.
            index: its place in the track.
            track: what it is a piece of.
            fold: of that track.
            frames: of every view, (T, D), any floating type, on any device; all T of them, since
                the turning of a trajectory is that of neighbours.
            n_clips: how many clips the track gives.

        Raises:
            UserError: a frame is not finite; names the track.
        """
        clip = sampled(
            audio_id, index, track=track, fold=fold, frames=frames, n_clips=n_clips, of=self.layout
        )
        self.update_all([clip])

    def update_all(self, clips: Sequence[SampledClip]) -> None:
        """Counts some clips at once, by one product a view and fold instead of one for each clip.

        Raises:
            UserError: a frame is not finite; names the track.
        """
        if not clips:
            return
        keys = {clip.key for clip in clips}
        assert len(keys) == len(clips), "a clip is there twice"
        assert keys.isdisjoint(self.clips), "a clip counts once"

        clips = sorted(clips, key=lambda clip: clip.fold)  # stable: in order within a fold
        device = self.directions[next(iter(self.layout.dims))].device
        lengths = [clip.n_frames for clip in clips]
        raw = {
            name: torch.cat([clip.frames[name] for clip in clips]).to(device, torch.float64)
            for name in self.layout.dims
        }
        means = {name: _means(values, lengths) for name, values in raw.items()}
        # A mean is finite only where all its frames are, and one look sees all means.
        if not bool(torch.isfinite(torch.cat(list(means.values()), dim=1)).all()):
            raise _not_finite(clips)
        if not self.origin:
            self.origin = {name: of_clips[0].clone() for name, of_clips in means.items()}

        centred = {name: raw[name] - _spread(means[name], lengths) for name in raw}
        rows_of_fold = _rows_of_folds(clips)
        self._add_scatter(centred, rows_of_fold)
        self._add_scrambled(centred, clips)
        self._add_squares(raw)
        for name, values in raw.items():
            sizes = values.norm(dim=1, keepdim=True)
            # A frame without length has no direction; it counts as one at right angles to all.
            self.directions[name] += (values / sizes.masked_fill(sizes == 0, math.inf)).sum(0)

        of_clips = {name: values.cpu().numpy() for name, values in means.items()}
        for number, clip in enumerate(clips):
            self.clips[clip.key] = ClipSums(
                clip.audio_id,
                clip.index,
                clip.track,
                clip.fold,
                clip.n_frames,
                {name: values[number] for name, values in of_clips.items()},
                clip.angles,
                clip.n_angles,
                clip.n_clips,
            )

    def _add_scatter(
        self, centred: Mapping[str, Tensor], rows_of_fold: Mapping[int, slice]
    ) -> None:
        for fold, rows in rows_of_fold.items():
            for name, values in centred.items():
                add_gram(self.scatter[name, name][fold], values[rows])
            for x, y in self.layout.pairs:
                self.scatter[x, y][fold].addmm_(centred[x][rows].T, centred[y][rows])
        for x, y in self.layout.plain_pairs:
            self.scatter[x, y][0].addmm_(centred[x].T, centred[y])

    def _add_scrambled(self, centred: Mapping[str, Tensor], clips: Sequence[SampledClip]) -> None:
        phases = [phases_of(clip.audio_id, clip.index, clip.n_frames) for clip in clips]
        lengths = [clip.n_frames for clip in clips]
        for x in dict.fromkeys(x for x, _ in self.layout.pairs):
            pieces = torch.split(centred[x], lengths)
            turned = [scramble(one, phase) for one, phase in zip(pieces, phases, strict=True)]
            scrambled = torch.cat(turned)
            for _, y in (pair for pair in self.layout.pairs if pair[0] == x):
                self.scrambled[x, y].addmm_(scrambled.T, centred[y])

    def _add_squares(self, raw: Mapping[str, Tensor]) -> None:
        shifted = {name: values - self.origin[name] for name, values in raw.items()}
        lengths = {name: values.square().sum(dim=1) for name, values in shifted.items()}
        for (x, y), sums in self.squares.items():
            sums.xy += lengths[x] @ lengths[y]
            sums.x += lengths[y] @ shifted[x]
            sums.y += lengths[x] @ shifted[y]

    # -- merging -----------------------------------------------------------------------------------

    def merge(self, other: "Moments") -> None:
        """Adds the moments of other clips.

        Raises:
            UserError: a clip is in both, or they hold other views.
        """
        if self.layout != other.layout:
            raise UserError("moments of different views, pairs or folds cannot be merged")
        common = self.clips.keys() & other.clips.keys()
        if common:
            audio, index = min(common)
            raise UserError(f"{len(common)} clips are in both (first: clip {index} of {audio})")
        if not other.clips:
            return

        if not self.origin:
            self.origin = {name: mean.clone() for name, mean in other.origin.items()}
        for mine, theirs in zip(self._sums(), other._about(self.origin)._sums(), strict=True):
            mine.add_(theirs.to(mine.device))
        self.clips |= other.clips

    def _sums(self) -> list[Tensor]:
        """Every tensor that is a plain sum over clips once the origins are equal."""
        squares = [part for sums in self.squares.values() for part in (sums.xy, sums.x, sums.y)]
        tables: list[Mapping[object, Tensor]] = [self.scatter, self.scrambled, self.directions]  # type: ignore[list-item]
        return [tensor for table in tables for tensor in table.values()] + squares

    def _about(self, origin: Mapping[str, Tensor]) -> "Moments":
        """The same moments, with `squares` about another origin."""
        shift = {name: (origin[name].cpu() - self.origin[name].cpu()) for name in self.layout.dims}
        if not any(bool(one.any()) for one in shift.values()):
            return self

        here = {name: mean.cpu() for name, mean in self.origin.items()}
        raw = {pair: self.about(pair, here) for pair in self.squares}
        power = {name: float(raw[name, name].xy.trace()) for name in self.layout.dims}
        squares = {
            (x, y): shift_squares(sums, raw[x, y], (power[x], power[y]), (shift[x], shift[y]))
            for (x, y), sums in self.squares.items()
        }
        return replace(self, squares=squares, origin=dict(origin))

    def all_reduce(self) -> None:
        """Makes the moments of every process those of all of them together.

        Raises:
            UserError: a clip was counted by two processes.
        """
        first = [next(iter(self._origins()), None)]
        origins: list[dict[str, Tensor] | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(origins, first[0])
        shared = next((one for one in origins if one is not None), None)
        if shared is None:
            return

        here = self._about(shared) if self.origin else self
        self.squares, device = here.squares, self.directions[next(iter(self.layout.dims))].device
        self.origin = {name: mean.to(device) for name, mean in shared.items()}
        for tensor in self._sums():
            torch.distributed.all_reduce(tensor)

        clips: list[list[ClipSums]] = [[] for _ in origins]
        torch.distributed.all_gather_object(clips, list(self.clips.values()))
        gathered = [clip for of_rank in clips for clip in of_rank]
        self.clips = {clip.key: clip for clip in gathered}
        if len(self.clips) != len(gathered):
            raise UserError(f"{len(gathered) - len(self.clips)} clips were counted twice")

    def _origins(self) -> list[dict[str, Tensor]]:
        return [{name: mean.cpu() for name, mean in self.origin.items()}] if self.origin else []

    # -- what the sums say -------------------------------------------------------------------------

    def sorted_clips(self, folds: Collection[int] | None = None) -> list[ClipSums]:
        """Clips of some folds, in an order that does not depend on how they came."""
        clips = sorted(self.clips.values(), key=lambda clip: clip.key)
        return clips if folds is None else [clip for clip in clips if clip.fold in folds]

    def within(self, pair: Pair, folds: Collection[int] | None = None) -> Tensor:
        """(Dx, Dy) scatter of a pair about the means of its clips, in some folds or in all."""
        x, y = pair
        of_folds = self.scatter[pair]
        total = (of_folds if folds is None else of_folds[sorted(folds)]).sum(dim=0).cpu()
        return symmetric(total) if x == y else total

    def about(
        self, pair: Pair, centre: Mapping[str, Tensor], folds: Collection[int] | None = None
    ) -> "Raw":
        """Sums about a centre of each view, over the clips of some folds or of all."""
        x, y = pair
        clips = self.sorted_clips(folds)
        counts = torch.tensor([clip.n_frames for clip in clips], dtype=torch.float64)
        of_x = stack_means(clips, x) - centre[x]
        of_y = stack_means(clips, y) - centre[y]
        return Raw(
            int(counts.sum()),
            counts @ of_x,
            counts @ of_y,
            self.within(pair, folds) + (of_x * counts[:, None]).T @ of_y,
        )

    def with_squares(self, pair: Pair) -> tuple[Raw, SquareSums]:
        """All sums of a pair about the origin, which debiased CKA takes."""
        origin = {name: mean.cpu() for name, mean in self.origin.items()}
        return self.about(pair, origin), self.squares[pair]

    # -- on disk -----------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it as arrays without objects, for `numpy.savez`."""
        names, clips = list(self.layout.dims), list(self.clips.values())
        arrays: dict[str, NDArray[np.generic]] = {
            "views": np.array(names),
            "dims": np.array(list(self.layout.dims.values())),
            "pairs": np.array(self.layout.pairs, dtype=np.str_).reshape(-1, 2),
            "plain_pairs": np.array(self.layout.plain_pairs, dtype=np.str_).reshape(-1, 2),
            "n_folds": np.array(self.layout.n_folds),
            "step": np.array(self.layout.step),
            "audio_id": np.array([clip.audio_id for clip in clips], dtype=np.str_),
            "track": np.array([clip.track for clip in clips], dtype=np.str_),
            "index": np.array([clip.index for clip in clips], dtype=np.int64),
            "fold": np.array([clip.fold for clip in clips], dtype=np.int64),
            "n_frames": np.array([clip.n_frames for clip in clips], dtype=np.int64),
            "n_clips": np.array([clip.n_clips for clip in clips], dtype=np.int64),
        }
        for name in names:
            arrays[f"means/{name}"] = stack_means(clips, name, self.layout.dims[name]).numpy()
            arrays[f"angles/{name}"] = np.array([clip.angles[name] for clip in clips])
            arrays[f"n_angles/{name}"] = np.array([clip.n_angles[name] for clip in clips])
            if self.origin:
                arrays[f"origin/{name}"] = self.origin[name].cpu().numpy()
        for number, tensor in enumerate(self._sums()):
            arrays[f"sums/{number}"] = tensor.cpu().numpy()
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], device: torch.device | str = "cpu"
    ) -> "Moments":
        """The moments that `to_arrays` wrote, on a device.

        Raises:
            KeyError: an array is missing.
            ValueError: arrays do not fit each other.
        """
        names = [str(name) for name in arrays["views"]]
        dims = dict(zip(names, map(int, arrays["dims"]), strict=True))
        pairs, plain_pairs = (
            tuple((str(x), str(y)) for x, y in arrays[name]) for name in ("pairs", "plain_pairs")
        )
        n_folds, step = int(arrays["n_folds"]), int(arrays["step"])
        moments = cls.empty(Layout(dims, pairs, n_folds, plain_pairs, step), device)

        for number, tensor in enumerate(moments._sums()):
            stored = torch.from_numpy(np.asarray(arrays[f"sums/{number}"]))
            if stored.shape != tensor.shape:
                raise ValueError(f"sums/{number} has the shape {tuple(stored.shape)}")
            tensor.copy_(stored)
        if f"origin/{names[0]}" in arrays:
            moments.origin = {
                name: torch.from_numpy(np.asarray(arrays[f"origin/{name}"])).to(device)
                for name in names
            }
        moments.clips = {clip.key: clip for clip in _clips_of(arrays, names)}
        return moments


def merged(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts together; those of an empty part count nothing.

    Raises:
        UserError: a clip is in two parts.
    """
    first, *others = parts
    total = Moments.empty(first.layout)
    for part in (first, *others):
        total.merge(part)
    return total


def sampled(
    audio_id: str,
    index: int,
    *,
    track: str,
    fold: int,
    frames: Mapping[str, Tensor],
    of: Layout,
    n_clips: int = 1,
) -> SampledClip:
    """What is kept of a clip until it is counted: every `step`-th frame, and its turns there.

    Args:
        audio_id: of its track.
        index: its place in the track.
        track: what it is a piece of.
        fold: of that track.
        frames: of every view, (T, D), any floating type.
        of: what is accumulated.
        n_clips: how many clips the track gives.
    """
    first = min(of.step, len(frames[next(iter(of.dims))])) // 2  # a short clip has one
    turns = [turning(frames[name], first, of.step) for name in of.dims]
    angles = torch.stack([total for total, _ in turns]).tolist()  # one wait for a GPU, not many
    n_angles = torch.stack([count for _, count in turns]).tolist()
    return SampledClip(
        audio_id,
        index,
        track,
        fold,
        # Copies, since a view would keep all frames of its batch in memory.
        {name: frames[name][first :: of.step].clone() for name in of.dims},
        dict(zip(of.dims, angles, strict=True)),
        dict(zip(of.dims, n_angles, strict=True)),
        n_clips,
    )


def _means(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """(N, D) means of consecutive rows, so many of each clip."""
    return torch.stack([rows.mean(dim=0) for rows in torch.split(values, list(lengths))])


def _spread(means: Tensor, lengths: Sequence[int]) -> Tensor:
    """(N, D) means -> a row for each frame."""
    return means.repeat_interleave(torch.tensor(lengths, device=means.device), dim=0)


def _rows_of_folds(clips: Sequence[SampledClip]) -> dict[int, slice]:
    """Where the frames of each fold lie, of clips in the order of folds."""
    rows: dict[int, slice] = {}
    start = 0
    for clip in clips:
        stop = start + clip.n_frames
        rows[clip.fold] = slice(rows[clip.fold].start if clip.fold in rows else start, stop)
        start = stop
    return rows


def _not_finite(clips: Sequence[SampledClip]) -> UserError:
    clip = next(
        clip
        for clip in clips
        if not all(bool(values.isfinite().all()) for values in clip.frames.values())
    )
    names = [name for name, values in clip.frames.items() if not bool(values.isfinite().all())]
    return UserError(
        f"the frames of {', '.join(names)} are not finite for track {clip.track}: listen to its "
        "file; if the audio is sound, the weights are not. To go on without it: data.exclude=[...]"
    )


def _clips_of(arrays: Mapping[str, NDArray[np.generic]], names: Sequence[str]) -> list[ClipSums]:
    return [
        ClipSums(
            str(arrays["audio_id"][row]),
            int(arrays["index"][row]),
            str(arrays["track"][row]),
            int(arrays["fold"][row]),
            int(arrays["n_frames"][row]),
            {name: np.asarray(arrays[f"means/{name}"][row], dtype=np.float64) for name in names},
            {name: float(arrays[f"angles/{name}"][row]) for name in names},
            {name: int(arrays[f"n_angles/{name}"][row]) for name in names},
            int(arrays["n_clips"][row]),
        )
        for row in range(len(arrays["audio_id"]))
    ]
