"""ablate(): SIGRec without each mechanism, over its parameters, and on corrupted content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_sigrec.errors import ConfigError, did_you_mean
from recbole_sigrec.evaluator.arms import CORRUPTIONS, Arm, Setting, arm_configs
from recbole_sigrec.evaluator.comparison import (
    RECORD,
    compare,
    need_libraries,
    refuse_foreign,
)
from recbole_sigrec.evaluator.split import Split
from recbole_sigrec.quick_start import quiet

MODEL = "SIGRec"

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


def ablate(
    what: str = "variants",
    dataset: str | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    out: str | Path | None = None,
    models: Sequence[str] = (),
    only: Sequence[str] = (),
    config_files: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> str:
    """Compare SIGRec with changed SIGRecs, or on changed data, as :func:`compare` does.

    Args:
        what: ``variants``, with one mechanism off each, and with each modality alone;
            ``sensitivity``, over the values of ``GRIDS``, one at a time; ``robustness``, with
            corrupted content, see :mod:`recbole_sigrec.data.corruption`.
        dataset, seeds, config_files, values, jobs: see :func:`compare`. A variant that the config
            gives already is left out.
        out: folder of the results; default ``ablation/<dataset>/<what>``. ``robustness`` keeps
            one comparison for each corruption and share in it.
        models: others, for ``robustness``.
        only: labels of the variants that are compared with the whole model; none given: all.

    Returns:
        The table, as text. ``sensitivity`` and ``robustness`` write ``curves.csv`` and
        ``curves.html`` too.

    Raises:
        ConfigError: what is unknown, or models are named for another; and as :func:`compare`.
    """
    if what not in WHAT:
        raise ConfigError(
            f"what = [{what}] is none of {', '.join(WHAT)}.{did_you_mean(what, WHAT)}"
        )
    if only and what != "variants":
        raise ConfigError(f"variants are named for variants alone, not for {what}")
    if models and what != "robustness":
        raise ConfigError(f"other models are compared for robustness alone, not for {what}")
    need_libraries()
    quiet()
    setting = Setting(dataset, tuple(config_files), dict(values or {}))
    config = setting.config(Arm(MODEL, MODEL))
    folder = Path(out or Path("ablation") / config["dataset"] / what)

    def compared(arms: Sequence[Arm], out: Path, **more) -> dict[str, Any]:
        given = {**setting.values, **more}
        return compare(arms, dataset, seeds, out, config_files, given, jobs)

    if what == "robustness":
        given = [key for key in CORRUPTIONS if config[key]]
        if given:
            raise ConfigError(
                f"config key [{given[0]}] = [{config[given[0]]}]: robustness sets it itself, "
                f"beginning with the content as it is; remove the key"
            )
        refuse_foreign(folder, (f"clean/{RECORD}",))
        return _robustness([MODEL, *models], folder, compared)
    if what == "sensitivity":
        return _sensitivity(setting, folder, compared)
    from recbole_sigrec.evaluator.results import text_table

    return text_table(compared(_chosen(variants(setting), only), folder))


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
    whole = Arm(MODEL, MODEL)
    config = setting.config(whole)
    names = list(Split.load(config).dataset.modality_features)
    changes = {label: change for label, change in VARIANTS.items() if _is_on(config, label)}
    weights = config["modality_weights"] or dict.fromkeys(names, 1.0)
    some = [name for name in names if weights.get(name)] if len(names) > 1 else []
    alone = {f"{name} alone": {"modalities": [name]} for name in some}
    return _distinct(setting, whole, {**changes, **alone})


def _is_on(config, name: str) -> bool:
    """Whether what a variant or a grid changes is on, as far as it needs others to be."""
    return all(config[key] not in (0, "none") for key in NEEDS.get(name, ()))


def _distinct(setting: Setting, whole: Arm, changes: Mapping[str, Mapping[str, Any]]) -> list[Arm]:
    """An arm for each change that makes a difference, after the whole model."""
    arms = [whole, *(Arm(label, MODEL, (), change) for label, change in changes.items())]
    configs = arm_configs(arms, setting)
    return [whole, *(arm for arm in arms[1:] if configs[arm.label] != configs[whole.label])]


def _sensitivity(setting: Setting, folder: Path, compared) -> str:
    """One comparison of all values of all grids; the model as it is stands for its own values."""
    from recbole_sigrec.evaluator import curves
    from recbole_sigrec.evaluator.results import text_table

    whole = Arm(MODEL, MODEL)
    config = setting.config(whole)
    points = {}  # (curve, value) → the arm's label and its change
    for name, (keys, grid) in GRIDS.items():
        if not _is_on(config, name):
            continue
        own = {config[key] for key in keys}
        for value in sorted({*grid, *own} if len(own) == 1 else grid):
            points[name, value] = f"{', '.join(keys)} = {value}", dict.fromkeys(keys, value)
    arms = _distinct(setting, whole, dict(points.values()))
    results = compared(arms, folder)
    found = {arm["label"]: arm for arm in results["arms"]}
    drawn = [
        curves.Point(name, MODEL, value, found.get(label, found[MODEL]))
        for (name, value), (label, _) in points.items()
    ]
    curves.write(f"Sensitivity of {MODEL} on {results['dataset']}", drawn, results, folder)
    return text_table(results)


def _robustness(models: Sequence[str], folder: Path, compared) -> str:
    """A comparison for each corruption and share, and one of the content as it is."""
    from recbole_sigrec.evaluator import curves

    arms = [Arm(model, model) for model in models]
    clean = compared(arms, folder / "clean")
    drawn = []
    for key, name in CORRUPTIONS.items():
        for share in (0.0, *SHARES):
            results = clean
            if share > 0:
                results = compared(arms, folder / f"{key}-{share}", **{key: share})
            drawn += [curves.Point(name, arm["label"], share, arm) for arm in results["arms"]]
    title = f"Robustness to corrupted content on {clean['dataset']}"
    return curves.write(title, drawn, clean, folder)
