"""Diffusion over users' rows of interactions, as DiffMM has it (arXiv 2406.11781).

x₀ is a row of R. With T steps, ν evenly spaced, β_t = min(1 − (1 − ν_t)/(1 − ν_{t−1}), .999) but
β_0 = 1e-4, and ᾱ_t = Π_{s ≤ t} (1 − β_s).

- Forward: x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε, ε ~ N(0, I). A denoiser predicts x₀ from t and x_t, entries
  of which are dropped in training.
- Backward, without noise, the posterior's mean: x_{t−1} = β_t √ᾱ_{t−1} / (1 − ᾱ_t) · x̂₀ +
  (1 − ᾱ_{t−1}) √(1 − β_t) / (1 − ᾱ_t) · x_t.

Column 0, [PAD], is zero in all rows: the denoisers' tables are zero there, and stay so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from recbole_sigrec.config import Keys, setting
from recbole_sigrec.kernels.products import Linear, linear

_FIRST_BETA = 1e-4
_MOST_BETA = 0.999


class DiffusionKeys(Keys):
    """The keys of the diffusion and its denoisers."""

    n_steps: int = setting("T, steps of the diffusion", ge=1)
    noise_scale: float = setting("factor of noise_min and noise_max", gt=0, le=1)
    noise_min: float = setting("ν of the first step, before scaling", gt=0, lt=1)
    noise_max: float = setting("ν of the last step, before scaling", gt=0, lt=1)
    denoiser_size: int = setting("the size of a denoiser's hidden layer", ge=1)
    time_size: int = setting("the size of the code of a step", ge=1)
    dropout: float = setting("share of a noisy row's entries dropped", ge=0, lt=1)
    alignment_weight: float = setting("λ_0, weight of the denoised rows' alignment", ge=0)


class Draws(NamedTuple):
    """What is drawn for the rows of a batch.

    Attributes:
        step: t, int64 [B].
        noise: ε [B, n_items].
        keep: the entries of x_t that its dropout keeps, bool [B, n_items].
    """

    step: torch.Tensor
    noise: torch.Tensor
    keep: torch.Tensor


class Denoiser(nn.Module):
    """x̂₀ from x_t and t: one hidden layer, which has a sinusoidal code of t beside the row.

    What belongs to an item is a row of a table. Weights start normal with variance 2/(in + out),
    biases with standard deviation .001.
    """

    def __init__(self, n_items: int, keys: DiffusionKeys):
        super().__init__()
        hidden, time, row = keys.denoiser_size, keys.time_size, n_items - 1
        self.time = Linear(time, time)
        self.time_in = Linear(time, hidden)  # with the hidden layer's bias
        self.item_in = nn.Parameter(torch.empty(n_items, hidden))
        self.item_out = nn.Parameter(torch.empty(n_items, hidden))
        self.item_bias = nn.Parameter(torch.empty(n_items, 1))
        nn.init.normal_(self.time.weight, std=time**-0.5)
        for part in (self.time_in.weight, self.item_in):  # one matrix
            nn.init.normal_(part, std=(2 / (row + time + hidden)) ** 0.5)
        nn.init.normal_(self.item_out, std=(2 / (hidden + row)) ** 0.5)
        for bias in (self.time.bias, self.time_in.bias, self.item_bias):
            nn.init.normal_(bias, std=1e-3)
        with torch.no_grad():
            for table in (self.item_in, self.item_out, self.item_bias):
                table[0] = 0.0  # [PAD]

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """x [B, n_items], step int64 [B] → [B, n_items]."""
        time = self.time(time_code(step, self.time.in_features).to(x))
        hidden = torch.tanh(linear(x, self.item_in.T, None) + self.time_in(time))
        return linear(hidden, self.item_out, self.item_bias[:, 0])


def time_code(step: torch.Tensor, size: int) -> torch.Tensor:
    """[cos(t ω_j), sin(t ω_j)], ω_j = 10⁴^(−j/h) for j < h = ⌊size/2⌋; a zero ends an odd size.

    Shapes: int64 [B] → float64 [B, size].
    """
    half = size // 2
    omega = 1e4 ** -(torch.arange(half, device=step.device, dtype=torch.float64) / half)
    angle = step[:, None] * omega
    return nn.functional.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, size % 2))


class Diffusion(nn.Module):
    """Denoisers by name, and the schedule that they share (float64, not part of a checkpoint).

    Attributes:
        optimizers: the Adam of each denoiser.
        beta, alpha_bar: β and ᾱ [T].
        weight: of the squared error at each step [T]: SNR_{t−1} − SNR_t, SNR = ᾱ/(1 − ᾱ), but
            1 at step 0.
        of_denoised, of_noisy: the posterior mean's weights of x̂₀ and x_t [T].
    """

    beta: torch.Tensor
    alpha_bar: torch.Tensor
    weight: torch.Tensor
    of_denoised: torch.Tensor
    of_noisy: torch.Tensor

    def __init__(
        self, keys: DiffusionKeys, names: Iterable[str], n_items: int, learning_rate: float
    ):
        super().__init__()
        self.keys = keys
        self.denoisers = nn.ModuleDict({name: Denoiser(n_items, keys) for name in names})
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(denoiser.parameters(), lr=learning_rate, fused=True)
            for name, denoiser in self.denoisers.items()
        }
        ends = keys.noise_scale * keys.noise_min, keys.noise_scale * keys.noise_max
        kept = 1 - torch.linspace(*ends, keys.n_steps, dtype=torch.float64)
        beta = torch.full_like(kept, _FIRST_BETA)
        beta[1:] = (1 - kept[1:] / kept[:-1]).clamp(max=_MOST_BETA)
        alpha_bar = (1 - beta).cumprod(dim=0)
        before = alpha_bar.roll(1)
        before[0] = 1.0
        snr = alpha_bar / (1 - alpha_bar)
        weight = torch.ones_like(snr)
        weight[1:] = snr[:-1] - snr[1:]
        of_denoised = beta * before.sqrt() / (1 - alpha_bar)
        of_noisy = (1 - before) * (1 - beta).sqrt() / (1 - alpha_bar)
        self.register_buffer("beta", beta, persistent=False)
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("of_denoised", of_denoised, persistent=False)
        self.register_buffer("of_noisy", of_noisy, persistent=False)

    def draw(self, x: torch.Tensor) -> Draws:
        """For rows [B, n_items]: t is uniform among the steps."""
        step = torch.randint(len(self.beta), (len(x),), device=x.device)
        return Draws(step, torch.randn_like(x), torch.rand_like(x) >= self.keys.dropout)

    def terms(
        self, name: str, x: torch.Tensor, features: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The evidence lower bound, and the squared error of x̂₀ · features: means over the rows.

        Shapes: x [B, n_items], features [n_items, d], target [B, d] → scalar, scalar.
        """
        step, noise, keep = self.draw(x)
        noise[:, 0] = 0.0  # [PAD]
        alpha_bar = self.alpha_bar[step][:, None]
        noisy = noise.mul_((1 - alpha_bar).sqrt().to(x)).addcmul_(alpha_bar.sqrt().to(x), x)
        found = self.denoisers[name](noisy.mul_(keep).div_(1 - self.keys.dropout), step)
        error = (x - found).square().sum(dim=1) / (x.shape[1] - 1)
        elbo = (self.weight[step].to(x) * error).mean()
        return elbo, (linear(found, features.T, None) - target).square().mean()

    def fit(self, name: str, x: torch.Tensor, features: torch.Tensor, target: torch.Tensor) -> None:
        """One step of a denoiser's optimiser; shapes as for :meth:`terms`."""
        elbo, alignment = self.terms(name, x, features, target)
        (elbo + self.keys.alignment_weight * alignment).backward()
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()

    @torch.no_grad()
    def denoise(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """From x as x_T down to x_0: [B, n_items] → [B, n_items]."""
        for t in reversed(range(len(self.beta))):
            found = self.denoisers[name](x, torch.full((len(x),), t, device=x.device))
            x = self.of_denoised[t].to(x) * found + self.of_noisy[t].to(x) * x
        return x
