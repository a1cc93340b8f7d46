"""What moves where: frames to trajectories of local motion, with how far each can be trusted in each frame.

Intensity alone cannot tell a raised brow from a lamp. So the face is cut into blocks, and each block's displacement
against the clip's mean frame is estimated in every frame (Lucas-Kanade, with the block's gain and brightness free).
What the whole face does together (a nod, a drift, an unsteady registration) is an affine motion, fitted robustly over
the blocks and taken away. A blink is not a displacement: it leaves a large remainder after the fit, and the remainder
says how little to trust that block in that frame.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_SIDE = 112  # pixels a side, about, that motion is estimated at
_BLOCK = 12  # pixels a side of a block
_BLUR = 1.5


def trajectories(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Local motion of one clip: values ``(t, d)`` with about unit noise, and their trust ``(t, d)`` in 0 to 1."""
    if frames.ndim == 4 and frames.shape[1] in (1, 3, 4) and min(frames.shape[2:]) >= 3 * _BLOCK:
        return _image_motion(_working_images(frames))
    values = frames.flatten(1).float()
    values = values - values.mean(0)
    scale = values.abs().amax().clamp(min=1e-12)
    return values / scale, torch.ones_like(values)


def _working_images(frames: Tensor) -> Tensor:
    h, w = frames.shape[-2:]
    factor = max(1, round(math.sqrt(h * w) / _SIDE))
    parts = []
    for part in torch.split(frames, 16):
        grey = part.float().mean(1, keepdim=True)
        parts.append(F.avg_pool2d(grey, factor) if factor > 1 else grey)
    return _blur(torch.cat(parts), _BLUR)


def _blur(x: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0, device=x.device).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    blurred: Tensor = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return blurred


def _blocks(x: Tensor) -> Tensor:
    m, _, h, w = x.shape
    n = _BLOCK
    x = x[..., : h // n * n, : w // n * n].reshape(m, h // n, n, w // n, n)
    return x.permute(0, 1, 3, 2, 4).reshape(m, -1, n * n)


def _image_motion(work: Tensor) -> tuple[Tensor, Tensor]:
    mean = work.mean(0, keepdim=True)
    dx = F.pad((mean[..., 2:] - mean[..., :-2]) / 2, (1, 1))
    dy = F.pad((mean[..., 2:, :] - mean[..., :-2, :]) / 2, (0, 0, 1, 1))
    light = torch.stack((_blocks(mean)[0] / 128, torch.ones_like(_blocks(mean)[0])), -1)
    light = torch.linalg.qr(light)[0]
    slope = -torch.stack((_blocks(dx)[0], _blocks(dy)[0]), -1)  # (blocks, pixels, 2)
    slope = slope - light @ (light.mT @ slope)
    change = _blocks(work - mean)  # (t, blocks, pixels)
    change = change - torch.einsum("npk,tnk->tnp", light, torch.einsum("npk,tnp->tnk", light, change))
    normal = slope.mT @ slope + 1e-3 * _BLOCK**2 * torch.eye(2, device=work.device)
    right = torch.einsum("npk,tnp->tnk", slope, change)
    moved = torch.linalg.solve(normal, right.unsqueeze(-1)).squeeze(-1)
    rest = (change.square().sum(-1) - (right * moved).sum(-1)).clamp(min=0) / (_BLOCK**2 - 4)
    local = _without_affine(moved, normal, rest, work.shape[2] // _BLOCK, work.shape[3] // _BLOCK)
    base = rest.median(0).values + rest.median() / 4 + 1e-6
    values = torch.einsum("nji,tnj->tni", torch.linalg.cholesky(normal), local) / base.sqrt().unsqueeze(-1)
    trust = (1 / (1 + rest / base)).unsqueeze(-1).expand_as(values)
    return values.flatten(1), trust.flatten(1)


def _without_affine(moved: Tensor, normal: Tensor, rest: Tensor, rows: int, columns: int) -> Tensor:
    t, n, _ = moved.shape
    y = (torch.arange(rows, device=moved.device) + 0.5) / rows * 2 - 1
    x = (torch.arange(columns, device=moved.device) + 0.5) / columns * 2 - 1
    y, x = (g.flatten() for g in torch.meshgrid(y, x, indexing="ij"))
    basis = torch.stack((torch.ones_like(x), x, y), -1)
    design = torch.zeros(n, 2, 6, device=moved.device)
    design[:, 0, :3] = design[:, 1, 3:] = basis
    trust = 1 / (rest + rest.median() + 1e-6)
    robust = torch.ones_like(trust)
    local = moved
    for _ in range(5):
        weight = (trust * robust)[..., None, None] * normal
        left = torch.einsum("nik,tnij,njl->tkl", design, weight, design) + 1e-6 * torch.eye(6, device=moved.device)
        right = torch.einsum("nik,tnij,tnj->tk", design, weight, moved)
        motion = torch.linalg.solve(left, right.unsqueeze(-1)).squeeze(-1)
        local = moved - torch.einsum("nik,tk->tni", design, motion)
        misfit = torch.einsum("tni,nij,tnj->tn", local, normal, local) * trust
        robust = 1 / (1 + misfit / (3 * misfit.median(1, keepdim=True).values + 1e-6))
    return local
