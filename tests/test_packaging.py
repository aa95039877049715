"""The wheel carries what the console script needs; the pins are pins."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("mirprobe-*.whl"))


def test_wheel_holds_configuration_and_split_lists(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"mirprobe/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    assert "datamodules/datasets/splits/gtzan_fault_filtered.txt" in names
    assert not any(
        name.startswith(("tests/", "conf/")) or name.endswith((".sf2", ".pt")) for name in names
    )


def test_installed_wheel_lists_its_models(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "from mirprobe.settings import conf_dir, known; print(conf_dir(), known('model'))"
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {program}"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "site" / "mirprobe" / "conf") in ran.stdout and "'fcpe'" in ran.stdout


def test_every_requirement_is_pinned_by_name_and_version() -> None:
    lines = (ROOT / ".ci" / "requirements.txt").read_text().splitlines()
    pinned = {
        re.split("==", line)[0]
        for line in lines
        if re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+( ; .+)?", line)
    }
    assert len(lines) > 50 and not [
        line for line in lines if not re.match(r"[A-Za-z0-9._-]+==", line)
    ]
    assert {
        "torch",
        "torchaudio",
        "lightning",
        "torchfcpe",
        "pretty-midi",
        "wandb",
        "h5py",
    } <= pinned
    assert "lightning==2.6.2" not in lines and "lightning==2.6.3" not in lines
