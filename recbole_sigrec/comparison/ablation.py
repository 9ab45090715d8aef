"""ablate(): SIGRec without each mechanism, over its parameters, and on corrupted content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_sigrec.comparison import parameter_curves
from recbole_sigrec.comparison.arms import Arm, Setting, arm_configs
from recbole_sigrec.comparison.compare import RECORD, compare, refuse_foreign
from recbole_sigrec.comparison.results import ComparisonResult
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import CORRUPTIONS
from recbole_sigrec.errors import ConfigError, did_you_mean
from recbole_sigrec.json_object import JsonObject
from recbole_sigrec.parallel.engines import check_workers, opened
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.user_paths import user_path

if TYPE_CHECKING:
    from distributed import Client

MODEL = "SIGRec"
WHOLE = Arm(MODEL, MODEL)

VARIANTS: dict[str, dict[str, Any]] = {
    "without semantic graphs": {"semantic_graphs": False},
    "without infusion": {"collab_weight": 0.0},
    "fixed perturbation": {"perturbation": "uniform"},
    "without perturbation": {"perturbation": "none"},
    "without contrastive loss": {"cl_weight": 0.0},
    "without anchor alignment": {"anchor_weight": 0.0},
    "without fused alignment": {"fuse_weight": 0.0},
    "without item scores": {"item_score_weight": 0.0},
}
"""The model with one mechanism off: label → the keys that do it."""

NEEDS: dict[str, tuple[str, ...]] = {
    "without semantic graphs": ("n_semantic_layers",),
    "without infusion": ("semantic_graphs", "n_semantic_layers"),
    "fixed perturbation": ("cl_weight", "perturbation"),
    "without perturbation": ("cl_weight",),
    "α, collaborative share": ("semantic_graphs", "n_semantic_layers"),
    "ε, strength of the noise": ("cl_weight", "perturbation"),
    "k, semantic neighbours": ("semantic_graphs", "n_semantic_layers"),
}
"""Variants and grids that change nothing, or switch something on, where such a key is off."""

GRIDS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "α, collaborative share": (("collab_weight",), (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)),
    "ε, strength of the noise": (("perturbation_eps",), (0.01, 0.05, 0.1, 0.2, 0.5)),
    "τ, temperature": (
        ("cl_temperature", "anchor_temperature", "fuse_temperature"),
        (0.05, 0.1, 0.2, 0.5, 1.0),
    ),
    "k, semantic neighbours": (("knn_k",), (5, 10, 20, 40)),
}
"""What the model may be sensitive to: name → the keys that have the same value, and its values."""

SHARES = (0.1, 0.3, 0.5)

WHAT = ("variants", "sensitivity", "robustness")


@dataclasses.dataclass(frozen=True, eq=False)
class AblationResult(JsonObject):
    """What an ablation found.

    Attributes:
        what: variants, sensitivity or robustness.
        comparisons: folder → its comparison. There is one, but of robustness one for each
            corruption and share.
        table: the figures as a table for a terminal.
    """

    what: str
    comparisons: dict[str, ComparisonResult]
    table: str


def ablate(
    models: Sequence[str] = (MODEL,),
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    what: str = "variants",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (1, 2, 3),
    out: str | Path | None = None,
    jobs: int = 1,
    cluster: str | Client | None = None,
) -> AblationResult:
    """Compare SIGRec with changed SIGRecs, or on changed data, as :func:`compare` does.

    Args:
        models: SIGRec; for ``robustness`` others can follow it.
        dataset, config_file_list, config_dict, seeds, jobs, cluster: see :func:`compare`. A variant
            that the config gives already is left out.
        what: ``variants``, with one mechanism off each, and with each modality alone;
            ``sensitivity``, over the values of ``GRIDS``, one at a time; ``robustness``, with
            corrupted content, see :mod:`recbole_sigrec.data.corruption`.
        only: labels of the variants that are compared with the whole model; none given: all.
        out: folder of the results; default ``ablation/<dataset>/<what>``. ``robustness`` keeps
            one comparison for each corruption and share in it. ``sensitivity`` and ``robustness``
            write ``curves.csv`` and ``curves.html`` too.

    Raises:
        ConfigError: what is unknown, or models are named for another; and as :func:`compare`.
    """
    _check(what, models, only)
    check_workers(models, jobs, cluster)
    quiet()
    files, values = tuple(config_file_list or ()), dict(config_dict or {})
    setting = Setting(dataset, files, values)
    config = setting.config(WHOLE)
    folder = user_path(out or Path("ablation") / config["dataset"] / what)
    points, places = {}, {folder: {}}
    if what == "variants":
        arms = _chosen(variants(setting), only)
    elif what == "sensitivity":
        points = _points(config)
        arms = _distinct(setting, dict(points.values()))
    else:
        arms = [Arm(model, model) for model in models]
        places = _corruptions(config, folder)
    with opened(cluster, folder) if len(places) > 1 else nullcontext(cluster) as cluster:
        found = {
            str(place): compare(
                arms, dataset, files, {**values, **more}, seeds, place, jobs, cluster
            )
            for place, more in places.items()
        }
    if what == "robustness":
        return AblationResult(what, found, _robustness(found, folder))
    results = found[str(folder)]
    if points:
        _draw_sensitivity(points, results, folder)
    return AblationResult(what, found, results.table)


def _check(what: str, models: Sequence[str], only: Sequence[str]) -> None:
    """Refuse arguments of :func:`ablate` that do not fit together."""
    if what not in WHAT:
        raise ConfigError(
            f"what = [{what}] is none of {', '.join(WHAT)}.{did_you_mean(what, WHAT)}"
        )
    if only and what != "variants":
        raise ConfigError(f"variants are named for variants alone, not for {what}")
    if list(models[:1]) != [MODEL]:
        raise ConfigError(f"models = {list(models)}: {MODEL} is ablated; name it first")
    if len(models) > 1 and what != "robustness":
        raise ConfigError(f"other models are compared for robustness alone, not for {what}")


def _chosen(arms: Sequence[Arm], only: Sequence[str]) -> list[Arm]:
    """The whole model and the variants that are named; none named: all."""
    labels = [arm.label for arm in arms[1:]]
    for name in only:
        if name not in labels:
            raise ConfigError(
                f"there is no variant [{name}].{did_you_mean(name, labels)} There are: "
                f"{', '.join(labels)}"
            )
    return [arms[0], *(arm for arm in arms[1:] if not only or arm.label in only)]


def variants(setting: Setting) -> list[Arm]:
    """The whole model, it with one mechanism off, and with each modality alone.

    Left out is what the setting gives already.
    """
    config = setting.config(WHOLE)
    dataset = Split.load(config).dataset
    names = list(dataset.modality_features)
    changes = {label: change for label, change in VARIANTS.items() if _is_on(config, label)}
    given = config["modality_weights"]
    weights = given if isinstance(given, dict) else dict.fromkeys(names, 1.0)
    some = [name for name in names if weights.get(name)] if len(names) > 1 else []
    alone = {f"{name} alone": {"modalities": [name]} for name in some}
    return _distinct(setting, {**changes, **alone})


def _is_on(config: Config, name: str) -> bool:
    """Whether what a variant or a grid changes is on, as far as it needs others to be."""
    return all(config[key] not in (0, "none") for key in NEEDS.get(name, ()))


def _distinct(setting: Setting, changes: Mapping[str, Mapping[str, Any]]) -> list[Arm]:
    """An arm for each change that makes a difference, after the whole model."""
    arms = [WHOLE, *(Arm(label, MODEL, (), change) for label, change in changes.items())]
    configs = arm_configs(arms, setting)
    return [WHOLE, *(arm for arm in arms[1:] if configs[arm.label] != configs[MODEL])]


def _points(config: Config) -> dict[tuple[str, float], tuple[str, dict[str, Any]]]:
    """(grid, value) → an arm's label and its change, the model's own values among them."""
    points = {}
    for name, (keys, grid) in GRIDS.items():
        if not _is_on(config, name):
            continue
        own = {config[key] for key in keys}
        for value in sorted({*grid, *own} if len(own) == 1 else grid):
            points[name, value] = f"{', '.join(keys)} = {value}", dict.fromkeys(keys, value)
    return points


def _draw_sensitivity(
    points: Mapping[tuple[str, float], tuple[str, Any]], results: ComparisonResult, folder: Path
) -> None:
    """Draw a curve for each grid; the model as it is stands for its own values."""
    found = {arm["label"]: arm for arm in results["arms"]}
    drawn = [
        parameter_curves.Point(name, MODEL, value, found.get(label, found[MODEL]))
        for (name, value), (label, _) in points.items()
    ]
    parameter_curves.write(
        f"Sensitivity of {MODEL} on {results['dataset']}", drawn, results, folder
    )


def _corruptions(config: Config, folder: Path) -> dict[Path, dict[str, float]]:
    """The folder of each comparison of a robustness → its corruption; the first has none."""
    for key in CORRUPTIONS:
        if config[key]:
            raise ConfigError(
                f"config key [{key}] = [{config[key]}]: robustness sets it itself, beginning with "
                f"the content as it is; remove the key"
            )
    refuse_foreign(folder, f"clean/{RECORD}")
    corrupted = {folder / f"{key}-{share}": {key: share} for key in CORRUPTIONS for share in SHARES}
    return {folder / "clean": {}, **corrupted}


def _robustness(found: Mapping[str, ComparisonResult], folder: Path) -> str:
    """Draw a curve for each corruption, from the content as it is."""
    clean = found[str(folder / "clean")]
    drawn = [
        parameter_curves.Point(name, arm["label"], share, arm)
        for key, name in CORRUPTIONS.items()
        for share in (0.0, *SHARES)
        for arm in (found[str(folder / f"{key}-{share}")] if share else clean)["arms"]
    ]
    title = f"Robustness to corrupted content on {clean['dataset']}"
    return parameter_curves.write(title, drawn, clean, folder)
