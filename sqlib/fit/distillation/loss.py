r"""How far a quantized network is from its teacher: on its output and on features in between.

Of a batch of B outputs O (teacher) and :math:`\hat O` (student) and features :math:`F_i, \hat F_i`, all with
M elements a sample (each its own M), the loss is :math:`L_O + \lambda L_F`:

"paper" (2DQuant, Liu et al., NeurIPS 2024), the mean over the samples of

.. math:: L_O = \frac1M \|O - \hat O\|_1, \qquad
          L_F = \sum_i \frac1{M_i} \left\| \frac{F_i}{\|F_i\|} - \frac{\hat F_i}{\|\hat F_i\|} \right\|_2

"release" (its code): mean-reduced losses divided by M again; and the norms have a shape that makes the
division run over all pairs (a, b) of samples, so that every sample is divided by every sample's norm:

.. math:: L_O = \frac1{B M^2} \sum_a \|O_a - \hat O_a\|_1, \qquad
          L_F = \sum_i \frac1{B^2 M_i^2} \sum_{a,b} \left\| \frac{F_{i,a}}{\|F_{i,b}\|} -
                \frac{\hat F_{i,a}}{\|\hat F_{i,b}\|} \right\|_2^2

"attention" (PTQ4SR, Tu et al., CVPR 2023): L_O as in the paper's, and with the attention map
:math:`\phi(F)`, the squares of F averaged over channels, flattened and divided by their norm,

.. math:: L_F = \operatorname{mean}_i \operatorname{mean} (\phi(F_i) - \phi(\hat F_i))^2

"attention-detached" is its release, whose feature hooks detach: the same value, no gradient from L_F.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqlib.errors import InputError
from sqlib.fit.features import channel_axis

TINY = 1e-30


def distillation_loss(
    kind: str,
    weight: float,
    target: Tensor,
    output: Tensor,
    teacher: list[Tensor],
    student: list[Tensor],
    axis: int | None = None,
) -> Tensor:
    """The loss as a scalar, float32 or wider.

    Parameters
    ----------
    kind : str
        "paper", "release", "attention" or "attention-detached".
    weight : float
        Lambda.
    target, output : Tensor
        Outputs of teacher and student, (B, ...).
    teacher, student : list of Tensor
        Their features in the same order; may be empty.
    axis : int or None
        Channel axis of the features; None: 1 of four dimensions, else the last.

    Raises
    ------
    InputError
        Teacher and student differ in shapes or in the number of features.
    """
    if [t.shape for t in (target, *teacher)] != [s.shape for s in (output, *student)]:
        raise InputError(
            "distillation: quantized, the network gives outputs or features of other shapes than in full "
            "precision (its control flow depends on the data); tap other modules with features="
        )
    loss = (target - output).abs().mean()
    if kind == "release":
        loss = loss / target[0].numel()
    if not teacher or weight == 0:
        return loss
    pairs = zip(teacher, student, strict=True)
    if kind == "paper":
        return loss + weight * torch.stack([_paper(t, s) for t, s in pairs]).sum()
    if kind == "release":
        return loss + weight * torch.stack([_release(t, s) for t, s in pairs]).sum()
    transfers = torch.stack([attention_transfer(t, s, axis) for t, s in pairs]).mean()
    return loss + weight * (transfers.detach() if kind == "attention-detached" else transfers)


def _paper(teacher: Tensor, student: Tensor) -> Tensor:
    distance = torch.linalg.vector_norm(_unit(teacher) - _unit(student), dim=1)
    return distance.mean() / teacher[0].numel()


def _unit(x: Tensor) -> Tensor:
    """Samples as rows of norm 1; a row of zeros stays."""
    rows = x.flatten(1)
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=TINY)


def _release(teacher: Tensor, student: Tensor) -> Tensor:
    """The double sum over pairs from three numbers a sample, instead of a tensor of B times the size.

    With d = S - T: T/p - S/q = -(d + T (p - q)/p)/q, where q^2 - p^2 = |d|^2 + 2 <d, T>; no digits cancel.
    """
    t, d = teacher.flatten(1), (student - teacher).flatten(1)
    dd, dt, tt = (
        (a * b).sum(1, dtype=torch.float64).clamp(min=least)
        for a, b, least in ((d, d, 0.0), (d, t, -torch.inf), (t, t, TINY))
    )
    p = tt.sqrt()
    q = (tt + 2 * dt + dd).clamp(min=TINY).sqrt()
    c = -(dd + 2 * dt) / ((p + q) * p)  # (p - q)/p
    squares = dd[:, None] + 2 * dt[:, None] * c + tt[:, None] * c.square()
    total = (squares / q.square()).sum()
    return (total / len(t) ** 2 / t.shape[1] ** 2).to(teacher.dtype)


def attention_transfer(teacher: Tensor, student: Tensor, axis: int | None = None) -> Tensor:
    """How far apart the attention maps of two features are: mean of (phi(T) - phi(S))^2, a scalar.

    Parameters
    ----------
    teacher, student : Tensor
        Features of one shape.
    axis : int or None
        Their channel axis; None: 1 of four dimensions, else the last.
    """
    where = channel_axis(teacher, axis)
    maps = [_unit(x.square().mean(where)) for x in (teacher, student)]
    return (maps[0] - maps[1]).square().mean()
