"""Items as content vectors, all modalities side by side."""

from __future__ import annotations

import torch

from recbole_sigrec.graph.unit_rows import power_of_two, unit_rows


def content_vectors(
    features: dict[str, torch.Tensor],
    mask: dict[str, torch.Tensor],
    weights: dict[str, float],
    center: bool,
) -> torch.Tensor:
    """The modalities of each item side by side: z_i = ‖_m √α_m x_i^m / ‖x_i^m‖.

    So z_i · z_j = Σ_m α_m cos(x_i^m, x_j^m) over the modalities that both items have.

    Args:
        features: modality name → [n_items, d_m].
        mask: modality name → bool [n_items]; where an item lacks a modality, its part is zero.
        weights: modality name → α_m.
        center: take from each x^m the mean over the items that have it; a component that all items
            share says nothing, and can outweigh what tells them apart.

    Returns:
        float32 [n_items, Σ_m d_m].
    """
    parts = []
    for name, x in features.items():
        present = mask[name][:, None]
        x = x / power_of_two(x.abs().amax())  # or a difference may leave float32's range
        if center:
            x = x - x[mask[name]].double().mean(dim=0).float()
        parts.append(weights[name] ** 0.5 * unit_rows(x) * present)
    return torch.cat(parts, dim=1)
