"""Notices of deprecation that RecBole's own code causes."""

from __future__ import annotations

import warnings


def quiet() -> None:
    """Silence deprecation notices that RecBole's own code causes and no user can act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"recbole\.")
