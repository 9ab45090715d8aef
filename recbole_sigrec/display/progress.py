"""Progress bars of one kind: on a terminal, for what takes more than a second.

There is none where stderr is a file, and none within ``bars_wanted(False)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

DELAY = 1.0
"""Seconds after which a bar appears. It is removed at its end."""

_wanted = ContextVar("whether progress bars are wanted", default=True)


@contextlib.contextmanager
def bars_wanted(wanted: bool) -> Iterator[None]:
    """Within the block, bars are shown or not, as the key ``show_progress`` says.

    A bar that an outer block does not want stays away.
    """
    before = _wanted.set(_wanted.get() and wanted)
    try:
        yield
    finally:
        _wanted.reset(before)


def progress(what: str, items: Iterable[Any] | None = None, unit: str = "it", **more: Any) -> tqdm:
    """A bar on stderr, as tqdm's: an iterable of the items, and a context with ``update``.

    Args:
        what: what is done, in a few words.
        items: what is gone through, if the bar counts by itself.
        unit: of what is counted; ``B`` is shown as kB, MB and so on.
        more: tqdm's ``total`` and ``initial``.
    """
    size = {"unit": "B", "unit_scale": True} if unit == "B" else {"unit": f" {unit}"}
    return tqdm(items, what, delay=DELAY, **_look(), **size, **more)


def working(what: str) -> tqdm:
    """A line on stderr while one step runs that cannot tell how far it is; used as a context."""
    return tqdm(desc=what, bar_format="{desc} …", **_look())


def wipe_bars() -> None:
    """Wipe the bars off the terminal before a line is written; each returns with its next step."""
    shown: Any = tqdm
    for bar in list(shown._instances):
        bar.clear()


def _look() -> dict[str, Any]:
    # None: shown only where stderr is a terminal
    return {"leave": False, "dynamic_ncols": True, "disable": None if _wanted.get() else True}
