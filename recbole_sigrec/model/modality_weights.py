"""The weights of modalities, as a config gives them."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_sigrec.errors import ConfigError


def weights_of_modalities(
    modalities: Sequence[str], given: dict[str, float] | None
) -> dict[str, float]:
    """A weight for each modality, which add up to one; none given: all are equal.

    Raises:
        ConfigError: a modality has no weight, one is negative, or all are zero.
    """
    given = given or dict.fromkeys(modalities, 1.0)
    weights = {name: given.get(name, -1.0) for name in modalities}
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ConfigError(
            f"config key [modality_weights] = [{given}]: give each of the modalities "
            f"{', '.join(modalities)} a weight of at least 0, and one of them more"
        )
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}
