"""Rows of unit norm, of whatever scale: of a tensor, or of features that are read in blocks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def unit_rows(x: torch.Tensor) -> torch.Tensor:
    """Each row (the last dimension) divided by its norm; zero rows stay zero.

    A row is first divided by a power of two near its largest entry: its squares would leave
    float32's range where entries are beyond 1e19 or below 1e-19. This division is exact, so an
    ordinary row gets the same bits as without it. Gradients flow.
    """
    return F.normalize(x / power_of_two(x.detach().abs().amax(dim=-1, keepdim=True)), dim=-1)


def power_of_two(values: torch.Tensor) -> torch.Tensor:
    """The largest power of two up to each value, exactly; 1 for 0. No value is negative."""
    mantissa, _ = torch.frexp(values)
    return _or_one(values) / _or_one(2 * mantissa)


class UnitRows:
    """The rows of a feature matrix that can have a cosine, each divided by its norm when read.

    A row is first divided by its largest absolute entry, or its norm may leave float32's range.
    Rows that ``mask`` leaves out, and zero rows, are left out.

    Args:
        features: [n, d]: a torch tensor (on any device), a NumPy array or a memory-mapped one; any
            real type, converted to float32 block by block.
        mask: bool [n], the rows that take part; default all.
        block: rows that are read at a time.

    Attributes:
        rows: int64 [n_present] on the CPU, the rows that take part, ascending.
        device: where the blocks are: the device of ``features``.

    Cost: one pass over the features; memory: one block and two numbers per row.

    Raises:
        ValueError: a feature is not finite, in whatever row.
    """

    def __init__(
        self,
        features: torch.Tensor | np.ndarray,
        mask: torch.Tensor | np.ndarray | None = None,
        block: int = 2048,
    ):
        self.features = features
        self.device = getattr(features, "device", torch.device("cpu"))
        if not isinstance(self.device, torch.device):  # NumPy arrays name theirs "cpu"
            self.device = torch.device("cpu")
        self.n, self.d = features.shape
        largest, norm = [], []
        for start in range(0, self.n, block):
            values = self._read(torch.arange(start, min(start + block, self.n)))
            largest.append(values.abs().amax(dim=1, keepdim=True))
            norm.append(values.div_(_or_one(largest[-1])).norm(dim=1, keepdim=True))
        self.largest = _or_one(torch.cat(largest)) if largest else torch.ones(0, 1)
        norms = torch.cat(norm) if norm else torch.ones(0, 1)
        if not torch.isfinite(self.largest).all():
            raise ValueError("features must be finite")
        present = norms.squeeze(1).cpu() > 0
        if mask is not None:
            present &= torch.as_tensor(mask, dtype=torch.bool, device="cpu")
        self.norms = norms
        self.rows = present.nonzero().squeeze(1)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: torch.Tensor) -> torch.Tensor:
        """The unit rows at ``places`` of ``rows``: float32 [len(places), d], a new tensor."""
        rows = self.rows[places]
        values = self._read(rows)
        rows = rows.to(self.device)
        return values.div_(self.largest[rows]).div_(self.norms[rows])

    def block(self, start: int, stop: int) -> torch.Tensor:
        """The unit rows ``start`` to ``stop`` of ``rows``: float32 [stop − start, d]."""
        return self.take(torch.arange(start, min(stop, len(self))))

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        """A float32 copy of some rows."""
        if isinstance(self.features, torch.Tensor):
            return self.features.detach()[rows.to(self.device)].float()
        return torch.from_numpy(np.asarray(self.features[rows.numpy()], dtype=np.float32))


def _or_one(values: torch.Tensor) -> torch.Tensor:
    """The values with 1 in place of 0 (a NaN stays one)."""
    return values.where(values != 0, 1.0)
