import hashlib
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
from golden_recipe import REDUCED, SmallMuQ, SmallMusicFM, published_checkpoint, waveform
from safetensors.torch import save_file

from datamodules.errors import UserError
from mirprobe.backbones.checkpoint import CheckpointSpec, read_state, sha256, verify
from mirprobe.backbones.conformer_state import published_shapes
from mirprobe.backbones.random_weights import draw_state

SMALL = {"musicfm": (SmallMusicFM, "msd"), "muq": (SmallMuQ, "msd_iter")}
WINDOW = "model.preprocessor_melspec_2048.mel_stft.spectrogram.window"
PROJECTION = "model.conv.linear.weight"


@pytest.fixture(scope="module", params=list(SMALL))
def tag(request):
    return request.param


@pytest.fixture(scope="module")
def content(tag):
    """Everything that a published file of `tag` holds, in the reduced size."""
    return checkpoint_of(tag)


def checkpoint_of(tag):
    backbone = SMALL[tag][0](weights="random")
    return published_checkpoint(backbone, draw_state(tag, published_shapes(REDUCED)))


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save({"state_dict": state}, path)
    return path


def load(tag: str, path: Path):
    backbone, weights = SMALL[tag]
    return backbone(weights=weights, checkpoint=str(path))


def refusal(tag: str, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(tag, path)
    text = str(caught.value)
    assert "\n" not in text
    assert f"mirprobe fetch model={tag}" in text
    assert str(path) in text
    return text


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_both_containers_load_to_the_same_states(tag, content, suffix, tmp_path):
    audio = waveform("w1s")
    loaded = load(tag, save(tmp_path / f"weights{suffix}", content))
    assert torch.equal(loaded(audio), SMALL[tag][0](weights="random")(audio))


def test_old_and_new_weight_norm_and_any_counter_are_accepted(tag, content, tmp_path):
    old = {}
    for key, tensor in content.items():
        with_g = key.replace("parametrizations.weight.original0", "weight_g")
        old[with_g.replace("parametrizations.weight.original1", "weight_v")] = tensor
    assert old.keys() != content.keys()

    counters = {key: torch.tensor(95489.0) for key in old if key.endswith("num_batches_tracked")}
    assert len(counters) == 9
    assert load(tag, save(tmp_path / "old.pt", old | counters)).n_layers == 3


def test_stored_window_is_used(tmp_path):
    content = checkpoint_of("musicfm")
    ten_times = content | {WINDOW: 10 * content[WINDOW]}
    louder = load("musicfm", save(tmp_path / "louder.pt", ten_times))
    plain = load("musicfm", save(tmp_path / "plain.pt", content))

    difference = louder.mel(waveform("w1s")) - plain.mel(waveform("w1s"))
    expected = torch.full_like(difference, 20 / 18.417922652295623)  # 20 dB over their std
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-4)
    assert louder.fingerprint() != plain.fingerprint()


def test_weights_do_not_depend_on_the_file_after_loading(tag, content, tmp_path):
    path = save(tmp_path / "weights.pt", content)
    backbone = load(tag, path)
    before = backbone.fingerprint()
    path.write_bytes(bytes(path.stat().st_size))
    assert backbone.fingerprint() == before


def test_weights_of_the_other_backbone_are_refused(tmp_path):
    text = refusal("musicfm", save(tmp_path / "model.safetensors", checkpoint_of("muq")))
    problem = "2 keys missing (first: preprocessor_melspec_2048.mel_stft"
    assert f"does not hold SmallMusicFM weights: {problem}" in text
    assert "4 keys unknown (first: model.rvq.quantizers" in text
    text = refusal("muq", save(tmp_path / "pretrained_msd.pt", checkpoint_of("musicfm")))
    assert "3 keys unknown (first: model.preprocessor_melspec_2048.mel_stft" in text


def test_missing_keys_are_named_and_counted(tag, content, tmp_path):
    gone = "layers.1.self_attn.linear_v"
    rest = {key: tensor for key, tensor in content.items() if gone not in key}
    text = refusal(tag, save(tmp_path / "x.pt", rest))
    assert "2 keys missing (first: conformer.layers.1.self_attn.linear_v.weight)" in text


def test_unknown_keys_are_named_and_counted(tag, content, tmp_path):
    text = refusal(tag, save(tmp_path / "x.pt", content | {"model.head.weight": torch.zeros(1)}))
    assert "1 keys unknown (first: model.head.weight)" in text


