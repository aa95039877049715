"""The wheel carries what the console script needs; the pins are pins."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    assert "mirprobe/reporting/published.yaml" in names
    for name in ("page.html.jinja", "page.css", "page.js"):
        assert f"mirprobe/reporting/{name}" in names
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


BAD_RELEASES = {
    "lightning": ("2.6.2", "2.6.3"),  # malicious uploads (GHSA-w37p-236h-pfx3)
    "hydra-core": ("1.3.7",),  # `instantiate`, CVE-2026-68508
}


def requirements() -> list[Requirement]:
    """Those of the package and of its extras, as an installer without our pins reads them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


@pytest.mark.parametrize(
    ("name", "version"), [(name, one) for name, bad in BAD_RELEASES.items() for one in bad]
)
def test_a_bad_release_is_refused_by_name(name: str, version: str) -> None:
    """Also where it is asked for: without pins, or with pins that were compiled meanwhile."""
    (wanted,) = [one for one in requirements() if one.name == name]
    assert not wanted.specifier.contains(version)
    pins = (ROOT / ".ci" / "requirements.txt").read_text().splitlines()
    assert f"{name}=={version}" not in pins


def test_every_pin_is_a_version_that_the_package_asks_for() -> None:
    lines = (ROOT / ".ci" / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines]
    for wanted in requirements():
        name = wanted.name.replace("_", "-")
        versions = [next(iter(pin.specifier)).version for pin in pins if pin.name == name]
        assert versions, name
        assert all(wanted.specifier.contains(one, prereleases=True) for one in versions), name
