"""Outputs of clips and frames, collected into tracks whatever the batches."""

import subprocess
import sys
from pathlib import Path

import pytest
import sklearn.metrics
import torch
from devices import DEVICES
from torch import Tensor

from mirprobe.probing.outputs import TrackConfusion, TrackLogits

# -- logits ----------------------------------------------------------------------------------------
H, N, C = 3, 4, 5
TRACK = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])  # 3, 1, 2 and 4 clips
LOGITS = torch.randn(H, len(TRACK), C, generator=torch.Generator().manual_seed(0)) * 10


def collected(rows: Tensor, batch_size: int, device: str = "cpu") -> TrackLogits:
    metric = TrackLogits(H, N, C).to(device)
    for batch in rows.split(batch_size):
        metric.update(LOGITS[:, batch].to(device), TRACK[batch].to(device))
    return metric


@pytest.mark.parametrize("device", DEVICES)
def test_logits_of_a_track_are_the_mean_over_its_clips_however_many(device: str) -> None:
    result = collected(torch.arange(10), 10, device).compute().cpu()
    assert result.shape == (H, N, C)
    assert result.dtype == torch.float32
    for track in range(N):
        torch.testing.assert_close(
            result[:, track], LOGITS[:, track == TRACK].mean(dim=1), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_do_not_depend_on_batch_size_and_order(
    batch_size: int, seed: int, device: str
) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        collected(order, batch_size, device).compute().cpu(),
        collected(torch.arange(10), 10).compute(),
        rtol=1e-6,
        atol=1e-6,
    )


def test_one_loud_clip_outvotes_two_quiet_ones() -> None:
    """Logits are averaged, not votes and not probabilities: the three rules disagree here."""
    metric = TrackLogits(1, 1, 2)
    metric.update(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 9.0]]]), torch.tensor([0, 0, 0]))
    torch.testing.assert_close(metric.compute(), torch.tensor([[[2 / 3, 3.0]]]))


def test_probabilities_are_averaged_on_request() -> None:
    """The loud clip wins by its logits; by probabilities the two quiet ones do."""
    clips, track = torch.tensor([[[1.2, 0.0], [1.2, 0.0], [0.0, 3.0]]]), torch.tensor([0, 0, 0])
    logits, probabilities = TrackLogits(1, 1, 2), TrackLogits(1, 1, 2, averages="classification")
    logits.update(clips, track)
    probabilities.update(clips, track)
    assert logits.compute().argmax() == 1 and probabilities.compute().argmax() == 0
    torch.testing.assert_close(
        probabilities.compute()[0, 0].exp(), clips[0].softmax(dim=1).mean(dim=0)
    )
    tags = TrackLogits(1, 1, 2, averages="multilabel")
    tags.update(clips, track)
    torch.testing.assert_close(tags.compute()[0, 0].sigmoid(), clips[0].sigmoid().mean(dim=0))


def test_half_precision_logits_are_summed_exactly_enough() -> None:
    metric = TrackLogits(1, 1, 1)
    for _ in range(3000):
        metric.update(torch.ones(1, 1, 1, dtype=torch.float16), torch.tensor([0]))
    assert metric.compute().item() == 1.0


def test_reset_forgets_the_epoch_before() -> None:
    metric = collected(torch.arange(10), 4)
    metric.reset()
    metric.update(LOGITS, TRACK)
    torch.testing.assert_close(metric.compute(), collected(torch.arange(10), 10).compute())


def test_two_ranks_sum_to_the_same_logits_as_one_process() -> None:
    """What torchmetrics does under DDP, with a gather that hands over the other rank's state."""
    whole = collected(torch.arange(10), 10).compute()
    ranks = [
        collected(rows, 3)
        for rows in (torch.tensor([0, 3, 4, 9, 6]), torch.tensor([1, 2, 5, 7, 8]))
    ]
    for mine, other in (ranks, ranks[::-1]):
        states = {3: other.total.clone(), 1: other.count.clone()}

        def gather(
            value: Tensor, group: object = None, states: dict[int, Tensor] = states
        ) -> list[Tensor]:
            return [value, states[value.dim()]]

        mine.dist_sync_fn, mine.distributed_available_fn = gather, lambda: True
        torch.testing.assert_close(mine.compute(), whole, rtol=1e-6, atol=1e-6)
        mine.distributed_available_fn = lambda: False


