"""Frames are counted once, whatever the batches, the ranks and the restarts are."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import RATE
from torch import Tensor
from toy_backbone import Statistics

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ReadFile
from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.features.store import StoredAudio
from datamodules.tracks import ClipPlace, Track
from mirprobe.backbones.backbone import Backbone
from mirprobe.extraction.module import ExtractModule
from mirprobe.sections import SimilarityConfig
from mirprobe.similarity import collecting
from mirprobe.similarity.collecting import (
    ChosenTrack,
    FrameCollector,
    choose,
    layout_of,
    make_collector,
    read_all,
    read_moments,
)
from mirprobe.similarity.moments import Moments

SETTINGS = SimilarityConfig(
    inputs=["mel", "h0"],
    layers=False,
    weights="input",
    n_tracks=100,
    frame_s=0.02,
    folds=3,
    seed=0,
)


class Waves(Backbone):
    """States of two layers that follow from the audio alone: means of pieces of each frame."""

    sample_rate, hop, n_layers, dim, min_samples = RATE, 0.01, 1, 8, 160

    def __init__(self) -> None:
        super().__init__()
        self.freeze()

    def states(self, audio: Tensor) -> Tensor:
        frames = audio.unfold(1, 160, 160)
        pieces = frames.unflatten(2, (8, 20)).mean(dim=3)
        return torch.stack([pieces, pieces.square()], dim=1)


def clip(number: int, n_samples: int, index: int = 0) -> Clip:
    generator = np.random.default_rng(number + 100 * index)
    audio = generator.standard_normal(n_samples).astype(np.float32) / 8
    place = ClipPlace(f"audio {number}", index, 1, 0.0)
    return Clip(place, audio, f"t{number}")


CLIPS = [clip(number, 1600 + 800 * (number % 3)) for number in range(9)]


def collector_of(folder: Path, tracks: Sequence[int] = range(9)) -> FrameCollector:
    chosen = [
        ChosenTrack(
            Track(f"t{number}", folder / f"t{number}.wav", "test", 0, audio_id=f"audio {number}"),
            f"toy:t{number}",
            number % 3,
        )
        for number in tracks
    ]
    return FrameCollector(Waves(), SETTINGS, chosen, folder)


def passing(
    collector: FrameCollector, batches: Iterator[list[Clip]], rank: int = 0, seconds: float = 60.0
) -> None:
    """One process: what Lightning calls, up to the point where a kill would come."""
    module = ExtractModule(Waves(), seconds, collector=collector)
    collector.on_predict_start(SimpleNamespace(global_rank=rank), module)  # type: ignore[arg-type]
    for batch in batches:
        module.predict_step([ReadFile(1, clips=[one]) for one in batch], 0)


def end(collector: FrameCollector) -> None:
    """The end of a run that nobody disturbs, where the last block is closed."""
    collector.on_predict_end(SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]


def in_batches(clips: Sequence[Clip], size: int) -> Iterator[list[Clip]]:
    return (list(clips[start : start + size]) for start in range(0, len(clips), size))


def bits(moments: Moments) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in moments.to_arrays().items()}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two or three clips, so that a run has several, and an open one at its end."""
    monkeypatch.setattr(collecting, "_BLOCK_FRAMES", 12)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Moments:
    collector = collector_of(tmp_path / "undisturbed")
    passing(collector, in_batches(CLIPS, 4))
    end(collector)
    return read_all(collector.folder)


def test_every_chosen_clip_counts_once_with_its_frames(undisturbed: Moments) -> None:
    lengths = {key[0]: one.n_frames for key, one in undisturbed.clips.items()}
    assert lengths == {one.place.audio_id: len(one.audio) // 320 for one in CLIPS}
    assert {one.fold for one in undisturbed.clips.values()} == {0, 1, 2}
    assert undisturbed.layout.pairs == (("mel", "h00"), ("mel", "h01"), ("h00", "h01"))


@pytest.mark.parametrize(
    # Blocks end after clips 2, 4, 6 and 8, which have 5 + 7, 10 + 5, 7 + 10 .. frames.
    ("before", "after", "n_passed", "n_kept"),
    [(2, 3, 4, 4), (4, 4, 5, 4), (9, 1, 1, 0), (1, 9, 7, 6)],
)
def test_a_killed_run_ends_with_the_very_bits_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: Moments, before: int, after: int, n_passed: int, n_kept: int
) -> None:
    """What was counted after the last time that moments were written is lost, and done again, as
    is what was in an open block.
    """
    killed = collector_of(tmp_path)
    passing(killed, in_batches(CLIPS[:n_passed], before))
    killed.save()
    passing(killed, in_batches(CLIPS[n_passed : n_passed + 2], before))  # and then the kill

    again = collector_of(tmp_path)
    missing = [track.track_id for track in again.missing()]
    assert missing == [one.track_id for one in CLIPS[n_kept:]]
    passing(again, in_batches([one for one in CLIPS if one.track_id in missing], after))
    end(again)
    assert collector_of(tmp_path).missing() == []
    assert bits(read_moments(again.folder / "rank-000.npz")) == bits(
        read_moments(tmp_path / "undisturbed" / again.folder.name / "rank-000.npz")
    )


