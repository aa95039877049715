"""The command line: what it teaches, and one line with exit code 2 for what users can put right."""

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules.card import Archive, Card
from datamodules.datasets.nsynth import NSynthPitch
from mirprobe.__main__ import main
from mirprobe.command import VERBS


def test_help_names_every_verb_and_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    names = ("fcpe", "fbank_chroma", "nsynth_pitch", "giantsteps_key", "mlp512", "local", "wandb")
    for word in (*VERBS, *names):
        assert word in text


def test_list_names_models_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "fcpe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=fcp"], "unknown model 'fcp', did you mean 'fcpe'?. Known: fbank_chroma, fcpe"),
        (["task=nsynth_pich"], "unknown task 'nsynth_pich', did you mean 'nsynth_pitch'?"),
        (["protocol.learning_rate=1"], "unknown setting 'protocol.learning_rate'"),
        (["protocol.patiense=1"], "did you mean 'protocol.patience'?"),
        (["protocol.lr=fast"], "could not be converted to Float (protocol.lr)"),
        (["protocol.lr=0"], "protocol.lr must be more than 0, found 0.0"),
        (["sweep"], "'sweep' is not a setting: write key=value"),
        (["data.root=/nowhere"], "no nsynth data: /nowhere/NSynth is not a folder. Set data.root"),
        (["model.checkpoint=/nowhere.pt"], "no weights for model fcpe: /nowhere.pt does not exist"),
        (
            ["data.exclude=[nobody]"],
            "data.exclude names 1 tracks that nsynth does not have (first: nobody)",
        ),
        (
            ["launcher.accelerator=tpu"],
            "unknown launcher.accelerator 'tpu'. Known: auto, cpu, gpu, mps",
        ),
        (["seed=-1"], "seed must be from 0 to 4294967295, found -1"),
        (["paths.features=/proc/none"], "cannot make the folder /proc/none"),
        (["launcher.devices=0"], "launcher.devices must be auto or a number of processes, found 0"),
        (
            ["task.select_by=r2"],
            "task.select_by=r2 does not fit nsynth_pitch, a classification task: set one of "
            "accuracy\n",
        ),
        (
            ["task.select_by=key_weighted"],
            "key_weighted does not fit nsynth_pitch, a classification task (it counts on 24: "
            "C major .. B minor in this order, the task has 128: 1 .. 128): set one of accuracy\n",
        ),
        (["+task.metrics=[accuracy,r2]"], "task.metrics=r2 does not fit nsynth_pitch"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(
    arguments: list[str],
    expected: str,
    settings: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sweep", *settings("task=nsynth_pitch", "baseline=null"), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.startswith("mirprobe: ") and error.count("\n") == 1


def test_fetch_of_unknown_weights_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "model=musicfm", "model.weights=foo"]) == 2
    assert "unknown model.weights=foo: set it to one of msd, fma, random" in capsys.readouterr().err


def test_fetch_of_data_downloads_what_the_loader_reads(
    notes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served = tmp_path / "served"
    serve = partial(SimpleHTTPRequestHandler, directory=str(served))
    server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
    archives = []
    for split in ("train", "valid", "test"):
        base = str(served / split)
        packed = shutil.make_archive(base, "gztar", notes_root / "NSynth", f"nsynth-{split}")
        url = f"http://127.0.0.1:{server.server_port}/{Path(packed).name}"
        sha256 = hashlib.sha256(Path(packed).read_bytes()).hexdigest()
        archives.append(Archive(url, Path(packed).name, sha256=sha256))
    card = Card("Notes", "CC0", "nobody", "by hand", tuple(archives))
    monkeypatch.setattr(NSynthPitch, "card", card)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    often = {"poll_interval": 0.02}
    threading.Thread(target=server.serve_forever, kwargs=often, daemon=True).start()
    asked = ["task=nsynth_pitch", f"data.root={tmp_path / 'data'}"]
    assert main(["fetch", *asked]) == 0
    server.shutdown()
    server.server_close()
    assert "Notes. Licence: CC0\n" in capsys.readouterr().out
    assert main(["fetch", *asked]) == 0  # nothing is asked for again
    assert main(["data", *asked]) == 0
    assert "nsynth_pitch: train 48" in capsys.readouterr().out


def test_fetch_of_data_wants_a_place_and_an_archive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "task=nsynth_pitch,nsynth_instrument"]) == 2
    assert capsys.readouterr().err.startswith(
        "mirprobe: datasets need a place: add data.root=DIR, the folder in which"
    )
    assert main(["fetch", "task=musictaste_rap,giantsteps_key"]) == 2
    shown = capsys.readouterr()
    assert "MusicTaste/ratings.csv" in shown.out and "giantsteps-mtg-key-dataset" in shown.out
    assert shown.err == (
        "mirprobe: no public archive to download for musictaste_rap, giantsteps_key: how to get it "
        "by hand is said above\n"
    )


def test_report_before_a_sweep_says_what_to_run(
    settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *settings("task=nsynth_pitch")]) == 2
    assert "2 of 2 cells have no results (first: " in capsys.readouterr().err


def test_broken_label_file_is_named(
    settings: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "valid", "test"):
        folder = tmp_path / "broken" / "NSynth" / f"nsynth-{split}"
        folder.mkdir(parents=True)
        (folder / "examples.json").write_text("{oops")
    root = f"data.root={tmp_path / 'broken'}"
    assert main(["sweep", *settings("task=nsynth_pitch", "baseline=null"), root]) == 2
    assert "nsynth-train/examples.json is not valid JSON" in capsys.readouterr().err


def test_works_as_a_module_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mirprobe", "list"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "nsynth_pitch" in ran.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["mirprobe.command", "argparse", "mirprobe.verbs", "hydra"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str) -> None:
    """Up to 0.2 s after the start; before that Python itself is not there yet."""
    program = (
        "import os, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.modules.pop('argparse', None)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from mirprobe.__main__ import main\n"
        "sys.exit(main(['sweep']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr.count("mirprobe: stopped by SIGINT") == 1 and "Traceback" not in ran.stderr
