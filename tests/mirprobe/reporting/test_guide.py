"""Which layer to take: profiles made by hand, with what follows from them in the head."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import yaml
from toy_rows import save_study

from mirprobe.cell import Cell
from mirprobe.reporting.figures import LayerProfile, Panel
from mirprobe.reporting.guide import guide_json, guide_text, make_guide, model_index
from mirprobe.reporting.report import write_guide
from mirprobe.reporting.table import make_table_rows

NAN = float("nan")


def profile(
    task: str,
    val: Sequence[float],
    test: Sequence[float],
    *,
    level: str = "acoustic",
    best: Sequence[int] = (),
    metric: str = "accuracy",
) -> LayerProfile:
    return LayerProfile(
        task,
        "",
        np.array(val),
        np.array(test),
        level=level,
        best_set=frozenset(best),
        task_name=task.lower(),
        metric_name=metric,
    )


PITCH = profile("Pitch", [90, 80, 50, 40], [88, 82, 45, 41], best=(0, 1))
KEY = profile("Key", [60, 70, 64, 20], [61, 66, 67, 30], level="comprehensive", best=(1, 2))
GENRE = profile("Genre", [30, 50, 60, 58], [31, 52, 57, 59], level="semantic", best=(2, 3))
ALL = Panel("toy", [PITCH, KEY, GENRE])


def test_a_known_task_takes_the_layer_chosen_on_val_with_its_score_on_test() -> None:
    choices = make_guide(ALL, "toy", is_demo=False).choices
    assert [(one.task, one.layer, one.score) for one in choices] == [
        ("Pitch", 0, 88),
        ("Key", 1, 66),
        ("Genre", 2, 57),
    ]
    assert choices[1].best_set == [1, 2]


def test_transfer_is_lost_on_test_by_the_layer_of_the_line() -> None:
    guide = make_guide(ALL, "toy", is_demo=False)
    assert guide.transfer == [
        [0.0, 5.0, 26.0],  # layer 0: key 66 - 61, genre 57 - 31
        [6.0, 0.0, 5.0],
        [43.0, -1.0, 0.0],  # layer 2 is above the chosen one on key's test
    ]


def test_an_unknown_task_takes_the_layer_of_the_least_mean_regret_on_val() -> None:
    """Regrets of layers 0 to 3: pitch 0 10 40 50, key 10 0 6 50, genre 30 10 0 2."""
    guide = make_guide(ALL, "toy", is_demo=False)
    assert guide.any_task_layer == 1
    # Key and genre choose layer 2 (3 points), which loses 43 on pitch; pitch and genre layer 1, the
    # best of key; pitch and key 0 or 1, both with 5 points: the lower loses 26 on genre.
    assert guide.loss_on_new_task == 23.0
    assert guide.worst_on_new_task == 43.0


def test_a_task_of_two_metrics_counts_once() -> None:
    twice = [profile("Genre", [0, 9], [0, 9], metric=metric) for metric in ("one", "other")]
    once = [profile("Pitch", [6, 0], [6, 0])]
    guide = make_guide(Panel("toy", [*twice, *once]), "toy", is_demo=False)
    assert guide.any_task_layer == 1  # 9 against 6
    many = [profile("Genre", [0, 5], [0, 5], metric=metric) for metric in ("one", "other")]
    assert make_guide(Panel("toy", [*many, *once]), "toy", is_demo=False).any_task_layer == 0


def test_families_choose_among_their_own_tasks() -> None:
    other = profile("Singer", [50, 80, 50, 40], [1, 2, 3, 4])
    guide = make_guide(Panel("toy", [PITCH, other, GENRE]), "toy", is_demo=False)
    assert guide.family_layers == {"acoustic": 1, "semantic": 2}


def test_a_backbone_is_cut_where_no_task_loses_its_layer() -> None:
    guide = make_guide(ALL, "toy", is_demo=False)
    assert guide.deepest_chosen == 2
    assert guide.deepest_needed == 2
    shallow = profile("Genre", [30, 50, 60, 58], [31, 52, 57, 59], best=(0, 1, 2))
    guide = make_guide(Panel("toy", [PITCH, KEY, shallow]), "toy", is_demo=False)
    assert (guide.deepest_chosen, guide.deepest_needed) == (2, 1)
    unknown = profile("Genre", [30, 50, 60, 58], [31, 52, 57, 59])
    guide = make_guide(Panel("toy", [PITCH, unknown]), "toy", is_demo=False)
    assert guide.deepest_needed is None


def test_layers_without_a_score_are_never_recommended() -> None:
    partly = profile("Pitch", [NAN, 80, 50], [NAN, 82, 45])
    nothing = profile("Key", [NAN] * 3, [NAN] * 3)
    genre = profile("Genre", [90, 50, 20], [90, 50, 20])
    guide = make_guide(Panel("toy", [partly, nothing, genre]), "toy", is_demo=False)
    assert [(one.task, one.layer) for one in guide.choices] == [("Pitch", 1), ("Genre", 0)]
    assert guide.any_task_layer == 1
    assert guide.transfer[1][0] is None
    assert make_guide(Panel("toy", [nothing]), "toy", is_demo=False).choices == []


def test_a_single_task_says_nothing_of_a_new_one() -> None:
    guide = make_guide(Panel("toy", [PITCH]), "toy", is_demo=False)
    assert (guide.any_task_layer, guide.loss_on_new_task) == (0, None)
    assert "Layers chosen so without" not in guide_text([guide])


# -- as text ---------------------------------------------------------------------------------------


def test_the_block_for_a_model_card_is_yaml_with_the_scores() -> None:
    (entry,) = yaml.safe_load(model_index(make_guide(ALL, "toy", is_demo=False)))["model-index"]
    assert entry["name"] == "toy"
    first = entry["results"][0]
    assert first["dataset"] == {"type": "pitch", "name": "Pitch"}
    assert first["metrics"][0]["type"] == "accuracy" and first["metrics"][0]["value"] == 88
    demo = yaml.safe_load(model_index(make_guide(ALL, "toy", is_demo=True)))["model-index"]
    assert "stand-in" in demo[0]["results"][0]["dataset"]["name"]


def test_the_text_says_all_of_it_and_escapes_names() -> None:
    odd = profile("<script>|", [90, 80, 50, 40], [88, 82, 45, 41], best=(0,))
    text = guide_text([make_guide(Panel("muq", [odd, KEY]), "muq", is_demo=True)])
    head = text.partition("```yaml")[0]
    assert "<script>" not in head and r"&lt;script&gt;\|" in head
    assert "For an unknown task: layer 0" in head
    assert "HookTheory melody" in head and "Demo data" in head
    assert "Cut after layer 1 of 3" in head


def test_identical_rows_give_identical_guides(compose: Callable[..., list[Cell]]) -> None:
    cells = compose("task=nsynth_pitch,emomusic_emotion", "model=fcpe,muq")
    save_study(cells, {"fcpe": 7, "muq": 13})
    folder = cells[0].folder.parents[2]
    written = write_guide(make_table_rows(cells), folder)
    content = [path.read_bytes() for path in written]
    again = write_guide(make_table_rows(cells), folder)
    assert [path.read_bytes() for path in again] == content
    guides = json.loads(content[1])
    assert [(guide["model"], guide["n_layers"]) for guide in guides] == [("fcpe", 7), ("muq", 13)]
    assert guides[0]["by_others"] == [] and len(guides[1]["by_others"]) > 3


def test_json_is_the_guide() -> None:
    (read,) = json.loads(guide_json([make_guide(ALL, "toy", is_demo=False)]))
    assert read["any_task_layer"] == 1 and read["choices"][0]["task"] == "Pitch"
