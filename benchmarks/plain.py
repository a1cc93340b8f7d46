"""The published networks written the plain way, as the baseline of ``benchmarks/models.py``.

Written from what the papers and their released weights say a network computes, the way one writes it first: explicit
attention matrices, decay masks and rotary tables made again in every forward, three projections for queries, keys and
values, depthwise convolutions between permutes, a Python loop for the loss's weights, both images decoded for every
candidate pair, and one pass of the network per branch. The names of the parameters are those of the published
checkpoints, so a state dict goes from here into the library (:func:`mertools.load_published`) and back
(:func:`published_state_dict`); ``tests/test_plain.py`` holds both to the published networks' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mertools as mt
from mertools.models.pretrained import _published_names

DIMS, DEPTHS, HEADS, RANGES = (64, 128, 256, 512), (1, 1, 2, 1), 2, (4, 4, 6, 6)
Mask = Tensor | tuple[Tensor, Tensor]


# --- temporal branch ------------------------------------------------------------------------------------------------


class Positions(nn.Module):
    """Rotary tables and decay masks of a stage, made for every forward."""

    angle: Tensor
    decay: Tensor

    def __init__(self, dim: int, spread: float) -> None:
        super().__init__()
        angle = 1.0 / 10000 ** torch.linspace(0, 1, dim // HEADS // 2)
        self.register_buffer("angle", angle.unsqueeze(-1).repeat(1, 2).flatten())
        self.register_buffer("decay", torch.log(1 - 2 ** (-2 - spread * torch.arange(HEADS).float() / HEADS)))

    def forward(self, h: int, w: int, decomposed: bool) -> tuple[Tensor, Tensor, Mask]:
        """Sine and cosine ``(h, w, d)``, and ``log γ · D`` of all places or of columns and rows."""
        index = torch.arange(h * w).to(self.decay)
        sin = torch.sin(index[:, None] * self.angle[None, :]).reshape(h, w, -1)
        cos = torch.cos(index[:, None] * self.angle[None, :]).reshape(h, w, -1)
        if decomposed:
            return sin, cos, (self.along(w), self.along(h))
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        place = torch.stack([rows, columns], -1).reshape(h * w, 2).to(self.decay)
        distance = (place[:, None, :] - place[None, :, :]).abs().sum(-1)
        return sin, cos, distance * self.decay[:, None, None]

    def along(self, length: int) -> Tensor:
        """The mask of one line."""
        index = torch.arange(length).to(self.decay)
        return (index[:, None] - index[None, :]).abs() * self.decay[:, None, None]


def turn(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotate neighbouring pairs."""
    other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + other * sin


class Depthwise(nn.Module):
    """A depthwise convolution of ``(b, h, w, c)``, between permutes."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, size, 1, size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        y: Tensor = self.conv(x.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1)


class Retention(nn.Module):
    """Manhattan attention with its score matrices written out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.lepe = Depthwise(dim, 5)
        self.scale = (dim // HEADS) ** -0.5

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor, mask: Mask) -> Tensor:
        """Mix the places of ``(b, h, w, c)``."""
        b, h, w, c = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        local = self.lepe(v)
        k = k * self.scale
        q, k, v = (part.view(b, h, w, HEADS, -1).permute(0, 3, 1, 2, 4) for part in (q, k, v))
        q, k = turn(q, sin, cos), turn(k, sin, cos)
        if isinstance(mask, tuple):
            weights = torch.softmax(q.transpose(1, 2) @ k.transpose(1, 2).transpose(-1, -2) + mask[0], -1)
            v = weights @ v.transpose(1, 2)  # (b, h, n, w, d)
            q, k = q.permute(0, 3, 1, 2, 4), k.permute(0, 3, 1, 2, 4)
            weights = torch.softmax(q @ k.transpose(-1, -2) + mask[1], -1)
            y = (weights @ v.permute(0, 3, 2, 1, 4)).permute(0, 3, 1, 2, 4).flatten(-2)
        else:
            q, k, v = (part.flatten(2, 3) for part in (q, k, v))
            weights = torch.softmax(q @ k.transpose(-1, -2) + mask, -1)
            y = (weights @ v).transpose(1, 2).reshape(b, h, w, c)
        return self.out_proj(y + local)


