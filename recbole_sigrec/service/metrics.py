"""Counts of requests and their latencies, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Of the latencies' histogram, in seconds."""


class Metrics:
    """The counts; used by one thread alone, that of the event loop."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request; ``path`` is its template, as ``/similar/{item}``."""
        self._requests[path, status] += 1
        self._seconds[path] += seconds
        self._buckets[path][bisect_left(BOUNDS, seconds)] += 1

    def text(self, reloads: Mapping[str, int]) -> str:
        """All of it."""
        name = "recbole_sigrec_requests_total"
        lines = [f"# TYPE {name} counter"]
        for (path, status), n in sorted(self._requests.items()):
            lines.append(f'{name}{{path="{path}",status="{status}"}} {n}')
        name = "recbole_sigrec_request_seconds"
        lines.append(f"# TYPE {name} histogram")
        for path, buckets in sorted(self._buckets.items()):
            n = 0
            for bound, more in zip((*BOUNDS, "+Inf"), buckets):
                n += more
                lines.append(f'{name}_bucket{{path="{path}",le="{bound}"}} {n}')
            lines.append(f'{name}_sum{{path="{path}"}} {self._seconds[path]}')
            lines.append(f'{name}_count{{path="{path}"}} {n}')
        name = "recbole_sigrec_reloads_total"
        lines.append(f"# TYPE {name} counter")
        lines += [f'{name}{{result="{one}"}} {reloads.get(one, 0)}' for one in ("failed", "ok")]
        return "\n".join(lines) + "\n"
