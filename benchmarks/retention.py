"""What a retention layer costs, side by side with what people would take instead.

    python -m benchmarks.retention [--quick] [--json FILE]

Method: one layer, float32, two threads, batch 8, dim 512, 8 heads, random weights. All candidates of a row run in turn
in one process (A B C A B C ...), after one warm-up turn; the figure is the median time, the ratios are medians of the
ratios within a turn, so that a machine that slows down slows all of them. "projections" is the matrix products that
every retention layer has to do, alone: with the same products no layer can be faster. Memory is the growth of the peak
resident size of a fresh process over that with weights and input in place and a short clip computed.

Peers: yet-another-retnet (PyPI; left out where it is not installed); the forms of the paper written down as they stand
("paper"); nn.LSTM; causal attention on scaled_dot_product_attention with the same projections;
nn.TransformerEncoderLayer with its evaluation fast path off, which has a feed-forward layer (ratio 4) beside its
attention. The quadratic forms run once at t = 4096, forward only.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mertools as mt
from benchmarks.measure import in_turn, ratio

B, DIM, HEADS = 8, 512, 8
QUADRATIC = ("yet-another-retnet, parallel", "paper, parallel")

Step = Callable[[], object]


class Paper(nn.Module):
    """RetNet's parallel and chunkwise forms as its section 2 prints them."""

    def __init__(self, chunk_size: int | None = None) -> None:
        super().__init__()
        self.chunk_size = chunk_size
        self.q, self.k, self.v, self.g, self.out = (nn.Linear(DIM, DIM, bias=False) for _ in range(5))
        self.register_buffer("gamma", 1 - 2 ** (-5 - torch.arange(HEADS, dtype=torch.float32)))
        angle = (1 / 10000 ** torch.linspace(0, 1, DIM // HEADS // 2)).repeat_interleave(2)
        self.register_buffer("angle", angle)

    def forward(self, x: Tensor) -> Tensor:
        """Project, retain, normalise, gate, project."""
        b, t, _ = x.shape
        q, k, v = (part(x).view(b, t, HEADS, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        theta = torch.arange(t)[:, None] * self.angle
        cos, sin = theta.cos(), theta.sin()
        q, k = (y * cos + torch.stack((-y[..., 1::2], y[..., 0::2]), -1).flatten(-2) * sin for y in (q, k))
        q = q * (DIM // HEADS) ** -0.5
        y = self.parallel(q, k, v) if self.chunk_size is None else self.chunkwise(q, k, v, self.chunk_size)
        y = F.group_norm(y.transpose(1, 2).reshape(b * t, DIM), HEADS).view(b, t, DIM)
        return self.out(F.silu(self.g(x)) * y)

    def decay(self, t: int) -> Tensor:
        """The matrix D of each head."""
        apart = torch.arange(t)[:, None] - torch.arange(t)
        return torch.where(apart >= 0, self.gamma[:, None, None] ** apart.clamp(min=0), 0)

    def parallel(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Equation 5."""
        return (q @ k.mT * self.decay(q.shape[2])) @ v

    def chunkwise(self, q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
        """Equation 7."""
        gamma, step = self.gamma[:, None, None], torch.arange(size)[:, None]
        decay, state, outputs = self.decay(size), 0, []
        for start in range(0, q.shape[2], size):
            qi, ki, vi = (y[:, :, start : start + size] for y in (q, k, v))
            n = qi.shape[2]
            cross = (qi @ state) * gamma ** (step[:n] + 1) if start else 0
            outputs.append((qi @ ki.mT * decay[:, :n, :n]) @ vi + cross)
            state = ki.mT @ (vi * gamma ** (n - 1 - step[:n])) + gamma**n * state
        return torch.cat(outputs, 2)


class Attention(nn.Module):
    """Causal softmax attention with the same projections."""

    def __init__(self) -> None:
        super().__init__()
        self.qkvg, self.out = nn.Linear(DIM, 4 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project, attend, gate, project."""
        q, k, v, g = self.qkvg(x).chunk(4, -1)
        q, k, v = (y.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.out(F.silu(g) * y)


class Projections(nn.Module):
    """The matrix products of a retention layer and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj, self.out = nn.Linear(DIM, 4 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The products."""
        # Every column has a part in the result, so that the backward pass is whole too.
        q, k, v, g = self.in_proj(x).chunk(4, -1)
        return self.out(q) if not torch.is_grad_enabled() else self.out(q + k + v + g)


class First(nn.Module):
    """The first output of a module that returns several."""

    def __init__(self, net: nn.Module, call: Callable[[nn.Module, Tensor], Any] = lambda net, x: net(x)) -> None:
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x: Tensor) -> Tensor:
        """Call, and keep the first."""
        return self.call(self.net, x)[0]


def _in_chunks(net: Any, x: Tensor, size: int = 128) -> tuple[Tensor]:
    """yet-another-retnet takes one chunk at a call; its caller hands the state on."""
    outputs, state = [], None
    for start in range(0, x.shape[1], size):
        part = x[:, start : start + size]
        y, state = net.forward_chunkwise(part, part, part, start, state)
        outputs.append(y)
    return (torch.cat(outputs, 1),)


def layers() -> dict[str, nn.Module]:
    """Every candidate, built anew."""
    torch.manual_seed(0)
    found: dict[str, nn.Module] = {
        "mertools.Retention": mt.Retention(DIM, HEADS),
        "projections": Projections(),
        "paper, parallel": Paper(),
        "paper, chunkwise": Paper(128),
        "nn.LSTM": First(nn.LSTM(DIM, DIM, batch_first=True)),
        "causal attention (SDPA)": Attention(),
        "TransformerEncoderLayer": nn.TransformerEncoderLayer(
            DIM, HEADS, 4 * DIM, dropout=0.0, batch_first=True, norm_first=True
        ),
    }
    try:
        from yet_another_retnet.retention import MultiScaleRetention
    except ImportError:
        print("yet-another-retnet is not installed: left out (pip install 'mertools[bench]')")
    else:
        found["yet-another-retnet, parallel"] = First(
            MultiScaleRetention(DIM, HEADS, bias=False), lambda net, x: net.forward_parallel(x, x, x)
        )
        found["yet-another-retnet, chunkwise"] = First(MultiScaleRetention(DIM, HEADS, bias=False), _in_chunks)
    return found


def clips(t: int, *, backward: bool, turns: int, nets: dict[str, nn.Module]) -> dict[str, list[float]]:
    """Every candidate on the same clips."""
    x = torch.randn(B, t, DIM, requires_grad=backward)

    def step(net: nn.Module) -> Step:
        def run() -> None:
            if backward:
                net(x).sum().backward()
            else:
                with torch.no_grad():
                    net(x)

        return run

    return in_turn({name: step(net) for name, net in nets.items()}, turns, QUADRATIC if t > 1024 else ())


def table(title: str, rows: dict[int, dict[str, list[float]]]) -> None:
    """Medians of every candidate, and how many times ours is faster."""
    names = list(next(iter(rows.values())))
    print(f"\n{title}: median ms (its time ÷ ours)\n")
    print("| |" + "".join(f" t = {t} |" for t in rows))
    print("|---|" + "---|" * len(rows))
    for name in names:
        cells = []
        for times in rows.values():
            if name not in times:
                cells.append(" – |")
                continue
            own = times["mertools.Retention"]
            other = "" if name == "mertools.Retention" else f" ({ratio(times[name], own):.2f})"
            cells.append(f" {statistics.median(times[name]):.1f}{other} |")
        print(f"| {name} |" + "".join(cells))


def streaming(turns: int, frames: int = 50) -> dict[str, dict[str, float]]:
    """Microseconds a frame of a stream, each turn a stretch of ``frames`` with the state handed on."""
    print("\nA stream, frame by frame: median µs a frame (its time ÷ ours)\n")
    print("| batch | mertools.Retention.step | projections | nn.LSTMCell |\n|---|---|---|---|")
    found: dict[str, dict[str, float]] = {}
    for b in (1, 8):
        layer, floor, cell = mt.Retention(DIM, HEADS), Projections(), nn.LSTMCell(DIM, DIM)
        x = torch.randn(frames, b, DIM)

        def ours(layer: mt.Retention = layer, x: Tensor = x) -> None:
            state = None
            for frame in x:
                _, state = layer.step(frame, state)

        def products(floor: nn.Module = floor, x: Tensor = x) -> None:
            for frame in x:
                floor(frame)

        def lstm(cell: nn.Module = cell, x: Tensor = x) -> None:
            hidden = None
            for frame in x:
                hidden = cell(frame, hidden)

        with torch.no_grad():
            times = in_turn({"step": ours, "projections": products, "nn.LSTMCell": lstm}, turns)
        medians = {name: statistics.median(values) / frames * 1e3 for name, values in times.items()}
        print(f"| {b} | {medians['step']:.0f} |", end="")
        for name in ("projections", "nn.LSTMCell"):
            print(f" {medians[name]:.0f} ({ratio(times[name], times['step']):.2f}) |", end="")
        print()
        found[str(b)] = medians
    return found


def forms(turns: int, lengths: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """The forms against ``mode="auto"``, and the time a frame."""
    print("\nThe forms, forward: median ms; what ``auto`` takes, and its µs a frame of one clip\n")
    print("| t | parallel | chunkwise | recurrent | auto | auto, µs a frame |\n|---|---|---|---|---|---|")
    layer = mt.Retention(DIM, HEADS)
    found = {}
    for t in lengths:
        x = torch.randn(B, t, DIM)
        modes = ["auto", "chunkwise"] + ["parallel"] * (t <= 1024) + ["recurrent"] * (t <= 256)
        with torch.no_grad():
            times = in_turn({m: lambda m=m, x=x: layer(x, mode=m) for m in modes}, turns)
        medians = {mode: statistics.median(values) for mode, values in times.items()}
        cells = [f"{medians[m]:.1f}" if m in medians else "–" for m in ("parallel", "chunkwise", "recurrent", "auto")]
        print(f"| {t} | " + " | ".join(cells) + f" | {medians['auto'] / t / B * 1e3:.1f} |")
        found[str(t)] = medians
    return found


MEMORY = """
import sys, torch
from benchmarks.peak import peak_bytes
from benchmarks.retention import layers, B, DIM
name, t, backward = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "backward"
torch.set_num_threads(2)
net = layers()[name]
for p in net.parameters():
    p.grad = torch.zeros_like(p)
def run(x):
    if backward:
        net(x).sum().backward()
    else:
        with torch.no_grad():
            net(x)
x = torch.randn(B, t, DIM)
run(torch.randn(B, 256, DIM))
before = peak_bytes()
run(x)
print((peak_bytes() - before) / 2**20)
"""


def memory(t: int, shown: int = 4) -> dict[str, dict[str, float]]:
    """MiB that a clip takes beside weights and input, each in a process of its own."""
    names = ("mertools.Retention", "yet-another-retnet, chunkwise", "nn.LSTM", "causal attention (SDPA)")[:shown]
    print(
        f"\nPeak memory at t = {t}: MiB beside weights and input\n\n| | forward | forward + backward |\n|---|---|---|"
    )
    found: dict[str, dict[str, float]] = {}
    for name in names:
        if name not in layers():
            continue
        cells = {}
        for way in ("forward", "backward"):
            done = subprocess.run(
                [sys.executable, "-c", MEMORY, name, str(t), way], capture_output=True, text=True, check=True
            )
            cells[way] = float(done.stdout.splitlines()[-1])
        print(f"| {name} | {cells['forward']:.0f} | {cells['backward']:.0f} |")
        found[name] = cells
    return found


def profile(t: int) -> None:
    """Where the time of one forward goes."""
    from torch.profiler import ProfilerActivity

    layer, x = mt.Retention(DIM, HEADS), torch.randn(B, t, DIM)
    with torch.no_grad(), torch.profiler.profile(activities=[ProfilerActivity.CPU]) as record:
        layer(x)
        layer(x)
    kinds = dict.fromkeys(("aten::mm", "aten::mkldnn_convolution"), "projections")
    kinds |= dict.fromkeys(("aten::bmm", "aten::baddbmm"), "products in chunks")
    shares: dict[str, float] = {}
    for event in record.key_averages():
        kind = kinds.get(event.key, "copies" if event.key in ("aten::copy_", "aten::cat") else "element by element")
        shares[kind] = shares.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    print(f"\nWhere a forward at t = {t} goes: " + ", ".join(f"{k} {v / total:.0%}" for k, v in shares.items()))


def on_a_gpu(lengths: tuple[int, ...], turns: int) -> dict[str, Any]:
    """bfloat16 against attention, cuDNN's LSTM and, where it is installed, fla-core's kernels."""
    if not torch.cuda.is_available():
        print("\nNo GPU: that part is left out.")
        return {}
    nets: dict[str, nn.Module] = {
        "mertools.Retention": mt.Retention(DIM, HEADS),
        "mertools.Retention, compiled": mt.Retention(DIM, HEADS),
        "causal attention (SDPA)": Attention(),
        "nn.LSTM": First(nn.LSTM(DIM, DIM, batch_first=True)),
    }
    nets = {name: net.to("cuda", torch.bfloat16) for name, net in nets.items()}
    nets["mertools.Retention, compiled"] = torch.compile(nets["mertools.Retention, compiled"], dynamic=False)  # type: ignore[assignment]
    try:
        from fla.layers import MultiScaleRetention

        nets["fla-core"] = First(MultiScaleRetention(hidden_size=DIM, num_heads=HEADS).to("cuda", torch.bfloat16))
    except ImportError:
        print("\nfla-core is not installed: left out")
    rows = {}
    for t in lengths:
        x = torch.randn(B, t, DIM, device="cuda", dtype=torch.bfloat16)

        def step(net: nn.Module, x: Tensor = x) -> Step:
            def run() -> None:
                with torch.no_grad():
                    net(x)

            return run

        rows[t] = in_turn({name: step(net) for name, net in nets.items()}, turns, device="cuda")
    table(f"{torch.cuda.get_device_name()}, bfloat16, forward", rows)
    return {str(t): {name: statistics.median(v) for name, v in times.items()} for t, times in rows.items()}


def main() -> None:
    """Print every table; keep the figures where asked to."""
    parser = argparse.ArgumentParser(description="Cost of retention.")
    parser.add_argument("--quick", action="store_true", help="short clips, few turns, to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1 if args.quick else 2)
    torch.backends.mha.set_fastpath_enabled(False)
    nets = layers()
    plan = {16: 2, 64: 2} if args.quick else {16: 61, 64: 41, 256: 15, 1024: 7, 4096: 3}
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {platform.system()}")
    print(f"batch {B}, dim {DIM}, {HEADS} heads, float32; turns: {plan}")
    figures: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    for backward in (False, True):
        title = "Forward + backward" if backward else "Forward"
        rows = {}
        for t, turns in plan.items():
            skipped = QUADRATIC if backward and t > 1024 else ()  # 25 s and 20 GB each
            some = {name: net for name, net in nets.items() if name not in skipped}
            rows[t] = clips(t, backward=backward, turns=max(turns // (1 + backward), 1), nets=some)
        table(title, rows)
        figures[title] = {
            str(t): {name: statistics.median(v) for name, v in times.items()} for t, times in rows.items()
        }
    figures["step, µs"] = streaming(2 if args.quick else 40)
    figures["forms"] = forms(2 if args.quick else 5, (16, 64) if args.quick else (16, 64, 256, 1024, 4096, 16384))
    figures["memory, MiB"] = memory(512, 1) if args.quick else memory(4096)
    profile(64 if args.quick else 1024)
    figures["gpu"] = on_a_gpu((16, 64) if args.quick else (16, 64, 256, 1024, 4096, 16384), 3 if args.quick else 21)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
