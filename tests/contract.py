"""The contract: what holds for every public module and tensor function, and one case for each to hold it to.

A case says how to make the module and its inputs. ``inputs(b, t)`` has a batch of ``b`` clips of ``t`` frames; other axes
have distinct sizes of their own, primes where a layer allows. A function is a case as a module without parameters. The
checks are in ``contract_checks.py``; every case is put to all of them but those that it names in ``no``, with the reason.
``NO_CASE`` has the public names that need none.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import mertools as mt
from mertools.layers.buffers import real_device
from mertools.retention.forms import chunkwise_retention, recurrent_retention, two_sided_retention

ROOT = Path(__file__).parents[1]


class Case(NamedTuple):
    covers: str  # public names
    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[torch.Tensor, ...]]
    oracle: Callable[..., Any] | str  # (module, *inputs) -> output, written out; or the test that has it
    function: Callable[..., Any] | None = None  # (module, *inputs) -> output by the function under the module
    time: bool = False  # inputs have t frames
    lengths: bool = False  # the last input is the number of valid frames of each clip
    fixed: tuple[int, ...] = ()  # floating inputs without gradient
    tolerance: float = 1e-5
    sixteen: float = 0.1  # how far 16 bits may be off
    no: Mapping[str, str] = {}  # checks that cannot hold, and why
    long: tuple[str, ...] = ()  # checks that only the long run makes, for the time they take


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function, **settings):
        super().__init__()
        self.function, self.settings = function, settings

    def forward(self, *inputs):
        return self.function(*inputs, **self.settings)


class Keywords(nn.Module):
    """A module whose last inputs are given by name."""

    def __init__(self, module, *names, **settings):
        super().__init__()
        self.module, self.names, self.settings = module, names, settings

    def forward(self, *inputs):
        split = len(inputs) - len(self.names)
        named = dict(zip(self.names, inputs[split:], strict=True))
        return self.module(*inputs[:split], **named, **self.settings)


class First(Keywords):
    """The first of what a module returns."""

    def forward(self, *inputs):
        return super().forward(*inputs)[0]


class Net(nn.Module):
    """A user's network of two images, with a classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 5, 3)
        self.fc = nn.Linear(5, 7)

    def forward(self, static, motion):
        return self.fc(self.conv(torch.cat([static, motion], 1)).mean((2, 3)))