def test_a_run_that_is_asked_to_stop_keeps_all_it_has_counted(tmp_path: Path) -> None:
    """Lightning has left inference mode then, in which the sums were made."""
    stopped = collector_of(tmp_path)
    with torch.inference_mode():
        passing(stopped, in_batches(CLIPS[:5], 5))
    stopped.on_exception(SimpleNamespace(), SimpleNamespace(), SystemExit(143))  # type: ignore[arg-type]
    assert len(read_all(stopped.folder).clips) == 5


def test_half_a_sum_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory ends in the middle of a block: its error is what is said."""
    broken = collector_of(tmp_path)
    passing(broken, in_batches(CLIPS[:3], 3))  # one block of two clips, and an open one
    monkeypatch.setattr(Moments, "_add_squares", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        end(broken)
    broken.on_exception(SimpleNamespace(), SimpleNamespace(), MemoryError())  # type: ignore[arg-type]
    assert not list(broken.folder.glob("rank-*.npz"))


def test_an_error_before_counting_begins_is_not_hidden(tmp_path: Path) -> None:
    early = collector_of(tmp_path)
    early.on_exception(SimpleNamespace(), SimpleNamespace(), UserError("no"))  # type: ignore[arg-type]
    assert not early.folder.exists()


@pytest.mark.parametrize("seconds", [0.01, 0.3, 60.0])
def test_the_size_of_a_forward_pass_changes_nothing(
    tmp_path: Path, undisturbed: Moments, seconds: float
) -> None:
    collector = collector_of(tmp_path)
    passing(collector, in_batches(CLIPS, 9), seconds=seconds)
    end(collector)
    for one, other in zip(
        read_all(collector.folder).to_arrays().items(), undisturbed.to_arrays().items(), strict=True
    ):
        assert one[0] == other[0]
        if one[1].dtype.kind == "f":
            np.testing.assert_allclose(one[1], other[1], rtol=1e-10, atol=1e-10)


def test_ranks_and_another_number_of_them_count_a_clip_once(
    tmp_path: Path, undisturbed: Moments
) -> None:
    for rank in range(3):  # three ranks, of which each was killed after two clips
        of_rank = collector_of(tmp_path)
        passing(of_rank, in_batches(CLIPS[rank::3][:2], 1), rank)
        end(of_rank)
    rest = collector_of(tmp_path)
    missing = {track.track_id for track in rest.missing()}
    assert len(missing) == 3
    passing(rest, in_batches([one for one in CLIPS if one.track_id in missing], 2), rank=0)
    end(rest)

    found = read_all(rest.folder)
    assert found.clips.keys() == undisturbed.clips.keys()
    for pair in found.scatter:
        torch.testing.assert_close(
            found.within(pair), undisturbed.within(pair), rtol=1e-12, atol=1e-12
        )


def test_what_is_not_chosen_is_not_counted_and_copies_count_as_one(tmp_path: Path) -> None:
    collector = collector_of(tmp_path, tracks=[1, 2])
    copy = Clip(CLIPS[1].place, CLIPS[1].audio, "t0")  # t0 has the audio of t1, and comes first
    passing(collector, in_batches([copy, *CLIPS], 3))
    end(collector)
    assert [key[0] for key in read_all(collector.folder).clips] == ["audio 1", "audio 2"]


def test_stored_clips_pass_again_for_their_frames_and_are_not_stored_twice(tmp_path: Path) -> None:
    collector = collector_of(tmp_path)
    stored = {"audio 1": StoredAudio(1, frozenset({0})), "other": StoredAudio(1, frozenset({0}))}
    to_read = collector.to_read(stored)
    assert (to_read["audio 1"].complete, to_read["other"].complete) == (False, True)

    module = ExtractModule(Waves(), 60.0, collector=collector, stored=stored)
    collector.on_predict_start(SimpleNamespace(global_rank=0), module)  # type: ignore[arg-type]
    features = module.predict_step([ReadFile(1, clips=[one]) for one in CLIPS[:3]], 0)
    assert [one.place.audio_id for one in features] == ["audio 0", "audio 2"]
    assert collector.to_read(stored)["audio 1"].complete


def test_a_state_that_is_not_finite_stops_with_the_track(tmp_path: Path) -> None:
    collector = collector_of(tmp_path)
    module = ExtractModule(Waves(), 60.0, collector=collector)
    collector.on_predict_start(SimpleNamespace(global_rank=0), module)  # type: ignore[arg-type]
    frames = torch.zeros(1, 2, 10, 8)
    frames[0, 1, 3, 2] = torch.inf
    collector.hold(CLIPS[4:5], frames, torch.zeros(1, 1600))
    collector.count(CLIPS[4:5])
    with pytest.raises(UserError, match="frames of h01 are not finite for track toy:t4"):
        end(collector)


def test_a_broken_file_of_moments_is_named_with_the_way_out(tmp_path: Path) -> None:
    collector = collector_of(tmp_path)
    passing(collector, in_batches(CLIPS, 9))
    end(collector)
    path = collector.folder / "rank-000.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"rank-000.npz holds no moments .*: delete it and run"):
        collector_of(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"no moments in .*: run `mirprobe similarity`"):
        read_all(collector.folder)


# -- which tracks, and what of them ------------------------------------------------------------


def written(folder: Path, names: Sequence[str]) -> list[Track]:
    """Tracks whose files hold their names; those after a `=` are copies."""
    tracks = []
    for name in names:
        path = folder / f"{name}.wav"
        path.write_text(name.partition("=")[2] or name)
        tracks.append(Track(name, path, "test", 0))
    return tracks


def test_the_draw_depends_on_names_and_seed_and_on_no_order(tmp_path: Path) -> None:
    tracks = written(tmp_path, [f"t{number}" for number in range(20)])
    digests = KnownDigests(tmp_path / "known")

    def drawn(tracks: Sequence[Track], seed: int = 0, n_tracks: int = 8) -> dict[str, int]:
        settings = SimilarityConfig(["mel"], False, "input", n_tracks, 0.2, 3, seed)
        chosen = choose(tracks, digests, "toy", settings)
        return {one.track.track_id: one.fold for one in chosen}

    first = drawn(tracks)
    assert len(first) == 8
    assert sorted(first.values()) == [0, 0, 0, 1, 1, 1, 2, 2], "folds are of equal size"
    assert drawn(tracks[::-1]) == first
    assert drawn(tracks, seed=1).keys() != first.keys()
    assert drawn(tracks, n_tracks=9).items() > first.items(), "more tracks are more, not others"


def test_of_equal_audio_one_track_counts_and_what_cannot_be_read_is_left_out(
    tmp_path: Path,
) -> None:
    tracks = written(tmp_path, ["a", "b=a", "c"])
    tracks.append(Track("gone", tmp_path / "gone.wav", "test", 0))
    chosen = choose(tracks, KnownDigests(tmp_path / "known"), "toy", SETTINGS)
    assert sorted(one.track.track_id[0] for one in chosen) in (["a", "c"], ["b", "c"])


def test_pieces_of_a_song_are_in_one_fold(tmp_path: Path) -> None:
    tracks = written(tmp_path, list("abcd"))
    songs = [
        Track(one.track_id, one.path, "test", 0, song=f"song {one.track_id in 'ab'}")
        for one in tracks
    ]
    chosen = choose(songs, KnownDigests(tmp_path / "known"), "toy", SETTINGS)
    folds: dict[str, set[int]] = {}
    for one in chosen:
        folds.setdefault(one.unit, set()).add(one.fold)
    assert len(folds) == 2
    assert all(len(found) == 1 for found in folds.values())


def test_layers_against_layers_are_on_request() -> None:
    layout = layout_of(Statistics(), SETTINGS)
    assert layout.plain_pairs == ()
    settings = SimilarityConfig(["mel", "h0"], True, "input", 10, 0.2, 3, 0)
    layout = layout_of(Statistics(), settings)
    assert layout.plain_pairs == (("h01", "h02"),), "layer 0 is an input already"
    assert layout.dims == {"mel": 128, "h00": 2, "h01": 2, "h02": 2}


def test_a_backbone_without_layers_has_nothing_to_count(tmp_path: Path) -> None:
    flat = Statistics()
    flat.n_layers = 0
    digests = KnownDigests(tmp_path / "known")
    assert make_collector(SETTINGS, flat, tmp_path, [], digests, "toy") is None
    nothing = SimilarityConfig([], False, "input", 10, 0.2, 3, 0)
    assert make_collector(nothing, Statistics(), tmp_path, [], digests, "toy") is None
