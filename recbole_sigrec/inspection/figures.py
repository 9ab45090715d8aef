"""The figures of a data set: sizes, split, cold users and items, and its modalities."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import interactions_of
from recbole_sigrec.data.parts import create_dataset
from recbole_sigrec.display.terminal import text_table
from recbole_sigrec.graph import knn_graph
from recbole_sigrec.inspection.alignment import check_alignment
from recbole_sigrec.inspection.item_number_order import HeldOutOrder, held_out_order, item_numbers

BINS = 40


def inspect(
    dataset: str,
    config_file_list: Sequence[str] | None = None,
    config_dict: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All figures of a data set, in JSON's types.

    Args:
        dataset, config_file_list, config_dict: see :func:`recbole_sigrec.run`. The ``knn_k``
            nearest items of SIGRec's config are the content neighbours.

    Returns:
        ``dataset, users, items, interactions, density``, ``split: {train, valid, test}``,
        ``cold_users, cold_items`` (without a training interaction), ``users_degree, items_degree``
        (histograms of their training interactions), ``modalities: {name: {dimension, coverage,
        missing, duplicate_rows, norms, norms_histogram, alignment_pairs, alignment_share,
        alignment_expected, alignment_lift, alignment_z, alignment}}``, ``held_out_order``
        (:class:`HeldOutOrder` as a dict, or None where item tokens are no numbers) and
        ``warnings``. A histogram is ``{edges, counts}``; ``coverage`` is the share of items that
        have the modality; norms and duplicates are those of their rows.

    Raises:
        DataError: the data cannot be used as it is.

    Cost: that of the content graphs, n²·d/2 for each modality.
    """
    config = Config("SIGRec", dataset, config_file_list, config_dict, command_line=())
    data = create_dataset(config)
    train, valid, test = data.build()
    interactions = interactions_of(train)
    by_user = np.diff(interactions.indptr)[1:]
    by_item = np.bincount(interactions.indices, minlength=data.item_num)[1:]
    order = _held_out_order(data, interactions, (valid, test))
    split = {"train": len(train), "valid": len(valid), "test": len(test)}
    total = sum(split.values())
    modalities = {
        name: _modality(features, data.modality_mask[name], interactions, config)
        for name, features in data.modality_features.items()
    }
    return {
        "dataset": data.dataset_name,
        "users": len(by_user),
        "items": len(by_item),
        "interactions": total,
        "density": total / (len(by_user) * len(by_item)),
        "split": split,
        "cold_users": int((by_user == 0).sum()),
        "cold_items": int((by_item == 0).sum()),
        "users_degree": _histogram(by_user, _doubling(by_user.max())),
        "items_degree": _histogram(by_item, _doubling(by_item.max())),
        "modalities": modalities,
        "held_out_order": None if order is None else dataclasses.asdict(order),
        "warnings": [
            *(text for name, found in modalities.items() for text in _warnings(name, found)),
            *_order_warnings(order),
        ],
    }


def as_text(figures: dict[str, Any]) -> str:
    """The figures of :func:`inspect` as a table for the terminal; warnings are its last lines."""
    split = ", ".join(f"{name} {size}" for name, size in figures["split"].items())
    lines = [
        f"{figures['dataset']}: {figures['users']} users, {figures['items']} items, "
        f"{figures['interactions']} interactions, density {figures['density']:.3g}",
        f"split: {split}; without a training interaction: {figures['cold_users']} users, "
        f"{figures['cold_items']} items",
    ]
    if figures["modalities"]:
        lines += ["", text_table([MODALITY_COLUMNS, *modality_rows(figures)]), ""]
    else:
        lines.append("no modality: there is no <modality>_feat.npy and no entry in item_modalities")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in figures["warnings"])])


MODALITY_COLUMNS = (
    *("modality", "dimension", "coverage", "duplicates", "norm (min–median–max)"),
    *("neighbours together", "expected", "lift", "z", "features are"),
)
"""What :func:`modality_rows` has in its columns."""