class Wrapper(nn.Module):
    """Takes anything and passes it on, as averages of weights, DDP, FSDP and users' own wrappers do."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


# --- inputs ---------------------------------------------------------------------------------------------------------


def tokens(b, t):
    return (torch.randn(b, t, 14),)


def image(b, h=37, w=29, c=3):
    return torch.randn(b, c, h, w)


def lengths(b, t):
    return torch.tensor([t, *(max(t - 2 - i, 1) for i in range(b - 1))][:b], dtype=torch.int64)


def classes(b, e=7):
    return torch.arange(b) * 3 % e


def clips(b, t):
    """A movement in noise, for searches: pixels that rise and fall."""
    frame = torch.arange(t)
    extent = torch.sin(math.pi * ((frame - 2) / max(t - 5, 1)).clamp(0, 1))
    where = torch.linspace(0, 3, 7 * 5).sin().view(7, 5)
    return 30 * extent.view(1, t, 1, 1) * where + torch.randn(b, t, 7, 5)


def units(*shape):
    return torch.rand(*shape) * 0.9 + 0.05


def heads(b, t):
    """Queries, keys, values ``(b, n, t, ·)`` and decays of the bare forms."""
    return (
        torch.randn(b, 3, t, 4),
        torch.randn(b, 3, t, 4),
        torch.randn(b, 3, t, 5),
        torch.tensor([0.7, 0.9, 1.0]).log(),
    )


# --- what is expected, written out ----------------------------------------------------------------------------------


def retention_of(q, k, v, log_decay, two_sided=False, valid=None):
    """``O_n = Σ_m γ^|n−m| (q_n·k_m) v_m``, one sum after the other."""
    _, n, t, _ = q.shape
    out = v.new_zeros(v.shape)
    for i in range(t):
        for j in range(t if two_sided else i + 1):
            decay = (log_decay * abs(i - j)).exp().view(1, n, 1)
            real = 1.0 if valid is None else (j < valid).to(v.dtype).view(-1, 1, 1)
            out[:, :, i] += real * decay * (q[:, :, i] * k[:, :, j]).sum(-1, keepdim=True) * v[:, :, j]
    return out


def retention_layer(layer, x, valid=None):
    """The layer of ``retention.py`` from its weights."""
    b, t, _ = x.shape
    n, d = layer.num_heads, layer.dim // layer.num_heads
    x = x if valid is None else x * (torch.arange(t) < valid[:, None])[..., None]
    q, k, v, gate = (x @ layer.in_proj.weight.T).split([layer.dim, layer.dim, layer.value_dim, layer.value_dim], -1)

    def turned(y):
        y = y.view(b, t, n, d // 2, 2)
        angle = torch.arange(t, dtype=torch.float64)[:, None] * 10.0 ** -torch.linspace(0, 4, d // 2).double()
        angle = torch.zeros(t, 1).double() + torch.arange(t)[:, None] if d == 2 else angle
        cos, sin = angle.cos().to(x)[:, None], angle.sin().to(x)[:, None]
        return torch.stack([y[..., 0] * cos - y[..., 1] * sin, y[..., 1] * cos + y[..., 0] * sin], -1).flatten(-2)

    q, k, v = turned(q).transpose(1, 2), turned(k).transpose(1, 2), v.view(b, t, n, -1).transpose(1, 2)
    log_decay = layer.log_decay if layer.decay_logit is None else F.logsigmoid(layer.decay_logit)
    y = retention_of(q, k, v, log_decay, not layer.causal, valid).transpose(1, 2)
    ones = x.new_ones(b, n, t, 1)
    total = retention_of(ones, ones, ones, log_decay, not layer.causal, valid).transpose(1, 2)  # row sums of D
    y = y / (y.square().mean(-1, keepdim=True) + 1e-6 * d * total.clamp(min=1)).sqrt()
    return (F.silu(gate) * y.flatten(2)) @ layer.out_proj.weight.T


def lstm_shape(module, x, valid):
    """An encoder and a linear layer behind it."""
    net = module.module
    return encoder(net.encoder, x, valid) @ net.after.weight.T + net.after.bias


def encoder(module, x, valid=None):
    """``RetNetTemporal`` of one block."""
    (block,) = module.blocks
    x = x if valid is None else x * (torch.arange(x.shape[1]) < valid[:, None])[..., None]
    x = x + retention_layer(block.retention, block.retention_norm(x), valid)
    y = module.norm(x + block.ffn(block.ffn_norm(x)))
    return y if valid is None else y * (torch.arange(x.shape[1]) < valid[:, None])[..., None]


def manhattan(layer, x):
    """Attention between all places, with ``|Δrow| + |Δcol|`` (and ``|Δt|``) written out."""
    grid = [torch.arange(size) for size in x.shape[1:-1]]
    place = torch.cartesian_prod(*grid)
    apart = (place[:, None] - place).abs().sum(-1)
    b, n, d = x.shape[0], layer.num_heads, layer.dim // layer.num_heads
    q, k, v = layer.qkv(x).view(b, len(place), 3, n, d).permute(2, 0, 3, 1, 4)
    index = torch.arange(len(place), dtype=torch.float64)[:, None]
    angle = (index * (10.0 ** -torch.linspace(0, 4, d // 2).double() if d > 2 else 1.0)).to(x)

    def turned(y):
        even, odd = y[..., ::2], y[..., 1::2]
        return torch.stack(
            [even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], -1
        ).flatten(-2)

    scores = turned(q) @ turned(k).mT / d**0.5 + layer.log_decay.view(n, 1, 1) * apart
    y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
    maps = v.transpose(1, 2).reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2)
    return layer.out_proj(y + layer.local(maps).permute(0, 2, 3, 1).reshape(x.shape))


def spatial(module, x):
    """A resize, an embedding and pre-norm attention blocks, head by head."""
    small = F.interpolate(x, (module.grid,) * 2, mode="bilinear", align_corners=False)
    y = (module.embed(small) + module.pos_embed).flatten(2).mT
    for block in module.blocks:
        n, d = block.num_heads, y.shape[-1] // block.num_heads
        q, k, v = block.qkv(block.attention_norm(y)).chunk(3, -1)
        mixed = []
        for i in range(n):
            some = slice(i * d, i * d + d)
            mixed.append((q[..., some] @ k[..., some].mT / d**0.5).softmax(-1) @ v[..., some])
        y = y + block.out_proj(torch.cat(mixed, -1))
        y = y + block.mlp(block.mlp_norm(y))
    return module.norm(y).mT.reshape(len(x), -1, module.grid, module.grid)


def fusion(module, temporal, spatial):
    """A sum, and place by place a linear layer, an affine norm (in evaluation), SiLU; their mean, and a linear layer."""
    norm, total = module.norm, 0
    both = temporal + spatial
    for y in range(both.shape[2]):
        for x in range(both.shape[3]):
            lifted = module.lift(both[:, :, y, x])
            lifted = (lifted - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            total = total + lifted * lifted.sigmoid()
    return module.head(total / (both.shape[2] * both.shape[3]))


def loss_of_au_prior(module, logits, target, au_logits=None, au_target=None):
    """The formula of the class's docstring, clip by clip and unit by unit."""
    r, s, prior = module.au_ratio, module.prior_scale, module.prior.to(logits)
    each = []
    for i in range(len(logits)):
        p = logits[i].softmax(0)
        wanted = F.one_hot(target[i], len(p)).to(p) if target.ndim == 1 else target[i]
        row = wanted @ prior
        label = row if au_target is None else au_target[i]
        units = []
        for a in range(prior.shape[1]):
            if au_logits is None:
                q = p @ prior[:, a]
                apart = label[a] * (label[a] / q).log() + (1 - label[a]) * ((1 - label[a]) / (1 - q)).log()
            else:
                present = au_logits[i, a].sigmoid()
                apart = -label[a] * present.log() - (1 - label[a]) * (1 - present).log()
            units.append(s * row[a] * apart)
        each.append((1 - r) * -(wanted * p.log()).sum() + r * torch.stack(units).mean())
    each = torch.stack(each)
    return each if module.reduction == "none" else each.mean()


