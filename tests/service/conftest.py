"""What the tests of the service share."""

from __future__ import annotations

import pytest
from helpers_service import write_random_bundle


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A small bundle that is served."""
    pytest.importorskip("fastapi")
    from recbole_sigrec.service.live import Live

    return Live(write_random_bundle(tmp_path_factory.mktemp("bundle") / "shop.rec"))