def modality_rows(figures: dict[str, Any]) -> list[list[str]]:
    """A row of text for each modality, for a table."""
    return [
        [
            name,
            str(m["dimension"]),
            f"{100 * m['coverage']:.1f} %",
            str(m["duplicate_rows"]),
            "–".join(f"{m['norms'][key]:.3g}" for key in ("min", "median", "max")),
            f"{100 * m['alignment_share']:.2f} %",
            f"{100 * m['alignment_expected']:.2f} %",
            "" if m["alignment_lift"] is None else f"{m['alignment_lift']:.2f}",
            "" if m["alignment_z"] is None else f"{m['alignment_z']:.1f}",
            VERDICTS[m["alignment"]],
        ]
        for name, m in figures["modalities"].items()
    ]


VERDICTS = {
    "aligned": "aligned",
    "weak": "aligned, weakly",
    "none": "NOT aligned",
    "unclear": "too few to tell",
}


def _modality(features: torch.Tensor, mask: torch.Tensor, interactions, config) -> dict[str, Any]:
    """The figures of one modality: features [n_items, d], mask [n_items]."""
    neighbours = knn_graph(
        features,
        config["knn_k"],
        mask,
        symmetric=False,
        memory_mb=config["graph_memory_mb"],
        method=config["knn_search"],
    )
    found = check_alignment(neighbours, interactions)
    norms = torch.linalg.vector_norm(features, dim=1, dtype=torch.float64)[mask].numpy()
    return {
        "dimension": features.shape[1],
        "coverage": int(mask.sum()) / (len(mask) - 1),
        "missing": int(len(mask) - 1 - mask.sum()),
        "duplicate_rows": _duplicates(features.numpy(), mask.numpy()),
        "norms": {
            "min": float(norms.min()),
            "median": float(np.median(norms)),
            "max": float(norms.max()),
        },
        "norms_histogram": _histogram(norms, np.linspace(0.0, norms.max(), BINS + 1)),
        "alignment_pairs": found.pairs,
        "alignment_share": found.share,
        "alignment_expected": found.expected,
        "alignment_lift": found.lift,
        "alignment_z": found.z,
        "alignment": found.verdict,
    }


def _warnings(name: str, figures: dict[str, Any]) -> list[str]:
    if figures["alignment"] != "none":
        return []
    return [
        f"modality {name}: items of similar content are taken together no more often than any "
        f"items of the same popularity (lift {figures['alignment_lift']:.2f}); the rows of its "
        f"file may be shuffled or shifted: check its order, or add {name}_ids.txt"
    ]


def _held_out_order(dataset, interactions, parts) -> HeldOutOrder | None:
    """The pairs of parts against the training pairs; None where item tokens are no numbers."""
    numbers = item_numbers(dataset.field2id_token[dataset.iid_field][1:])
    if numbers is None:
        return None
    numbers = np.concatenate([[0], numbers])  # the padding item is in no pair
    held = (
        np.concatenate([part.inter_feat[field] for part in parts])
        for field in (dataset.uid_field, dataset.iid_field)
    )
    return held_out_order(interactions, numbers, *held)


def _order_warnings(order: HeldOutOrder | None) -> list[str]:
    if order is None or order.telling is None:
        return []
    share = max(order.above, order.below)
    return [
        f"of {100 * share:.1f} % of the validation and test pairs the item has the {order.telling} "
        f"number of all items of its user ({100 * order.expected:.1f} % by chance): the split was "
        f"cut from sorted lists, or item numbers follow time; held-out items are of another "
        f"popularity than training items, and a model that reads item numbers could tell them"
    ]


def _duplicates(features: np.ndarray, mask: np.ndarray) -> int:
    """Rows, of those in the mask, that equal an earlier one."""
    rows = np.flatnonzero(mask)
    seen = {hashlib.blake2b(features[row], digest_size=16).digest() for row in rows}
    return len(rows) - len(seen)


def _histogram(values: np.ndarray, bins) -> dict[str, list]:
    counts, edges = np.histogram(values, bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _doubling(largest: int) -> list[int]:
    """Edges 0, 1, 2, 4, 8, … of a histogram of counts, beyond the largest."""
    return [0, *(2**n for n in range(int(largest).bit_length() + 1))]