def focal(module, logits, target):
    p = logits.softmax(1)[torch.arange(len(logits)), target]
    return (module.class_weight[target] * (1 - p) ** module.gamma * -p.log()).mean()


def adjusted(module, logits, target):
    n = torch.tensor([5.0, 3, 2, 11, 7, 1, 13])
    q = (logits.exp() * (n / n.sum())).to(logits)
    return -(q / q.sum(1, keepdim=True))[torch.arange(len(logits)), target].log().mean()


def distances(_, frames):
    rows = [[frame.flatten().tolist() for frame in clip] for clip in frames]
    apart = [[[math.dist(a, b) for b in clip] for a in clip] for clip in rows]
    return torch.tensor(apart, dtype=torch.float64)


def strain(_, flow):
    """Central differences inside, one-sided at the edges, pixel by pixel."""
    h, w = flow.shape[-2:]
    out = flow.new_zeros(len(flow), h, w)
    for y in range(h):
        for x in range(w):
            up, down, left, right = max(y - 1, 0), min(y + 1, h - 1), max(x - 1, 0), min(x + 1, w - 1)
            u_y, v_y = ((flow[:, :, down, x] - flow[:, :, up, x]) / (down - up)).unbind(1)
            u_x, v_x = ((flow[:, :, y, right] - flow[:, :, y, left]) / (right - left)).unbind(1)
            out[:, y, x] = (u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2).sqrt()
    return out


def linear_clip(_, clip):
    """Seven frames of a clip by linear interpolation."""
    place = [i * (len(clip) - 1) / 6 for i in range(7)]
    return torch.stack([clip[int(p)] * (1 - p % 1) + clip[min(int(p) + 1, len(clip) - 1)] * (p % 1) for p in place])


def attention_pool(module, x, valid):
    out = []
    for clip, n in zip(x, valid.tolist(), strict=True):
        weight = module.score(clip[:n])[:, 0].exp()
        out.append((weight[:, None] * clip[:n]).sum(0) / weight.sum())
    return torch.stack(out)


def branches(module, onset, apex, offset):
    return module.net(onset, apex - onset), module.net(apex, apex - offset)


def tapped(module, static, motion):
    net = module.host
    features = net.conv(torch.cat([static, motion], 1)).mean((2, 3))
    return net.fc(features), module.au_head.linear(features)


def prior_of_labels(_, au_target, target):
    prior = torch.empty(7, au_target.shape[1], dtype=au_target.dtype)
    for e in range(7):
        of_class = au_target[target == e]
        prior[e] = (of_class.sum(0) + 1) / (len(of_class) + 2)
    return prior


def pos_weight_of_labels(_, au_target):
    return torch.stack([((1 - unit).sum() + 1) / (unit.sum() + 1) for unit in au_target.T])