def test_keys_without_the_prefix_are_unknown(tag, content, tmp_path):
    bare = {key.removeprefix("model."): tensor for key, tensor in content.items()}
    text = refusal(tag, save(tmp_path / "x.pt", bare))
    assert f"{len(content)} keys unknown" in text


@pytest.mark.parametrize(
    "value", [torch.zeros(128, 512), torch.zeros(128, 1024, dtype=torch.int64)]
)
def test_shape_and_type_are_checked(tag, content, value, tmp_path):
    text = refusal(tag, save(tmp_path / "x.pt", content | {PROJECTION: value}))
    found = f"{value.dtype} {tuple(value.shape)}"
    assert f"(first: conv.linear.weight is {found} instead of (128, 1024))" in text


def test_another_rotary_base_is_refused(tag, content, tmp_path):
    key = "model.conformer.embed_positions.inv_freq"
    text = refusal(tag, save(tmp_path / "x.pt", content | {key: content[key] * 1.01}))
    assert "conformer.embed_positions.inv_freq has other values" in text


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("left", [0.9, 0.01])
def test_truncated_download_is_refused(tag, content, suffix, left, tmp_path):
    path = save(tmp_path / f"x{suffix}", content)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    assert "is damaged or cut short (" in refusal(tag, path)


def test_error_page_saved_as_weights_is_refused(tag, tmp_path):
    path = tmp_path / "x.pt"
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    problem = "is neither a PyTorch zip file nor safetensors: it starts with b'<!DOCTYPE html><'"
    assert problem in refusal(tag, path)

    path.write_bytes(b"")
    assert "it starts with b''" in refusal(tag, path)


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("in_zip", [True, False])
def test_code_in_a_pickle_is_not_run(tag, content, in_zip, tmp_path):
    path, mark = tmp_path / "x.pt", tmp_path / "was_run"
    payload = {"state_dict": content, "extra": Trap(mark)}
    torch.save(payload, path, _use_new_zipfile_serialization=in_zip)
    problem = "Python code or objects besides tensors; refused, and nothing of it was run"
    assert (problem if in_zip else "neither a PyTorch") in refusal(tag, path)

    path.write_bytes(pickle.dumps(Trap(mark)))
    assert "neither a PyTorch zip file" in refusal(tag, path)
    assert not mark.exists()


def test_missing_state_dict_is_refused(tag, content, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": content, "epoch": 3}, path)
    assert "has no state_dict of tensors (found: model, epoch)" in refusal(tag, path)
    torch.save(content, path)
    assert "has no state_dict of tensors (found: model." in refusal(tag, path)
    torch.save([1, 2], path)
    assert "has no state_dict of tensors (found: list)" in refusal(tag, path)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({1: torch.zeros(1)}, "Tensor under the key 1"),
        ({"model.a": torch.zeros(1), ("b", 2): torch.zeros(1)}, "Tensor under the key ('b', 2)"),
        ({"model.a": [1, 2]}, "list under the key 'model.a'"),
    ],
)
def test_keys_that_are_no_names_and_values_that_are_no_tensors_are_named(
    tag, state, found, tmp_path
):
    path = tmp_path / "x.pt"
    torch.save({"state_dict": state}, path)
    assert f"has no state_dict of tensors (found: {found})" in refusal(tag, path)


def coded(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.zeros(128, 1024).to_sparse(), "torch.sparse_coo torch.float32 on cpu"),
        (torch.zeros(128, 1024).to_sparse_csr(), "torch.sparse_csr torch.float32 on cpu"),
        (torch.zeros(128, 1024, device="meta"), "torch.strided torch.float32 on meta"),
        (coded((128, 1024)), "torch.strided torch.qint8 on cpu"),
    ],
)
def test_tensors_without_all_of_their_numbers_are_refused(tag, content, value, found, tmp_path):
    text = refusal(tag, save(tmp_path / "x.pt", content | {PROJECTION: value}))
    assert f"(first: conv.linear.weight is {found} instead of plain numbers)" in text


def test_a_sparse_tensor_has_no_values_to_compare(tag, content, tmp_path):
    key = "model.conformer.embed_positions.inv_freq"
    text = refusal(tag, save(tmp_path / "x.pt", content | {key: content[key].to_sparse()}))
    assert "conformer.embed_positions.inv_freq has other values" in text


def test_a_key_with_a_line_break_breaks_no_line(tag, content, tmp_path):
    odd = {"model.a\nb": torch.zeros(1), "model.\x1b[2J" + 200 * "c": torch.zeros(1)}
    for key, value in odd.items():
        text = refusal(tag, save(tmp_path / "x.pt", content | {key: value}))
        assert "1 keys unknown (first: " in text
        assert text.isprintable() and len(text) < 500