RANKS_PROGRAM = """
import sys; sys.path[:0] = sys.argv[4:]
import torch
from mirprobe.probing.outputs import TrackConfusion, TrackLogits
rank, rendezvous, shares = int(sys.argv[1]), sys.argv[2], torch.load(sys.argv[3])
torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
logits, track, target = shares[rank]
of_clips, of_frames = TrackLogits(3, 4, 5), TrackConfusion(3, 4, 5)
of_clips.update(logits, track)
of_frames.update(logits, track, target)
gathered = of_clips.compute(), of_frames.compute()
torch.save(gathered, f"{rendezvous}.{rank}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.trial
def test_two_processes_gather_what_one_collects(tmp_path: Path) -> None:
    """With the real gather of torch.distributed; a rank has clips of tracks that the other has."""
    rows = torch.tensor([0, 3, 4, 9, 6]), torch.tensor([1, 2, 5, 7, 8])
    shares = [(LOGITS[:, some], TRACK[some], TRACK[some] % C) for some in rows]
    torch.save(shares, tmp_path / "shares.pt")
    rendezvous = tmp_path / "rendezvous"
    files = [str(rendezvous), str(tmp_path / "shares.pt")]
    command = [sys.executable, "-c", RANKS_PROGRAM]
    path = [entry for entry in sys.path if entry]
    ranks = [subprocess.Popen([*command, str(rank), *files, *path]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]

    whole = TrackConfusion(H, N, C)
    whole.update(LOGITS, TRACK, TRACK % C)
    for rank in range(2):
        logits, counts = torch.load(f"{rendezvous}.{rank}")
        expected = collected(torch.arange(10), 10).compute()
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(counts, whole.compute())


# -- frames ----------------------------------------------------------------------------------------

N_CLASSES, N_TRACKS = 5, 30


def frames() -> tuple[Tensor, Tensor, Tensor]:
    """(H, M) predicted and (M,) true classes of frames, and (M,) their tracks, of unequal length;
    class 3 is rare.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (N_TRACKS,), generator=generator)
    track = torch.arange(N_TRACKS).repeat_interleave(lengths)

    shares = torch.tensor([5.0, 3, 2, 0.1, 1])
    target = torch.multinomial(shares, len(track), replacement=True, generator=generator)
    guess = torch.randint(N_CLASSES, (2, len(track)), generator=generator)
    is_right = torch.rand(guess.shape, generator=generator) < 0.5
    return torch.where(is_right, target, guess), target, track


def confusion(
    predicted: Tensor, target: Tensor, track: Tensor, batch_size: int, device: str = "cpu"
) -> Tensor:
    """(H, N, C, C) counts through the collector, in batches of that size."""
    collector = TrackConfusion(len(predicted), N_TRACKS, N_CLASSES).to(device)
    logits = torch.nn.functional.one_hot(predicted, N_CLASSES).float()
    for batch in torch.arange(len(track)).split(batch_size):
        of_batch = logits[:, batch], track[batch], target[batch]
        collector.update(*(tensor.to(device) for tensor in of_batch))
    counts: Tensor = collector.compute().cpu()
    return counts


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_frames_are_counted_once_whatever_the_batches(batch_size: int, device: str) -> None:
    predicted, target, track = frames()
    counts = confusion(predicted, target, track, batch_size, device)
    assert torch.equal(counts, confusion(predicted, target, track, 10**6))
    assert counts.sum(dim=(1, 2, 3)).tolist() == [len(track)] * 2

    for one in (0, 7, 29):
        of_track = track == one
        expected = sklearn.metrics.confusion_matrix(
            target[of_track], predicted[1, of_track], labels=range(N_CLASSES)
        )
        assert counts[1, one].tolist() == expected.tolist()
        true = target[of_track].bincount(minlength=N_CLASSES)
        assert counts[0, one].sum(dim=1).tolist() == true.tolist()


def test_reset_forgets_the_frames_before() -> None:
    predicted, target, track = frames()
    collector = TrackConfusion(2, N_TRACKS, N_CLASSES)
    logits = torch.nn.functional.one_hot(predicted, N_CLASSES).float()
    collector.update(logits, track, target)
    collector.reset()
    collector.update(logits, track, target)
    assert torch.equal(collector.compute(), confusion(predicted, target, track, 10**6))
