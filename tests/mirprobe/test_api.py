"""Python's four names: the same cache, the same rows and the same bits as the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import mirprobe
from datamodules.errors import UserError
from mirprobe.__main__ import main
from mirprobe.api import LoadedBackbone
from mirprobe.arrays import Features
from mirprobe.provenance import stored_results
from mirprobe.settings import compose_cell

RATE, N = 16000, 20
NAMES = [f"{number:02d}.wav" for number in range(N)]
CLASSES = ["low", "high"] * (N // 2)
SPLITS = ["train"] * 10 + ["val"] * 4 + ["test"] * 6
SECONDS = (0.25, 0.3)  # two lengths: features of one must not follow from its neighbours


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty tones, of two pitches that are as many classes."""
    folder = tmp_path_factory.mktemp("own")
    for number, name in enumerate(NAMES):
        time = np.arange(round(RATE * SECONDS[number % 3 // 2])) / RATE
        tone = np.sin(2 * np.pi * (220 + 440 * (number % 2) + number) * time)
        soundfile.write(folder / name, 0.3 * tone, RATE)
    return folder


def settings_in(folder: Path) -> list[str]:
    paths = [f"paths.{name}={folder / name}" for name in ("data", "features", "runs")]
    quick = ["protocol.hidden=16", "protocol.max_epochs=2", "extract.n_workers=0"]
    return [*paths, *quick, "launcher.accelerator=cpu", "logger=none"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return settings_in(tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def features(audio: Path, settings: list[str]) -> Features:
    return mirprobe.features("fcpe", [audio / name for name in NAMES], settings=settings)


@pytest.fixture(scope="module")
def backbone(settings: list[str]) -> LoadedBackbone:
    return mirprobe.load("fcpe", settings=settings)


def shards_of(features: Features) -> list[str]:
    return sorted(path.name for path in features.store.folder.glob("part-*.h5"))


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


# -- import ----------------------------------------------------------------------------------------


def test_import_is_quick_and_loads_nothing_heavy_before_its_names_are_used() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import mirprobe; "
        "took = time.perf_counter() - start; names = set(dir(mirprobe)); "
        "print(took, 'torch' in sys.modules, 'numpy' in sys.modules, "
        "{'load', 'features', 'probe', 'read_rows'} <= names)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    seconds, *heavy = done.stdout.split()
    assert float(seconds) < 0.2
    assert heavy == ["False", "False", "True"]


def test_an_unknown_name_is_no_name_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'extract_all'"):
        _ = mirprobe.extract_all  # type: ignore[attr-defined]


# -- a backbone that is called ---------------------------------------------------------------------


def test_states_of_samples_are_those_that_are_stored_of_their_file_bit_for_bit(
    audio: Path, features: Features, backbone: LoadedBackbone
) -> None:
    stored = features.to_numpy()
    assert stored.shape == (backbone.n_layers + 1, N, backbone.dim)
    for row, name in enumerate(NAMES[:4]):
        states = backbone(*soundfile.read(audio / name, dtype="float32"))
        assert states.shape[0] == 7 and states.shape[2] == 512 and states.dtype == np.float32
        pooled = torch.from_numpy(states).mean(1).half().float().numpy()
        np.testing.assert_array_equal(pooled, stored[:, row])


def test_int16_stereo_of_either_order_tensors_and_doubles_are_the_same_audio(
    audio: Path, backbone: LoadedBackbone
) -> None:
    whole, rate = soundfile.read(audio / NAMES[0], dtype="int16")
    expected = backbone(whole.astype(np.float32) / 32768, rate)
    stereo = np.stack([whole, whole])
    forms = [whole, stereo, stereo.T, torch.from_numpy(whole), torch.from_numpy(whole / 32768.0)]
    for samples in forms:
        np.testing.assert_array_equal(backbone(samples, rate), expected)


def test_another_rate_is_resampled_as_a_file_of_that_rate_is(
    tmp_path: Path, settings: list[str], backbone: LoadedBackbone
) -> None:
    tone = np.sin(np.arange(22050) / 7).astype(np.float32) / 3
    soundfile.write(tmp_path / "a.wav", tone, 44100, subtype="FLOAT")
    stored = mirprobe.features("fcpe", [tmp_path / "a.wav"], settings=settings).to_numpy()
    pooled = torch.from_numpy(backbone(tone, 44100)).mean(1).half().float().numpy()
    np.testing.assert_array_equal(pooled, stored[:, 0])


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        (np.zeros((2, 2, 4000), np.float32), RATE, "shape (2, 2, 4000)"),
        (np.zeros(0, np.float32), RATE, "holds no samples"),
        (np.full(4000, np.nan, np.float32), RATE, "NaN"),
        (np.full(4000, 20000.0), RATE, "expected -1 to 1"),
        (np.zeros(4000, np.int64), RATE, "holds int64"),
        (np.zeros(4000, np.float32), 0, "0 Hz"),
        (np.zeros(10, np.float32), RATE, "needs at least"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_line(
    backbone: LoadedBackbone, samples: np.ndarray, rate: int, said: str
) -> None:
    assert said in refusal(lambda: backbone(samples, rate))


# -- features --------------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_the_files_and_a_layer_is_one_of_all(
    audio: Path, settings: list[str], features: Features
) -> None:
    backwards = (str(audio / name) for name in reversed(NAMES))  # a generator
    again = mirprobe.features("fcpe", backwards, settings=settings)
    assert again.ids == tuple(str(audio / name) for name in reversed(NAMES))
    np.testing.assert_array_equal(again.layer(3), features.to_numpy()[3, ::-1])
    assert "no layer 7: it has 0 (the input) to 6" in refusal(lambda: features.layer(7))
    assert "no layer -1" in refusal(lambda: features.layer(-1))


def test_a_track_of_several_clips_is_their_mean(
    audio: Path, settings: list[str], features: Features
) -> None:
    cut = ["task.clip.seconds=0.125", "task.clip.tail_seconds=null"]
    files = [audio / name for name in NAMES[:2]]
    halves = mirprobe.features("fcpe", files, settings=[*settings, *cut])
    clips = halves.store.read(halves.tracks).read_all().astype(np.float32)
    assert clips.shape[1] == 4
    np.testing.assert_array_equal(halves.to_numpy()[:, 0], (clips[:, 0] + clips[:, 1]) / 2)
    np.testing.assert_array_equal(halves.to_numpy()[:, 1], (clips[:, 2] + clips[:, 3]) / 2)


def table_of(folder: Path) -> Path:
    lines = [f"{name},{label}" for name, label in zip(NAMES, CLASSES, strict=True)]
    table = folder / "own.csv"
    table.write_text("\n".join(["path,label", *lines]) + "\n")
    return table


def test_the_command_line_finds_features_of_python_and_makes_none(
    audio: Path, tmp_path: Path, features: Features, settings: list[str]
) -> None:
    own = [f"task.options.file={table_of(tmp_path)}", f"data.root={audio}", "baseline=null"]
    before = shards_of(features)
    assert main(["extract", "task=manifest", "model=fcpe", *own, *settings]) == 0
    assert shards_of(features) == before


def test_python_finds_features_of_the_command_line_and_makes_none(
    audio: Path, tmp_path: Path, features: Features
) -> None:
    out = settings_in(tmp_path)
    own = [f"task.options.file={table_of(tmp_path)}", f"data.root={audio}", "baseline=null"]
    assert main(["extract", "task=manifest", "model=fcpe", *own, *out]) == 0
    (folder,) = tmp_path.glob("features/manifest-*")
    before = sorted(path.name for path in folder.iterdir())
    found = mirprobe.features("fcpe", [audio / name for name in NAMES], settings=out)
    assert sorted(path.name for path in folder.iterdir()) == before
    np.testing.assert_array_equal(found.to_numpy(), features.to_numpy())


def test_a_broken_file_is_named_the_others_are_stored_and_it_can_be_left_out(
    audio: Path, tmp_path: Path, settings: list[str]
) -> None:
    (tmp_path / "own").mkdir()
    files = [tmp_path / "own" / name for name in ("a.wav", "b.wav", "c.wav")]
    for file, name in zip(files, NAMES, strict=False):
        file.write_bytes((audio / name).read_bytes())
    files[1].write_bytes(b"no audio")

    said = refusal(lambda: mirprobe.features("fcpe", files, settings=settings))
    assert "1 of 3 audio files cannot be used" in said and str(files[1]) in said
    assert "data.exclude=[manifest:b.wav]" in said and "other tracks are stored" in said
    kept = mirprobe.features("fcpe", files, settings=[*settings, "data.exclude=[manifest:b.wav]"])
    assert kept.ids == (str(files[0]), str(files[2])) and len(kept.layer(0)) == 2


def test_files_that_are_no_list_missing_or_named_twice_are_refused(
    audio: Path, settings: list[str]
) -> None:
    def of(files: object) -> str:
        return refusal(lambda: mirprobe.features("fcpe", files, settings=settings))  # type: ignore[arg-type]

    assert "write ['a.wav']" in of("a.wav")
    assert "no files were given" in of(iter([]))
    assert "files must be paths, found 7" in of([7])
    assert "1 files are named twice" in of([audio / NAMES[0], str(audio / NAMES[0])])
    said = refusal(lambda: mirprobe.features("fcpe", [audio], pooling="mean", settings=settings))
    assert "extract.pooling must be clip or a rate such as 1Hz" in said and "found 'mean'" in said
    missing = of([audio / f"{number}.mp3" for number in range(10_000)])
    assert "10000 of 10000 manifest tracks have no audio" in missing
    assert "unknown model 'fcp', did you mean 'fcpe'?" in refusal(lambda: mirprobe.load("fcp"))


@pytest.mark.trial
def test_ten_thousand_files_are_one_table(audio: Path, tmp_path: Path) -> None:
    for number in range(10_000):
        os.link(audio / NAMES[number % N], tmp_path / f"{number}.wav")
    files: Iterator[Path] = (tmp_path / f"{number}.wav" for number in range(10_000))
    found = mirprobe.features("fcpe", files, settings=settings_in(tmp_path / "out"))
    layer = found.layer(1)
    assert layer.shape == (10_000, 512)
    np.testing.assert_array_equal(layer[:N], layer[-N:])


# -- probes ----------------------------------------------------------------------------------------


def test_rows_are_those_of_the_command_line_which_then_has_nothing_to_do(
    features: Features, audio: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    curve = mirprobe.probe(features, CLASSES)
    rows = [{"path": name, "label": c} for name, c in zip(NAMES, CLASSES, strict=True)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    runs = Path(compose_cell(settings).paths.runs)
    (table,) = [path for path in runs.glob("tables/*") if path.read_text() == text]
    own = [f"task.options.file={table}", f"data.root={audio}"]
    capsys.readouterr()
    assert main(["probe", "model=fcpe", "task=manifest", *settings, *own, "baseline=null"]) == 0
    assert capsys.readouterr().out == ""

    (result,) = stored_results(compose_cell([*settings, "model=fcpe", "task=manifest", *own]))
    assert mirprobe.read_rows(result.folder) == list(curve.rows)
    assert curve.best is not None and curve.best.split == "test"


def test_labels_of_a_dict_are_those_of_the_list_and_are_not_probed_again(
    features: Features, capsys: pytest.CaptureFixture[str]
) -> None:
    first = mirprobe.probe(features, CLASSES)
    capsys.readouterr()
    again = mirprobe.probe(features, dict(zip(features.ids, CLASSES, strict=True)))
    assert again == first and capsys.readouterr().out == ""


def test_numbers_with_a_point_are_regression_and_lists_are_tags(features: Features) -> None:
    tags = [["loud", "low"], [], *(["loud"] if n % 2 else ["low"] for n in range(2, N))]
    assert mirprobe.probe(features, tags, splits=SPLITS).metric == "roc_auc"
    assert mirprobe.probe(features, np.linspace(0, 3, N), splits=SPLITS).metric == "r2"
    assert mirprobe.probe(features, np.arange(N) % 2, splits=SPLITS).metric == "accuracy"


def test_groups_and_splits_are_obeyed(features: Features) -> None:
    curve = mirprobe.probe(features, CLASSES, splits=SPLITS)
    assert curve.rows[0].n_tracks == {"train": 10, "val": 4, "test": 6}
    torn = ["one"] * N
    said = refusal(lambda: mirprobe.probe(features, CLASSES, groups=torn, splits=SPLITS))
    assert "1 groups of" in said and "in more than one split" in said


def test_labels_that_do_not_fit_are_refused(features: Features) -> None:
    def of(labels: object, **options: object) -> str:
        return refusal(lambda: mirprobe.probe(features, labels, **options))  # type: ignore[arg-type]

    assert f"19 labels for {N} files" in of(CLASSES[1:])
    some = dict(zip(features.ids[:-2], CLASSES, strict=False))
    assert f"2 of {N} files have no value in labels (first: {features.ids[-2]})" in of(some)
    assert "1 different labels in train" in of(["same"] * N)
    assert "has no label" in of([None, *CLASSES[1:]])
    assert "must be text, numbers or lists" in of([object(), *CLASSES[1:]])
    assert "has label=nan, which is not a number" in of([float("nan")] * N)
    assert "labels of several kinds" in of([0.5, "low"] * (N // 2))
    assert "3 groups for 20 files" in of(CLASSES, groups=["a", "b", "c"])
    assert "unknown protocol 'mlp'" in of(CLASSES, protocol="mlp")


# -- rows ------------------------------------------------------------------------------------------


def test_rows_are_a_list_or_a_table_of_pandas(
    features: Features, settings: list[str], tmp_path: Path
) -> None:
    mirprobe.probe(features, CLASSES)
    runs = compose_cell(settings).paths.runs
    rows, table = mirprobe.read_rows(runs), mirprobe.read_rows(runs, table=True)
    assert list(table["value"]) == [row.value for row in rows]
    assert mirprobe.read_rows(tmp_path) == []
    assert "is not a folder" in refusal(lambda: mirprobe.read_rows(tmp_path / "none"))


def test_without_pandas_a_table_is_refused_and_the_list_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "pip install pandas" in refusal(lambda: mirprobe.read_rows(tmp_path, table=True))
    assert mirprobe.read_rows(tmp_path) == []