class FeedForward(nn.Module):
    """Linear, GELU, a depthwise convolution with a short cut, linear."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)
        self.dwconv = Depthwise(3 * dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Position by position, but for the convolution."""
        x = F.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class RetentionBlock(nn.Module):
    """Position convolution, retention, feed-forward, with drop path."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.retention_layer_norm, self.final_layer_norm = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.retention, self.ffn, self.pos = Retention(dim), FeedForward(dim), Depthwise(dim, 3)
        self.rate = drop_path

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor, mask: Mask) -> Tensor:
        """The three parts one after the other."""
        x = x + self.pos(x)
        x = x + self.drop(self.retention(self.retention_layer_norm(x), sin, cos, mask))
        return x + self.drop(self.ffn(self.final_layer_norm(x)))

    def drop(self, x: Tensor) -> Tensor:
        """Leave the branch out for some samples."""
        if not self.training or self.rate == 0:
            return x
        keep = (torch.rand(len(x), 1, 1, 1, device=x.device) >= self.rate).to(x)
        return x * keep / (1 - self.rate)


class Downsample(nn.Module):
    """A strided convolution and a batch norm, between permutes."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.reduction, self.norm = nn.Conv2d(dim, out_dim, 3, 2, 1), nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """To half the size."""
        y: Tensor = self.norm(self.reduction(x.permute(0, 3, 1, 2)))
        return y.permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Blocks that share their positions, then the way down."""

    def __init__(self, index: int, rates: list[float]) -> None:
        super().__init__()
        dim = DIMS[index]
        self.Relpos = Positions(dim, RANGES[index])
        self.blocks = nn.ModuleList(RetentionBlock(dim, rate) for rate in rates)
        self.downsample = Downsample(dim, DIMS[index + 1]) if index + 1 < len(DIMS) else None
        self.decomposed = index < 2

    def forward(self, x: Tensor) -> Tensor:
        """``(b, h, w, c)`` to half the size and twice the width."""
        sin, cos, mask = self.Relpos(x.shape[1], x.shape[2], self.decomposed)
        for block in self.blocks:
            x = block(x, sin, cos, mask)
        return x if self.downsample is None else self.downsample(x)


class Stem(nn.Module):
    """Four convolutions to half the size, ``(b, 3, h, w) -> (b, h/2, w/2, 64)``."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.GELU(),
            nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.GELU(),
            nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.GELU(),
            nn.Conv2d(64, 64, 3, 1, 1), nn.BatchNorm2d(64),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        y: Tensor = self.proj(x)
        return y.permute(0, 2, 3, 1)


class Backbone(nn.Module):
    """Stem, four stages, and the fusion's head, which the published code keeps here."""

    def __init__(self, num_classes: int, *, stem: bool, head: bool, drop_path: float) -> None:
        super().__init__()
        if stem:
            self.patch_embed = Stem()
        rates = torch.linspace(0, drop_path, sum(DEPTHS)).tolist()
        starts = [sum(DEPTHS[:i]) for i in range(len(DEPTHS))]
        self.layers = nn.ModuleList(Stage(i, rates[s : s + DEPTHS[i]]) for i, s in enumerate(starts))
        if head:
            self.proj, self.norm, self.head = nn.Linear(512, 1024), nn.BatchNorm2d(1024), nn.Linear(1024, num_classes)

    def stages(self, x: Tensor) -> Tensor:
        """Maps ``(b, h, w, 64) -> (b, h/8, w/8, 512)``."""
        for stage in self.layers:
            x = stage(x)
        return x


