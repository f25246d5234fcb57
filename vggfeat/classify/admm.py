"""The problems of `dual` on a GPU, where one factorisation serves all classes.

With β = α y the quadratic form is the Gram matrix K itself, whatever the labels: they only say on
which side of 0 each β may lie. So ADMM, the alternating direction method of multipliers (Boyd et
al. 2011, Sec. 5.2; over-relaxed, its penalty ρ balanced as in Sec. 3.4), needs one inverse, of
K + (r + ρ) I, for each C, and then one product of it with all classes in each iteration. Where
images have weights, r is another one for each image and class: it then belongs to the step that
keeps β on its side, which is as cheap, and the inverse is that of K + ρ I.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vggfeat.classify.dual import Dual, Loss, objectives
from vggfeat.classify.measures import Doubles, Floats

_RELAXATION = 1.6
_MOST_ITERATIONS = 2_000
_ROUND = 25  # iterations between looks at the gap
_UNBALANCED = 3.0  # ratio of the residuals at which the penalty changes, and the inverse with it
_FIRST_PENALTY = 1.0
_LARGEST_STEP = 10.0  # of the penalty at once: a residual may be 0 by chance
_PENALTIES = 1e-6, 1e6  # equal images make the Gram matrix singular; less would not mend that
_TINY = 1e-300  # against division by 0


class Admm:
    """Solves problems over the same n images, each call for other labels or other C.

    Args:
        x: (n, D) descriptors.
        device: What computes, in float64.
    """

    def __init__(self, x: Floats, device: str) -> None:
        values = torch.from_numpy(np.ascontiguousarray(x)).to(device, torch.float64)
        self._gram = values @ values.T + 1
        self._penalty = _FIRST_PENALTY

    @staticmethod
    def need(count: int) -> int:
        """Return the bytes for `count` images: the Gram matrix, its inverse and two on the way."""
        return 4 * 8 * count**2

    @staticmethod
    def room(device: str) -> int:
        """Return the free bytes of a GPU."""
        free: int = torch.cuda.mem_get_info(torch.device(device))[0]
        return free

    def gram(self, *, exact: bool) -> Floats:
        """Return x·xᵀ + 1, (n, n), in the processor's memory: float64 if `exact`, else float32."""
        kept = self._gram if exact else self._gram.float()
        result: Floats = kept.cpu().numpy()
        return result

    def solve(
        self,
        problems: tuple[Doubles, Doubles, Loss],
        gap: float,
        start: Dual | None = None,
        check: Callable[[], None] = lambda: None,
        weights: Doubles | None = None,
    ) -> Dual:
        """Solve K problems, as far as they come in a bounded number of iterations.

        Args:
            problems: As for `dual.solve`.
            gap: The relative duality gap that is wanted.
            start: A solution for other C, to go on from.
            check: Called now and then; may raise.
            weights: As for `dual.solve`.
        """
        y, c, loss = problems
        alpha = np.zeros(y.shape) if start is None else start.alpha.copy()
        outputs = np.zeros(y.shape)
        for value in np.unique(c):
            columns = np.flatnonzero(c == value)
            own = None if weights is None else weights[:, columns]
            part = self._solve_one_c(
                (y[:, columns], float(value), loss), own, alpha[:, columns], gap, check
            )
            alpha[:, columns], outputs[:, columns] = part
        primal, gaps = objectives((y, c, loss), alpha, outputs, weights)
        return Dual(alpha=alpha, outputs=outputs, primal=primal, gap=gaps)

    def _solve_one_c(
        self,
        problems: tuple[Doubles, float, Loss],
        weights: Doubles | None,
        alpha: Doubles,
        gap: float,
        check: Callable[[], None],
    ) -> tuple[Doubles, Doubles]:
        """Return alpha and outputs, both (n, k), of k problems with one C."""
        y, c, loss = problems
        device = self._gram.device
        signs = torch.from_numpy(y).to(device)
        most = torch.full_like(signs, c if loss == "hinge" else torch.inf)
        ridge, own_ridge = 0.0 if loss == "hinge" else 1 / (2 * c), torch.zeros_like(signs[:1])
        if weights is not None:
            factors = torch.from_numpy(np.ascontiguousarray(weights)).to(device)
            most, own_ridge, ridge = most * factors, ridge / factors, 0.0
        low, high = torch.where(signs < 0, -most, 0.0), torch.where(signs > 0, most, 0.0)
        z = torch.clamp(torch.from_numpy(alpha).to(device) * signs, low, high)
        dual = torch.zeros_like(z)  # divided by the penalty
        inverse = self._inverse(ridge)
        for _ in range(0, _MOST_ITERATIONS, _ROUND):
            for _ in range(_ROUND):
                x = inverse @ (signs + self._penalty * (z - dual))
                relaxed = _RELAXATION * x + (1 - _RELAXATION) * z
                nearer = (relaxed + dual) * (self._penalty / (self._penalty + own_ridge))
                before, z = z, torch.clamp(nearer, low, high)
                dual += relaxed - z
            check()
            found = z.abs().cpu().numpy(), (self._gram @ z).cpu().numpy()
            same_c = y, np.full(y.shape[1], c), loss
            if (objectives(same_c, *found, weights)[1] <= gap).all():
                break
            factor = _imbalance(x, z, before, self._penalty * dual, self._penalty)
            if not 1 / _UNBALANCED <= factor <= _UNBALANCED:
                factor = min(max(factor, 1 / _LARGEST_STEP), _LARGEST_STEP)
                penalty = min(max(self._penalty * factor, _PENALTIES[0]), _PENALTIES[1])
                dual *= self._penalty / penalty
                self._penalty = penalty
                inverse = self._inverse(ridge)
        return found

    def _inverse(self, ridge: float) -> Tensor:
        shifted = self._gram.clone()
        shifted.diagonal().add_(ridge + self._penalty)
        return torch.cholesky_inverse(torch.linalg.cholesky(shifted))


def _imbalance(x: Tensor, z: Tensor, before: Tensor, prices: Tensor, penalty: float) -> float:
    """Return by what the penalty has to grow, so that both residuals weigh the same."""
    primal = torch.linalg.norm(x - z) / max(float(torch.linalg.norm(z)), _TINY)
    dual = penalty * torch.linalg.norm(z - before) / max(float(torch.linalg.norm(prices)), _TINY)
    return float(torch.sqrt(primal / torch.clamp(dual, min=_TINY)))
