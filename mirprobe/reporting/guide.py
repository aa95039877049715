"""Which layers to take of a model: from the scores of its layers on several tasks.

Conventions: layers are chosen on val, what they lose is measured on test, in points. The loss of a
layer on a task is against the layer chosen on val for that task; a task of several metrics counts
once in every mean. Layers that may be the best are those of the scans. P profiles, L+1 layers.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import yaml

from mirprobe.reporting.figures import LEVELS, Array, LayerProfile, Panel
from mirprobe.reporting.paper_table import escape_markdown, markdown_lines
from mirprobe.reporting.published import layers_by_others
from mirprobe.reporting.text import layers_text, percent_text


@dataclass(frozen=True)
class Choice:
    """The layer to take for a task that is known.

    Attributes:
        task: its label, with what tells it apart.
        task_name: in conf/.
        metric: that chose it.
        level: acoustic, comprehensive or semantic.
        layer: chosen on val.
        score: of that layer on test, in per cent.
        best_set: layers that may be the best; empty where nothing was scanned.
    """

    task: str
    task_name: str
    metric: str
    level: str
    layer: int
    score: float
    best_set: list[int]


@dataclass(frozen=True)
class Guide:
    """What a panel says about the use of a model's layers.

    Attributes:
        model: with its settings.
        is_demo: whether the data is the rendered stand-in.
        n_layers: with the input of the first block.
        choices: for each task and metric.
        family_layers: for each level, the layer that loses least on val over its tasks.
        transfer: points that the layer of choice A (line) loses on B (column); None where it has no
            score.
        any_task_layer: the layer that loses least on val over all tasks.
        loss_on_new_task: points that a layer lost on test, on average over tasks that had no say in
            its choice; None with a single task.
        worst_on_new_task: the largest of them.
        deepest_chosen: the deepest layer that val chose: blocks above it serve no task.
        deepest_needed: the least depth at which every task keeps a layer that may be its best; None
            without scans.
        by_others: what others published of the model's layers, a line each.
    """

    model: str
    is_demo: bool
    n_layers: int
    choices: list[Choice]
    family_layers: dict[str, int]
    transfer: list[list[float | None]]
    any_task_layer: int | None
    loss_on_new_task: float | None
    worst_on_new_task: float | None
    deepest_chosen: int
    deepest_needed: int | None
    by_others: list[str]


def make_guide(panel: Panel, published_as: str, *, is_demo: bool) -> Guide:
    """The guide of a panel; without any choice where no layer has a score.

    Args:
        panel: a model on its tasks, all of as many layers.
        published_as: name under which others published numbers of the model.
        is_demo: whether the data is the rendered stand-in.
    """
    profiles = [one for one in panel.profiles if np.isfinite(one.val + one.test).any()]
    choices = [_choice(profile) for profile in profiles]
    regrets, losses = _regrets(profiles), _losses(profiles, choices)
    weights = _weights(profiles)

    families = {}
    for level in dict.fromkeys([*LEVELS, *(one.level for one in profiles)]):
        members = [place for place, one in enumerate(profiles) if one.level == level]
        layer = _least(regrets[members], weights[members])
        if layer is not None:
            families[level] = layer

    on_new = _losses_on_new_tasks(profiles, regrets, losses, weights)
    needed = [min(choice.best_set) for choice in choices if choice.best_set]
    return Guide(
        model=panel.title,
        is_demo=is_demo,
        n_layers=max((len(one.test) for one in profiles), default=0),
        choices=choices,
        family_layers=families,
        transfer=[[_rounded(loss[choice.layer]) for loss in losses] for choice in choices],
        any_task_layer=_least(regrets, weights),
        loss_on_new_task=_rounded(float(np.mean(on_new))) if on_new else None,
        worst_on_new_task=_rounded(max(on_new)) if on_new else None,
        deepest_chosen=max((choice.layer for choice in choices), default=0),
        deepest_needed=max(needed) if choices and len(needed) == len(choices) else None,
        by_others=layers_by_others(published_as),
    )


def _choice(profile: LayerProfile) -> Choice:
    has_both = np.isfinite(profile.val + profile.test)
    layer = int(np.where(has_both, profile.val, -np.inf).argmax())
    return Choice(
        " ".join(profile.task.split()),
        profile.task_name,
        profile.metric_name,
        profile.level,
        layer,
        round(float(profile.test[layer]), 1),
        sorted(profile.best_set),
    )


def _regrets(profiles: Sequence[LayerProfile]) -> Array:
    """(P, L+1) points of each layer below the best on val; infinite for one without a score."""
    if not profiles:
        return np.zeros((0, 0))
    val = np.stack([profile.val for profile in profiles])
    regrets: Array = np.nanmax(val, axis=1, keepdims=True) - val
    return np.where(np.isfinite(regrets), regrets, np.inf)


def _losses(profiles: Sequence[LayerProfile], choices: Sequence[Choice]) -> list[Array]:
    """For each profile, (L+1,) points that a layer loses on test against the chosen one."""
    return [
        profile.test[choice.layer] - profile.test
        for profile, choice in zip(profiles, choices, strict=True)
    ]


def _weights(profiles: Sequence[LayerProfile]) -> Array:
    """(P,) one a task, shared by its metrics."""
    n_metrics = Counter(profile.task for profile in profiles)
    return np.array([1 / n_metrics[profile.task] for profile in profiles])


def _least(regrets: Array, weights: Array) -> int | None:
    """The layer of the least mean regret, of equals the lowest; None where none has all scores."""
    if len(regrets) == 0:
        return None
    mean = (regrets * weights[:, None]).sum(axis=0) / weights.sum()
    return int(mean.argmin()) if np.isfinite(mean).any() else None


def _losses_on_new_tasks(
    profiles: Sequence[LayerProfile],
    regrets: Array,
    losses: Sequence[Array],
    weights: Array,
) -> list[float]:
    """For each task, what the layer that all others choose loses on it."""
    found = []
    for task in dict.fromkeys(profile.task for profile in profiles):
        is_new = np.array([profile.task == task for profile in profiles])
        layer = _least(regrets[~is_new], weights[~is_new])
        if layer is None:
            continue
        lost = [loss[layer] for loss, new in zip(losses, is_new, strict=True) if new]
        if np.isfinite(lost).all():
            found.append(float(np.mean(lost)))
    return found


def _rounded(points: float) -> float | None:
    return round(float(points), 1) + 0.0 if np.isfinite(points) else None


# -- as text ---------------------------------------------------------------------------------------


def guide_json(guides: Sequence[Guide]) -> str:
    """The guides as JSON."""
    return json.dumps([asdict(guide) for guide in guides], indent=1, allow_nan=False) + "\n"


def guide_text(guides: Sequence[Guide]) -> str:
    """The guides in Markdown, each with a block for a model card."""
    lines = ["# Which layer to take", ""]
    if any(guide.is_demo for guide in guides):
        lines += ["Demo data: nothing here is a result on the real datasets.", ""]
    for guide in guides:
        lines += [f"## {escape_markdown(guide.model)}", "", *_advice(guide), ""]
        lines += ["Layers chosen on val, scores on test.", "", *_choice_lines(guide), ""]
        if len(guide.choices) > 1:
            lines += ["Points lost on the task of a column by the layer chosen on that of a line."]
            lines += ["", *_transfer_lines(guide), ""]
        if guide.by_others:
            lines += ["Found by others, on tasks or by metrics of their own:", ""]
            lines += [f"- {escape_markdown(text)}" for text in guide.by_others] + [""]
        lines += ["For a model card:", "", "```yaml", model_index(guide).rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _advice(guide: Guide) -> list[str]:
    last = guide.n_layers - 1
    families = [f"{level} {layer}" for level, layer in guide.family_layers.items()]
    lines = [
        f"- Layer that loses least over a family of tasks: {escape_markdown(', '.join(families))}."
    ]
    if guide.any_task_layer is not None:
        text = f"- For an unknown task: layer {guide.any_task_layer}."
        if guide.loss_on_new_task is not None and guide.worst_on_new_task is not None:
            text += (
                f" Layers chosen so without a task lost {_points(guide.loss_on_new_task)} points "
                f"on it on average, {_points(guide.worst_on_new_task)} at most."
            )
        lines.append(text)

    lines.append(
        f"- Cut after layer {guide.deepest_chosen} of {last}, no task loses the layer that val "
        "chose."
    )
    if guide.deepest_needed is not None:
        lines.append(
            f"- Cut after layer {guide.deepest_needed} of {last}, every task keeps a layer that "
            "may be its best: no loss that the test sets show."
        )
    return lines


def _choice_lines(guide: Guide) -> list[str]:
    lines = [
        [
            choice.task,
            choice.metric,
            choice.level,
            str(choice.layer),
            percent_text(choice.score / 100),
            layers_text([f"layer_{layer:02d}" for layer in choice.best_set]) or "-",
        ]
        for choice in guide.choices
    ]
    headings = ["Task", "Metric", "Level", "Layer", "Score", "May be the best"]
    return markdown_lines(headings, lines, [False, False, False, True, True, False])


def _transfer_lines(guide: Guide) -> list[str]:
    several = Counter(choice.task for choice in guide.choices)
    names = [
        f"{choice.task}\n{choice.metric}" if several[choice.task] > 1 else choice.task
        for choice in guide.choices
    ]
    lines = []
    for name, choice, losses in zip(names, guide.choices, guide.transfer, strict=True):
        texts = ["-" if loss is None else _points(loss) for loss in losses]
        lines.append([name, str(choice.layer), *texts])
    return markdown_lines(
        ["", "Layer", *names], lines, [False, *(True for _ in range(len(names) + 1))]
    )


def _points(points: float) -> str:
    return percent_text(points / 100)


def model_index(guide: Guide) -> str:
    """The choices as the `model-index` of a model card on Hugging Face, in YAML."""
    results = []
    for choice in guide.choices:
        dataset = f"{choice.task}, rendered stand-in" if guide.is_demo else choice.task
        metric = {
            "type": choice.metric,
            "value": choice.score,
            "name": f"{choice.metric} in %, probe on layer {choice.layer} (chosen on val)",
        }
        results.append(
            {
                "task": {"type": "audio-classification", "name": choice.task},
                "dataset": {"type": choice.task_name, "name": dataset},
                "metrics": [metric],
            }
        )
    index = {"model-index": [{"name": guide.model, "results": results}]}
    return str(yaml.safe_dump(index, sort_keys=False, allow_unicode=True))
