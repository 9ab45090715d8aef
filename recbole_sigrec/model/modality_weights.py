"""The weights of modalities, as a config gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recbole_sigrec.errors import ConfigError


def weights_of_modalities(
    modalities: Sequence[str],
    given: Mapping[str, float] | None,
    published: Mapping[str, float] | None = None,
    key: str = "modality_weights",
) -> dict[str, float]:
    """A weight for each modality, which add up to one.

    None given: the published ones, if they are those of these modalities, else equal ones.

    Args:
        modalities: their names.
        given: modality name → weight.
        published: as ``given``.
        key: of ``given``, for the message.

    Raises:
        ConfigError: a modality has no weight, one is negative, or all are zero.
    """
    if given is None and set(published or ()) == set(modalities):
        given = published
    given = given or dict.fromkeys(modalities, 1.0)
    weights = {name: given.get(name, -1.0) for name in modalities}
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ConfigError(
            f"config key [{key}] = [{given}]: give each of the modalities "
            f"{', '.join(modalities)} a weight of at least 0, and one of them more"
        )
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}