def votes(_, presence):
    return torch.stack([(2 * clip.sum(0) >= len(clip)).to(presence.dtype) for clip in presence])


def counted(_, predicted, target):
    table = torch.zeros(7, 7, dtype=torch.int64)
    for guess, truth in zip(predicted.tolist(), target.tolist(), strict=True):
        table[truth, guess] += 1
    return table


def state_after(layer, x):
    """The memory ``Σ_m γ^(t−1−m) k_m v_mᵀ`` and the frames seen."""
    b, t, _ = x.shape
    n, d = layer.num_heads, layer.dim // layer.num_heads
    _, k, v, _ = (x @ layer.in_proj.weight.T).split([layer.dim] * 3 + [layer.value_dim], -1)
    angle = torch.arange(t, dtype=torch.float64)[:, None] * 10.0 ** -torch.linspace(0, 4, d // 2).double()
    k = k.reshape(b, t, n, d // 2, 2)
    cos, sin = angle.cos().to(x)[:, None], angle.sin().to(x)[:, None]
    k = torch.stack([k[..., 0] * cos - k[..., 1] * sin, k[..., 1] * cos + k[..., 0] * sin], -1).flatten(-2)
    return memory_of(k.transpose(1, 2), v.view(b, t, n, d).transpose(1, 2), layer.log_decay), torch.full((b,), t)


def memory_of(k, v, log_decay):
    t = k.shape[2]
    memory = 0
    for m in range(t):
        decay = (log_decay * (t - 1 - m)).exp().view(1, -1, 1, 1)
        memory = memory + decay * k[:, :, m, :, None] * v[:, :, m, None, :]
    return memory


def scores(predicted, target):
    """All scores of a batch of predictions."""
    matrix = mt.confusion_matrix(predicted, target, num_classes=7)
    return mt.uf1(matrix), mt.uar(matrix), mt.war(matrix), mt.class_scores(matrix)


def searched(module, frames, onset, apex, offset):
    """GAMDSS's windows by plain loops over exact distances."""
    keys = []
    for clip, o, a, f in zip(frames, onset.tolist(), apex.tolist(), offset.tolist(), strict=True):
        d = distances(None, clip[None])[0]
        rise, fall = int(0.1 * (a - o)), int(0.1 * (f - a))
        best = max(
            ((i, j) for i in range(o, o + rise + 1) for j in range(a - rise, a + 1) if i < j),
            key=lambda pair: (d[pair], pair == (o, a)),
        )
        end = max(range(max(f - fall, best[1]), f + 1), key=lambda i: (d[best[1], i], i == f))
        keys.append((*best, end, d[best]))
    return [torch.tensor(column) for column in zip(*keys, strict=True)]


# --- why a check is left out ----------------------------------------------------------------------------------------

NO_PARAMETERS = dict.fromkeys(("reset", "average", "ranks"), "no parameters")
FUNCTION = {**NO_PARAMETERS, **dict.fromkeys(("copies", "switches", "meta"), "a function: no state")}
NO_GRADIENT = dict.fromkeys(
    ("gradients", "checkpointing", "hooks"), "no gradient: a choice, a count or a preparation of data"
)
MEAN = {"batch": "one number for the whole batch"}
HOST = dict.fromkeys(("compiled", "export", "vmap"), "looks at the values it is given, to refuse wrong ones")
NO_CLIPS = {"empty": "no clips have no score: an error says so"}
TABLE = {"batch": "a statistic of the whole batch", "empty": "has no axis for the clips: a statistic of them"}
ONE_CLIP = dict.fromkeys(("batch", "empty"), "takes one clip, without an axis for the batch")
SEARCH = {"vmap": "takes batches itself, and goes clip by clip on the host"}
UNROLLED = dict.fromkeys(
    ("compiled", "export"), "a loop over frames: a graph has as many steps; mode='auto' is one graph for all"
)
COMPILED = ("compiled",)  # many seconds of compilation: with LONG_RUN=1 only
LARGE = ("compiled", "export")

# --- the cases ------------------------------------------------------------------------------------------------------

SMALL = {"image_size": 32, "dims": (4, 8, 12, 16), "hidden": 11, "spatial_depth": 1}


def stem():
    return mt.ManhattanRetNet(dims=(4, 8, 12, 28))


CASES: dict[str, Case] = {
    "AUHead": Case(
        "AUHead", lambda: mt.AUHead(7, 5), lambda b, t: (torch.randn(b, t, 7),),
        lambda m, x: torch.einsum("btd,ad->bta", x, m.linear.weight) + m.linear.bias, time=True,
    ),
    "attach_au_head": Case(
        "attach_au_head detach_au_head", lambda: mt.attach_au_head(Net(), "fc", num_aus=11),
        lambda b, t: (image(b), image(b)), tapped,
    ),
    "Retention": Case(
        "Retention", lambda: mt.Retention(14, 7), tokens, retention_layer, time=True,
    ),
    "Retention, recurrent": Case(
        "Retention", lambda: Keywords(mt.Retention(12, 3), mode="recurrent"), lambda b, t: (torch.randn(b, t, 12),),
        lambda m, x: retention_layer(m.module, x), lambda m, x: m.module(x, mode="parallel"), time=True,
        no=UNROLLED,
    ),
    "Retention, chunks": Case(
        "Retention", lambda: Keywords(mt.Retention(12, 3), "lengths", mode="chunkwise", chunk_size=4),
        lambda b, t: (torch.randn(b, t, 12), lengths(b, t)),
        lambda m, x, n: retention_layer(m.module, x, n), lambda m, x, n: m.module(x, lengths=n, mode="recurrent"),
        time=True, lengths=True,
        long=COMPILED,
    ),
    "Retention, two-sided": Case(
        "Retention", lambda: Keywords(mt.Retention(14, 7, causal=False), chunk_size=5), tokens,
        lambda m, x: retention_layer(m.module, x), time=True,
        long=COMPILED,
    ),
    "Retention, learnable": Case(
        "Retention", lambda: mt.Retention(14, 7, learnable_decay=True), tokens, retention_layer, time=True,
        long=COMPILED,
    ),
    "Retention, state": Case(
        "Retention RetentionState", lambda: Keywords(mt.Retention(12, 3), return_state=True),
        lambda b, t: (torch.randn(b, t, 12),),
        lambda m, x: (retention_layer(m.module, x), *state_after(m.module, x)), time=True,
        no={"checkpointing": "its state is nested in the output, where PyTorch's reentrant checkpoint sees no gradients"},
        long=COMPILED,
    ),
    "chunkwise_retention": Case(
        "chunkwise_retention", lambda: Call(chunkwise_retention, chunk_size=4), heads,
        lambda m, q, k, v, g: (retention_of(q, k, v, g), memory_of(k, v, g)),
        lambda m, *x: recurrent_retention(*x), time=True, fixed=(3,),
        no=FUNCTION,
        long=COMPILED,
    ),
    "recurrent_retention": Case(
        "recurrent_retention retention_step", lambda: Call(recurrent_retention), heads,
        lambda m, q, k, v, g: (retention_of(q, k, v, g), memory_of(k, v, g)), time=True, fixed=(3,),
        no={**FUNCTION, **UNROLLED},
    ),
    "two_sided_retention": Case(
        "two_sided_retention", lambda: Call(two_sided_retention, chunk_size=4), heads,
        lambda m, q, k, v, g: retention_of(q, k, v, g, two_sided=True), time=True, fixed=(3,),
        no=FUNCTION,
        long=COMPILED,
    ),
    "RetNetTemporal": Case("RetNetTemporal", lambda: mt.RetNetTemporal(14, 1, 7, drop_path=0.2), tokens, encoder, time=True, long=COMPILED),
    "RetNetTemporal, lengths": Case(
        "RetNetTemporal", lambda: Keywords(mt.RetNetTemporal(14, 1, 7, learnable_decay=True), "lengths"),
        lambda b, t: (*tokens(b, t), lengths(b, t)), lambda m, x, n: encoder(m.module, x, n), time=True, lengths=True,
        long=COMPILED,
    ),
    "RetNetTemporal, stem": Case(
        "RetNetTemporal", lambda: mt.RetNetTemporal(28, 1, 7, stem=stem(), checkpoint=True),
        lambda b, t: (torch.randn(b, t, 3, 19, 17),), "retention/test_temporal.py::test_with_a_stem_retention_runs_along_time_at_each_place",
        time=True,
        long=LARGE, no={"vmap": "torch.func knows no checkpoints: with checkpoint=False all of it works"},
    ),
    "LSTMShape": Case(
        "LSTMShape", lambda: First(mt.LSTMShape(mt.RetNetTemporal(14, 1, 7), 22), "lengths"),
        lambda b, t: (*tokens(b, t), lengths(b, t)), lstm_shape, time=True, lengths=True, long=COMPILED,
    ),
    "FrameEncoder": Case(
        "FrameEncoder", lambda: mt.FrameEncoder(nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())),
        lambda b, t: (torch.randn(b, t, 3, 11, 13),),
        lambda m, x: torch.stack([m.net[0](clip).mean((2, 3)) for clip in x]) if len(x) else torch.zeros(0, x.shape[1], 7), time=True,
    ),
    "FramePool": Case(
        "FramePool pool_frames", lambda: Keywords(mt.FramePool("attention", dim=7), "lengths"),
        lambda b, t: (torch.randn(b, t, 7), lengths(b, t)), lambda m, x, n: attention_pool(m.module, x, n),
        lambda m, x, n: mt.pool_frames(x, n, how="attention", scores=m.module.score(x)[..., 0]), time=True, lengths=True,
    ),
    "pool_frames, mean": Case(
        "pool_frames", lambda: Call(mt.pool_frames), lambda b, t: (torch.randn(b, t, 3, 5), lengths(b, t)),
        lambda m, x, n: torch.stack([clip[:k].mean(0) for clip, k in zip(x, n.tolist(), strict=True)]),
        lambda m, x, n: mt.FramePool("mean")(x, n), time=True, lengths=True,
        no=FUNCTION,
    ),
    "pool_frames, last": Case(
        "pool_frames", lambda: Call(mt.pool_frames, how="last"), lambda b, t: (torch.randn(b, t, 3, 5), lengths(b, t)),
        lambda m, x, n: torch.stack([clip[k - 1] for clip, k in zip(x, n.tolist(), strict=True)]),
        lambda m, x, n: mt.FramePool("last")(x, n), time=True, lengths=True,
        no=FUNCTION,
    ),
    "ManhattanRetention": Case(
        "ManhattanRetention", lambda: mt.ManhattanRetention(12, 3), lambda b, t: (torch.randn(b, 5, 7, 12),), manhattan,
    ),
    "ManhattanRetention, time": Case(
        "ManhattanRetention", lambda: mt.ManhattanRetention(12, 3), lambda b, t: (torch.randn(b, t, 3, 5, 12),), manhattan, time=True,
        long=COMPILED,
    ),
    "ManhattanRetention, decomposed": Case(
        "ManhattanRetention", lambda: mt.ManhattanRetention(14, 7, decomposed=True), lambda b, t: (torch.randn(b, 3, 5, 14),),
        "retention/test_manhattan.py::test_equals_the_definition",
        long=COMPILED,
    ),
    "ManhattanRetNet": Case(
        "ManhattanRetNet", lambda: mt.ManhattanRetNet(dims=(4, 8, 12, 16)), lambda b, t: (image(b),),
        "models/test_pretrained.py::test_maps_of_the_front_branch",
        lambda m, x: m.features(x)[-1],
        long=LARGE,
    ),
    "SpatialTransformer": Case(
        "SpatialTransformer", lambda: mt.SpatialTransformer(14, 1, 7, grid=5, drop_path=0.2), lambda b, t: (image(b),), spatial,
        long=COMPILED,
    ),
    "ParallelFusion": Case(
        "ParallelFusion", lambda: mt.ParallelFusion(7, 11, num_classes=13), lambda b, t: (image(b, 3, 5, 7), image(b, 3, 5, 7)),
        fusion, lambda m, x, y: m.logits(x + y),
    ),
    "TwoBranch": Case(
        "TwoBranch", lambda: mt.TwoBranch(Net()), lambda b, t: (image(b), image(b), image(b)), branches,
        lambda m, x, y, z: (m.front(x, y), m.net(y, y - z)),
    ),
    "TwoBranch of TSFmicro": Case(
        "TwoBranch TSFmicro", lambda: mt.TwoBranch(mt.TSFmicro(5, **SMALL)), lambda b, t: (image(b, 32, 32), image(b, 32, 32), image(b, 32, 32)),
        lambda m, x, y, z: (m.net(x, y), m.net(y, 2 * y - z)),
        long=LARGE,
    ),
    "TwoBranch of a wrapper": Case(
        "TwoBranch", lambda: mt.TwoBranch(Wrapper(mt.TSFmicro(5, **SMALL))), lambda b, t: (image(b, 32, 32), image(b, 32, 32), image(b, 32, 32)),
        lambda m, x, y, z: (m.net.net(x, y), m.net.net(y, 2 * y - z)),
        long=LARGE,
    ),
    "AUPriorLoss": Case(
        "AUPriorLoss au_prior_loss", lambda: mt.AUPriorLoss(), lambda b, t: (torch.randn(b, 7), classes(b)),
        loss_of_au_prior, lambda m, *x: mt.au_prior_loss(*x, prior=m.prior),
        no={**NO_PARAMETERS, **MEAN},
    ),
    "AUPriorLoss, soft": Case(
        "AUPriorLoss au_prior_loss", lambda: mt.AUPriorLoss(reduction="none"),
        lambda b, t: (torch.randn(b, 7), torch.randn(b, 7).softmax(1)),
        loss_of_au_prior, lambda m, *x: mt.au_prior_loss(*x, prior=m.prior, reduction="none"), fixed=(1,),
        no=NO_PARAMETERS, long=COMPILED,
    ),
    "AUPriorLoss, head": Case(
        "AUPriorLoss au_prior_loss", lambda: mt.AUPriorLoss(reduction="none"),
        lambda b, t: (torch.randn(b, 7), classes(b), torch.randn(b, 18)),
        loss_of_au_prior, lambda m, *x: mt.au_prior_loss(*x, prior=m.prior, reduction="none"),
        no=NO_PARAMETERS, long=COMPILED,
    ),
    "AUPriorLoss, labels": Case(
        "AUPriorLoss au_prior_loss", lambda: mt.AUPriorLoss(reduction="none"),
        lambda b, t: (torch.randn(b, 7), classes(b), torch.randn(b, 18), units(b, 18)),
        loss_of_au_prior, lambda m, *x: mt.au_prior_loss(*x, prior=m.prior, reduction="none"),
        no=NO_PARAMETERS,
    ),
    "FocalLoss": Case("FocalLoss", lambda: mt.FocalLoss(2.0, class_weight=torch.linspace(0.5, 2, 7, device=real_device())), lambda b, t: (torch.randn(b, 7), classes(b)), focal, no={**NO_PARAMETERS, **MEAN}),
    "LogitAdjustedLoss": Case(
        "LogitAdjustedLoss", lambda: mt.LogitAdjustedLoss([5, 3, 2, 11, 7, 1, 13]), lambda b, t: (torch.randn(b, 7), classes(b)), adjusted,
        no={**NO_PARAMETERS, **MEAN},
    ),
    "pairwise_distance": Case(
        "pairwise_distance", lambda: Call(mt.pairwise_distance), lambda b, t: (torch.randn(b, t, 3, 5),), distances, time=True,
        no={**FUNCTION, **NO_GRADIENT, **SEARCH, "trace": "the tracer does not know an operation in it"},
    ),
    "FrameSelector": Case(
        "FrameSelector select_keyframes KeyFrames", mt.FrameSelector,
        lambda b, t: (clips(b, t), torch.full((b,), 1), torch.full((b,), t // 2), torch.full((b,), t - 2)),
        searched, lambda m, *x: mt.select_keyframes(*x), time=True,
        no={**NO_PARAMETERS, **NO_GRADIENT, **SEARCH, "trace": "what it does depends on the values"},
    ),
    "FrameSelector, whole clip": Case(
        "FrameSelector select_keyframes KeyFrames", lambda: Keywords(mt.FrameSelector(), "lengths"),
        lambda b, t: (clips(b, 2 * t), lengths(b, 2 * t).clamp(min=7)), "keyframes/test_selector.py::test_search_without_annotation_finds_the_truth_of_a_clean_clip",
        lambda m, x, n: mt.select_keyframes(x, lengths=n), time=True, lengths=True,
        sixteen=1.1, no={**NO_PARAMETERS, **NO_GRADIENT, **SEARCH, "trace": "what it does depends on the values"},
    ),
    "optical_strain": Case(
        "optical_strain", lambda: Call(mt.optical_strain), lambda b, t: (torch.randn(b, 2, 7, 5),), strain,
        no=FUNCTION,
    ),
    "resample_clip": Case(
        "resample_clip", lambda: Call(mt.resample_clip, num_frames=7, mode="linear"), lambda b, t: (torch.randn(t, 3, 5),),
        linear_clip, time=True,
        no={**FUNCTION, **NO_GRADIENT, **ONE_CLIP},
    ),
    "magnify_motion": Case(
        "magnify_motion", lambda: Call(mt.magnify_motion, factor=3, fps=25, low=1, high=5), lambda b, t: (torch.rand(t, 3, 19, 17),),
        "clips/test_magnify.py::test_a_swing_grows_by_the_factor", time=True,
        no={**FUNCTION, **NO_GRADIENT, **ONE_CLIP, **dict.fromkeys(("compiled", "export"), "prepares clips: a graph for each length")},
    ),
    "clip_au_labels": Case(
        "clip_au_labels", lambda: Call(mt.clip_au_labels), lambda b, t: ((torch.rand(b, t, 5) > 0.5).float(),), votes, time=True,
        no={**FUNCTION, **NO_GRADIENT, **HOST},
    ),
    "estimate_au_prior": Case(
        "estimate_au_prior", lambda: Call(mt.estimate_au_prior, num_classes=7), lambda b, t: (units(b, 5), classes(b)), prior_of_labels,
        no={**FUNCTION, **HOST, **TABLE},
    ),
    "estimate_pos_weight": Case(
        "estimate_pos_weight", lambda: Call(mt.estimate_pos_weight), lambda b, t: (units(b, 5),), pos_weight_of_labels,
        no={**FUNCTION, **HOST, **TABLE},
    ),
    "confusion_matrix": Case(
        "confusion_matrix", lambda: Call(mt.confusion_matrix, num_classes=7), lambda b, t: (classes(b), classes(b).flip(0)), counted,
        no={**FUNCTION, **NO_GRADIENT, **HOST, **TABLE, **NO_CLIPS},
    ),
    "scores": Case(
        "uf1 uar war class_scores ClassScores", lambda: Call(scores), lambda b, t: (torch.randn(b, 7), classes(b)),
        "test_properties_metrics.py::test_equal_to_scikit_learn",
        no={**FUNCTION, **NO_GRADIENT, **HOST, **TABLE, **NO_CLIPS, "trace": "scores are Python numbers"},
    ),
}  # fmt: skip

# --- names without a case -------------------------------------------------------------------------------------------


def _names(names, reason):
    return dict.fromkeys(names.split(), reason)


NO_CASE = {
    **_names("ACTION_UNITS CLASS_SETS EXPRESSIONS PROTOCOLS __version__", "a constant"),
    **_names("default_decay", "a table for a number of heads: test_layer.py"),
    **_names("au_prior au_pos_weight class_weights", "a table from names or counts: test_au.py, test_imbalance.py"),
    **_names("optical_flow", "OpenCV computes it, image by image: test_flow.py"),
    **_names("ClipAugment Geometry transform_clip", "NumPy arrays, image by image: test_augment.py"),
    **_names("drawn_portrait SyntheticClip synthetic_clip synthetic_dataset SyntheticDataset", "makes data: test_synthetic*.py"),
    **_names(
        "ActionUnitTable FacsLabels OpenFaceAUs facs_labels read_action_units read_au_labels read_facs read_openface "
        "write_au_labels",
        "reads labels: test_detectors.py, test_facs.py, test_labels.py",
    ),
    **_names(
        "AnnotationAudit AnnotationSchema Annotations AuditedTable ClipAnnotation ClipAudit DatasetReport FrameFolder "
        "FrameFolders Problem Protocol ProtocolClips Repair apply_protocol audit_annotations audit_table check_dataset "
        "find_frames frame_list_schema read_annotations repair_annotations ClipDataset read_clip",
        "tables and files: each has a test file of its name",
    ),
    **_names("Fold check_fold fixed_folds group_folds inner_split lodo_folds loso_folds", "lists of subjects: test_folds.py"),
    **_names("SyntheticExpression SyntheticVideo face_box iter_expressions spot_expressions", "videos, frame by frame: tests/spotting"),
    **_names("Expression SpotThenRecognizeScores SpottingScores spot_then_recognize spotting_scores", "lists of intervals: test_spotting.py"),
    **_names("UAR UF1 WAR", "count labels over batches: test_meters.py"),
    **_names("Prediction ScoreBook Scores", "rows of predictions: test_score_book.py"),
    **_names("plot_au_prior plot_confusion plot_keyframes", "draws: test_plots.py"),
    **_names(
        "ClipBatches FoldFolder RunFolder Processes join_processes load_checkpoint load_weights save_checkpoint "
        "save_weights load_model save_model export_onnx load_published load_rmt load_torchscale load_yet_another_retnet",
        "files and processes of a training: each has a test file of its name",
    ),
}  # fmt: skip
