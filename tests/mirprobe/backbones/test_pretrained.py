import json

import pytest
import torch
from torch import nn

from datamodules.errors import UserError
from mirprobe.backbones.pretrained import (
    check_complete,
    check_unsaved,
    lasting,
    refuse_code_from_elsewhere,
)


class Positions(nn.Module):
    """A table that no file holds, as of rotary positions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.register_buffer("saved", torch.zeros(1))


def test_a_table_that_loading_left_uninitialised_is_refused():
    loaded, fresh = Positions(), Positions()
    loaded.saved += 1  # read from a file: it may differ
    check_unsaved(loaded, fresh)
    loaded.table[2] = 1e30
    with pytest.raises(UserError, match="table of Positions is not what it is computed to be"):
        check_unsaved(loaded, fresh)


def test_missing_keys_are_counted_and_named():
    model, told = nn.Linear(1, 1), {"missing_keys": {"masked_spec_embed"}, "mismatched_keys": set()}
    check_complete(model, told)
    problem = r"weights of Linear: 2 keys are missing or of another shape \(first: a\)"
    with pytest.raises(UserError, match=problem):
        check_complete(model, {"missing_keys": {"b", "a"}, "mismatched_keys": set()})
    with pytest.raises(UserError, match="1 keys are missing or of another shape"):
        check_complete(model, {**told, "mismatched_keys": {("c", (1,), (2,))}})


def test_code_of_another_repository_is_refused(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auto_map": {"AutoModel": "modeling.Net"}}))
    refuse_code_from_elsewhere(tmp_path)

    elsewhere = {"auto_map": {"AutoTokenizer": [None, "evil/code--modeling.Net"]}}
    config.write_text(json.dumps(elsewhere))
    with pytest.raises(UserError, match=r"takes the code of evil/code--modeling\.Net from"):
        refuse_code_from_elsewhere(tmp_path)

    config.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        refuse_code_from_elsewhere(tmp_path)


def test_a_config_of_another_version_of_the_library_is_the_same_config():
    config = {"hidden_size": 4, "transformers_version": "5.1", "dtype": torch.float32}
    assert lasting(config) == {"hidden_size": 4}