def test_a_file_that_may_not_be_read_is_refused(tag, content, tmp_path, monkeypatch):
    path = save(tmp_path / "x.pt", content)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert f"{path} cannot be read (Permission denied)" in refusal(tag, path)
    with pytest.raises(UserError, match=r"x\.pt cannot be read \(Permission denied\)\. Do that"):
        verify(path, n_bytes=path.stat().st_size, digest="", remedy="Do that")


def test_a_name_longer_than_the_system_takes_is_no_file(tag, tmp_path):
    path = tmp_path / (5000 * "x")
    assert f"no checkpoint at {path}" in refusal(tag, path)


def damage(content: bytes, rng: random.Random) -> bytes:
    """A file with some bytes overwritten, taken out or put in, most of them in its first part.

    There the names are, and the pickle of a zip file.
    """
    damaged = bytearray(content)
    place = rng.randrange(len(content) if rng.random() < 0.3 else min(len(content), 1000))
    odd = rng.randbytes(rng.randint(1, 32))
    change = rng.choice(["overwrite", "take out", "put in"])
    end = place if change == "put in" else place + len(odd)
    damaged[place:end] = b"" if change == "take out" else odd
    return bytes(damaged)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_whatever_is_damaged_in_a_file_is_one_line_or_changes_no_key(suffix, tmp_path):
    """In 150 files of each kind; 12,000 gave four kinds of tracebacks, IndexError the most."""
    names = ["a.weight", "b.weight", "c.bias"]
    spec = CheckpointSpec("X", dict.fromkeys(names, (3, 4)))
    state = {f"model.{name}": torch.randn(3, 4) for name in names}
    whole = save(tmp_path / f"whole{suffix}", state).read_bytes()
    path, rng, n_refused = tmp_path / "damaged", random.Random(0), 0

    for _ in range(150):
        path.write_bytes(damage(whole, rng))
        try:
            found, _n_ignored = read_state(path, spec, remedy="Fetch it again")
        except UserError as error:
            n_refused += 1
            assert str(path) in str(error) and str(error).endswith("Fetch it again")
            assert str(error).isprintable() and len(str(error)) < 600
        else:
            assert {name: tuple(tensor.shape) for name, tensor in found.items()} == spec.needed
    assert n_refused > 75


def raising(error: Exception):
    def load(*_: object, **__: object) -> None:
        raise error

    return load


@pytest.mark.parametrize(
    "error",
    [
        IndexError("pop from empty list"),
        AssertionError("saved_id must be a tuple, got int"),
        TypeError("unhashable type: 'collections.OrderedDict'"),
        AttributeError("'int' object has no attribute 'storage'"),
        OverflowError("Python int too large to convert to C long"),
        struct.error("unpack requires a buffer of 4 bytes"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        MemoryError("Unable to allocate 8.00 EiB"),
    ],
)
def test_what_torch_raises_of_a_damaged_zip_file_is_one_line(tag, error, tmp_path, monkeypatch):
    path = save(tmp_path / "x.pt", {})
    monkeypatch.setattr(torch, "load", raising(error))
    assert f"is damaged or cut short ({str(error)[:20]}" in refusal(tag, path)


def test_missing_file_is_refused(tag, tmp_path):
    assert f"no checkpoint at {tmp_path / 'x.pt'}" in refusal(tag, tmp_path / "x.pt")


def test_half_precision_file_becomes_float32(tmp_path):
    path = save(tmp_path / "x.pt", {"model.a": torch.ones(2, dtype=torch.float16)})
    assert (
        read_state(path, CheckpointSpec("X", {"a": (2,)}), remedy="")[0]["a"].dtype == torch.float32
    )


def test_verify_names_size_and_checksum(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"abc")
    assert sha256(path) == hashlib.sha256(b"abc").hexdigest()
    verify(path, n_bytes=3, digest=hashlib.sha256(b"abc").hexdigest(), remedy="")

    problem = r"x.pt is not the published file: it has 3 bytes instead of 1,000\. Do that"
    with pytest.raises(UserError, match=problem):
        verify(path, n_bytes=1000, digest="", remedy="Do that")
    with pytest.raises(UserError, match=r"its SHA-256 is not 000000000000\.\.\. Do that"):
        verify(path, n_bytes=3, digest="0" * 64, remedy="Do that")
