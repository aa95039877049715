"""The settings of W&B are looked at before any work."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules.errors import UserError
from mirprobe.reporting import tracking
from mirprobe.reporting.tracking import check_dashboard, choose_mode
from mirprobe.settings import compose_cell


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("WANDB_", "SLURM_")):
            del os.environ[name]
    os.environ["HOME"] = str(tmp_path)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_BASE_URL", "nonsense"),
        ("WANDB_PROJECT", "a/b"),
        ("WANDB_PROJECT", "x" * 200),
        ("WANDB_TAGS", ","),
        ("WANDB_SILENT", "perhaps"),
        ("WANDB_HTTP_TIMEOUT", "soon"),
    ],
)
def test_a_variable_that_wandb_refuses_is_named(name: str, value: str) -> None:
    os.environ[name] = value
    with pytest.raises(UserError, match=rf"^W&B does not take {name}=.*logger=none$") as error:
        check_dashboard([compose_cell([])])
    assert "\n" not in str(error.value)


def test_a_project_that_wandb_refuses_names_its_key() -> None:
    with pytest.raises(UserError, match=r"W&B does not take logger\.project=a/b \(Invalid project"):
        check_dashboard([compose_cell(["logger.project=a/b"])])


def test_what_wandb_takes_is_let_pass() -> None:
    os.environ |= {"WANDB_MODE": "auto", "WANDB_TAGS": "a,b", "WANDB_SILENT": "true"}
    check_dashboard([compose_cell([])])


def test_nothing_is_looked_at_where_no_run_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "import_wandb", lambda: pytest.fail("wandb was imported"))
    os.environ["WANDB_SILENT"] = "perhaps"
    check_dashboard([compose_cell(["logger=none"])])
    os.environ["WANDB_MODE"] = "disabled"
    check_dashboard([compose_cell([])])


def test_a_netrc_that_is_no_text_holds_no_key(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_bytes(b"machine caf\xe9 login a password b\n")
    assert choose_mode(compose_cell([])) == "offline"