# --- spatial branch -------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Softmax attention with its score matrix written out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens."""
        b, length, c = x.shape
        q, k, v = self.qkv(x).reshape(b, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.scale, -1)
        y: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(b, length, c))
        return y


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Token by token."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp = Attention(dim, num_heads), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Both with short cuts."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class PatchEmbed(nn.Module):
    """One place of the grid to one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        y: Tensor = self.proj(x)
        return y.flatten(2).transpose(1, 2)


class Spatial(nn.Module):
    """The transformer over a 14 × 14 grid."""

    def __init__(self, dim: int = 512, depth: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, 196, dim) * 0.02)
        self.patch_embed = PatchEmbed(dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, 1e-6)

    def forward(self, x: Tensor, how: Tensor | None = None) -> Tensor:
        """Tokens ``(b, 196, 512)``; a map to be added before the last norm may come along."""
        x = F.interpolate(x, (14, 14), mode="bilinear", align_corners=False)
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.norm(x if how is None else x + how)
        return y


# --- whole models ---------------------------------------------------------------------------------------------------


class PlainTSFmicro(nn.Module):
    """TSFmicro with any of its four structures; parameters under their published names.

    Args:
        num_classes: number of classes.
        fusion: ``"parallel"``, ``"early"``, ``"s_to_t"`` or ``"t_to_s"``.
        drop_path: of the last block; it rises to that linearly.
    """

    def __init__(self, num_classes: int, *, fusion: str = "parallel", drop_path: float = 0.1) -> None:
        super().__init__()
        self.structure = fusion
        early, last = fusion == "early", fusion == "t_to_s"
        if early:
            self.ConvStem_T, self.ConvStem_S = Stem(), Stem()  # T reads the onset and S the motion, as published
        else:
            self.vit_pos = Spatial()
        if fusion == "s_to_t":
            self.transposed_conv1 = nn.ConvTranspose2d(512, 256, 4, 2, 1)
            self.transposed_conv2 = nn.ConvTranspose2d(256, 128, 4, 2, 1)
            self.transposed_conv3 = nn.ConvTranspose2d(128, 64, 4, 2, 1)
        self.main_branch = Backbone(num_classes, stem=not early, head=not last, drop_path=drop_path)
        if last:
            self.proj, self.norm, self.head = nn.Linear(512, 1024), nn.BatchNorm2d(1024), nn.Linear(1024, num_classes)

    def forward(self, static: Tensor, motion: Tensor) -> Tensor:
        """Logits from the onset frame and the motion image."""
        main = self.main_branch
        if self.structure == "early":
            fused = main.stages(self.ConvStem_S(motion) + self.ConvStem_T(static))
        elif self.structure == "s_to_t":
            where = self.vit_pos(static).transpose(1, 2).reshape(len(static), 512, 14, 14)
            where = self.transposed_conv3(self.transposed_conv2(self.transposed_conv1(where)))
            fused = main.stages(main.patch_embed(motion) + where.permute(0, 2, 3, 1))
        elif self.structure == "t_to_s":
            how = main.stages(main.patch_embed(motion)).flatten(1, 2)
            fused = self.vit_pos(static, how).view(len(static), 14, 14, 512)
        else:
            where = self.vit_pos(static).view(len(static), 14, 14, 512)
            fused = main.stages(main.patch_embed(motion)) + where
        head = self if self.structure == "t_to_s" else main
        lifted = head.norm(head.proj(fused).permute(0, 3, 1, 2))
        logits: Tensor = head.head(F.silu(lifted).mean((2, 3)))
        return logits


class PlainTwoBranch(nn.Module):
    """GAMDSS's two branches: one pass of the network for each."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, onset: Tensor, apex: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Front and back."""
        return self.net(onset, apex - onset), self.net(apex, apex - offset)


def load_used(model: PlainTSFmicro, state_dict: Mapping[str, Tensor]) -> PlainTSFmicro:
    """Load a published state dict; what nothing reads (class token, second head, mask layer) may be there."""
    own = model.state_dict()
    model.load_state_dict({key: state_dict.get(key, value) for key, value in own.items()})
    missing = [key for key in own if key not in state_dict and not key.endswith((".angle", ".decay"))]
    if missing:
        raise ValueError(f"state_dict lacks {', '.join(missing)}")
    return model


def published_state_dict(model: mt.TSFmicro) -> dict[str, Tensor]:
    """The library's weights under their published names: the inverse of :func:`mertools.load_published`."""
    out: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        names = _published_names(key, model.structure)
        if key.endswith("pos_embed"):
            value = value.flatten(2).mT
        out |= dict(zip(names, value.chunk(len(names)) if len(names) > 1 else (value,), strict=True))
    return out


# --- the loss, and key frames from files ----------------------------------------------------------------------------


def au_prior_loss(
    logits: Tensor, target: Tensor, au_logits: Tensor, au_target: Tensor, table: list[list[float]], pos_weight: Tensor
) -> Tensor:
    """AU-DFER's loss; the weights of a clip are put together in a Python loop."""
    weights = []
    for y in target.tolist():
        row = []
        for a in range(au_logits.shape[1]):
            row.append(5.0 * table[y][a])
        weights.append(row)
    weight = torch.tensor(weights, device=logits.device)
    au = F.binary_cross_entropy_with_logits(au_logits, au_target, weight=weight, pos_weight=pos_weight)
    return 0.75 * F.cross_entropy(logits, target) + 0.25 * au


def windowed_search(
    image_file: Callable[[int], Path], onset: int, apex: int, offset: int, window: float = 0.1
) -> tuple[int, int, int]:
    """GAMDSS's search with both images of every candidate pair decoded for that pair."""

    def distance(i: int, j: int) -> float:
        first, second = (np.asarray(cv2.imread(str(image_file(k))), dtype=np.float32) for k in (i, j))
        return float(np.linalg.norm(first - second))

    rise, fall = int(window * (apex - onset)), int(window * (offset - apex))
    best, found = -1.0, (onset, apex)
    for o in range(onset, onset + rise + 1):
        for a in range(apex - rise, apex + 1):
            if o < a and (d := distance(o, a)) > best:
                best, found = d, (o, a)
    return *found, max(range(offset - fall, offset + 1), key=lambda k: distance(found[1], k))
