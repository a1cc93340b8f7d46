"""TSFmicro and TwoBranch against the published networks written the plain way.

    python -m benchmarks.models [--quick] [--device cuda] [--batch N] [--compile]

Method: the baseline is ``benchmarks/plain.py`` with the same weights (the library's, under their published names);
batch 8, 224 × 224, float32, two threads, no drop path. All candidates of a table run in turn in one process. A training
step is forward, cross entropy and backward, without the optimiser. Peak memory is what a fresh process takes beyond
weights, gradients and input. FLOPs are counted by PyTorch on the baseline (products and convolutions only, 2 per
multiplication and addition, a training step 3 times the forward, whatever is computed again) and set against the
product of two 2048 × 2048 matrices measured in the same run. On a GPU: batch 64, float32, TF32 and bfloat16, eager and
compiled.

What limits it: the baseline's products alone take a third of its time, so a factor of 2.5 asks for nearly the rate of a
large matrix product throughout. Page faults, which cost the baseline up to a third of a forward, are gone; what is left
above the products is attention in short lines of 32 to 128 channels, which runs at half that rate, the writing of maps
that are larger than a core's cache, and two threads waiting for each other. A training step has to keep its maps for
the backward pass, which no micro-batches avoid. The two branches share no work: front and back read different images.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mertools as mt
from benchmarks import plain
from benchmarks.measure import Step, fresh_process, in_turn, ratio, table

ARGUMENTS = ("--turns", "3")
SIZE, CLASSES = 224, 5
KINDS = {
    "addmm": "linear layers", "mm": "linear layers", "_linear_pointwise": "linear layers",
    "mkldnn_convolution": "convolutions", "convolution_backward": "convolutions",
    "_convolution_pointwise": "convolutions", "cudnn_convolution": "convolutions",
    "_scaled_dot_product_flash_attention_for_cpu": "attention", "bmm": "attention", "_softmax": "attention",
    "_scaled_dot_product_flash_attention_for_cpu_backward": "attention", "_softmax_backward_data": "attention",
    "copy_": "copies", "cat": "copies", "fill_": "copies",
    "native_layer_norm": "norms", "native_layer_norm_backward": "norms",
    "native_batch_norm": "norms", "native_batch_norm_backward": "norms",
}  # fmt: skip


class Motion(nn.Module):
    """The library's model called as the baseline is, with a motion image."""

    def __init__(self, net: mt.TSFmicro) -> None:
        super().__init__()
        self.net = net

    def forward(self, static: Tensor, motion: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(static, motion=motion)
        return logits


def build(name: str, device: str = "cpu") -> nn.Module:
    """One candidate with the weights that all have, called as ``net(static, motion)``."""
    torch.manual_seed(0)
    ours = mt.TSFmicro(CLASSES, drop_path=0.0, checkpoint="checkpoint" in name)
    if name.startswith("plain"):
        net: nn.Module = plain.PlainTSFmicro(CLASSES, drop_path=0.0)
        plain.load_used(net, plain.published_state_dict(ours))  # type: ignore[arg-type]
    else:
        net = Motion(ours)
    return net.to(device)


def frames(batch: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Onset, apex and offset."""
    g = torch.Generator().manual_seed(1)
    onset, apex, offset = (torch.randn(batch, 3, SIZE, SIZE, generator=g).to(device) for _ in range(3))
    return onset, apex, offset


def predict(net: Callable[..., object], *images: Tensor, low: bool = False) -> Step:
    """A step of inference; with ``low`` under bfloat16 autocast."""

    def step() -> object:
        with torch.no_grad(), torch.autocast(images[0].device.type, torch.bfloat16, enabled=low):
            return net(*images)

    return step


def train(net: nn.Module, static: Tensor, motion: Tensor, low: bool = False) -> Step:
    """A training step; the gradients are given back after it."""
    target = torch.arange(len(static), device=static.device) % CLASSES

    def step() -> None:
        with torch.autocast(static.device.type, torch.bfloat16, enabled=low):
            loss = F.cross_entropy(net(static, motion).float(), target)
        loss.backward()
        for p in net.parameters():
            p.grad = None

    return step


def two_passes(net: nn.Module, onset: Tensor, apex: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Both branches."""
    return net(onset, apex - onset), net(apex, apex - offset)


def print_equality(device: str, batch: int = 2) -> None:
    """How far the candidates are from the baseline: outputs and gradients."""
    onset, apex, _ = frames(batch, device)
    base = build("plain", device)
    want = predict(base.eval(), onset, apex - onset)()
    rows = []
    got = predict(build("TSFmicro", device).eval(), onset, apex - onset)()
    rows.append(["TSFmicro", "logits", f"{float((got - want).abs().max() / want.abs().max()):.0e}"])  # type: ignore[operator, attr-defined]
    target = torch.tensor([1, 3], device=device)[:batch]
    nets = {name: build(name, device).train() for name in ("plain", "TSFmicro", "TSFmicro, checkpoint")}
    norms = {}
    for name, net in nets.items():
        F.cross_entropy(net(onset, apex - onset), target).backward()
        grads = {key: p.grad for key, p in net.named_parameters()}
        if name != "plain":
            own = mt.TSFmicro(CLASSES).to(device)
            own.load_state_dict(own.state_dict() | {key.removeprefix("net."): g for key, g in grads.items()})
            theirs = plain.published_state_dict(own)
            grads = {key: theirs[key] for key, _ in nets["plain"].named_parameters()}
        norms[name] = grads
    largest = max(float(g.abs().max()) for g in norms["plain"].values())
    for name, grads in norms.items():
        if name != "plain":
            off = max(float((g - norms["plain"][key]).abs().max()) for key, g in grads.items())
            rows.append([name, "gradients", f"{off / largest:.0e}"])
    table("Difference from the baseline, relative to its largest value", ["model", "of", "difference"], rows)


def print_times(
    title: str, steps: dict[str, Step], turns: int, flops: float, device: str, base: str = "plain"
) -> dict[str, list[float]]:
    """Median, spread, ratio to the baseline and FLOP/s."""
    times = in_turn(steps, turns, device=device)
    rows = []
    for name, values in times.items():
        middle = statistics.median(values)
        speed = f"{flops / middle / 1e6:.0f}" if flops else "–"
        gain = f"{ratio(times[base], values):.2f}"
        rows.append([name, f"{middle:.0f}", f"{min(values):.0f}–{max(values):.0f}", gain, speed])
    table(title, ["", "median ms", "min–max", "times faster", "GFLOP/s"], rows)
    return times


def count_flops(batch: int) -> tuple[float, float]:
    """FLOPs of the baseline's forward for a batch, and of forward and backward: a product has two in its backward."""
    onset, apex, _ = frames(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build("plain").eval()(onset, apex - onset)
    forward = float(counter.get_total_flops()) * batch
    return forward, 3 * forward


def matmul_speed(device: str, turns: int = 7, side: int = 2048) -> float:
    """GFLOP/s of a large product."""
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    times = in_turn({"product": lambda: a @ b}, turns, device=device)["product"]
    return 2 * side**3 / statistics.median(times) / 1e6


def print_profile(title: str, steps: dict[str, Step]) -> None:
    """Shares of the kinds of work in one step."""
    from torch.profiler import ProfilerActivity, profile

    rows = []
    names = [*dict.fromkeys(KINDS.values()), "the rest"]
    for name, step in steps.items():
        step()
        with profile(activities=[ProfilerActivity.CPU]) as record:
            step()
        shares = dict.fromkeys(names, 0.0)
        for event in record.key_averages():
            shares[KINDS.get(event.key.split("::")[-1], "the rest")] += event.self_cpu_time_total
        total = sum(shares.values())
        rows.append([name, *(f"{shares[kind] / total:.0%}" for kind in names)])
    table(title, ["", *names], rows)


MEMORY = """
import sys, torch
from benchmarks.models import build, frames, predict, train
from benchmarks.peak import peak_bytes
name, way, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(2)
net = build(name).train(way == "train")
for p in net.parameters():
    p.grad = torch.zeros_like(p)
onset, apex, _ = frames(batch)
motion = apex - onset
before = peak_bytes()
(train if way == "train" else predict)(net, onset, motion)()
print((peak_bytes() - before) / 2**20)
"""


def print_memory(batch: int) -> dict[str, float]:
    """Peak memory of fresh processes; that of training relative to the baseline's."""
    rows, found = [], {}
    for way, names in {
        "inference": ("plain", "TSFmicro"),
        "train": ("plain", "TSFmicro", "TSFmicro, checkpoint"),
    }.items():
        peaks = {name: float(fresh_process(MEMORY, name, way, batch)) for name in names}
        rows += [[way, name, f"{mib:.0f}", f"{mib / peaks['plain']:.2f}"] for name, mib in peaks.items()]
        found = {name: mib / peaks["plain"] for name, mib in peaks.items()}
    table(f"Peak memory at batch {batch}", ["", "", "MiB", "÷ plain"], rows)
    return found


def print_goals(reached: dict[str, tuple[float, float]]) -> None:
    """What was to be reached, at most where it is a cost (÷), else at least; nothing fails on it."""
    rows = []
    for what, (goal, value) in reached.items():
        cost = "÷" in what
        met = value <= goal if cost else value >= goal
        rows.append([what, f"{'≤' if cost else '≥'} {goal}", f"{value:.2f}", "met" if met else "not met"])
    table("Goals on a CPU in float32", ["", "goal", "reached", ""], rows)


def on_cpu(batch: int, turns: int, *, compiled: bool, quick: bool) -> None:
    """Every table for a CPU."""
    print_equality("cpu", 1 if quick else 2)
    speed = matmul_speed("cpu")
    forward, both = count_flops(batch)
    onset, apex, offset = frames(batch)
    motion = apex - onset
    print(f"\nA forward of batch {batch} is {forward / 1e9:.0f} GFLOP, a training step {both / 1e9:.0f}; "
          f"the product of two matrices runs at {speed:.0f} GFLOP/s, at which they would take "
          f"{forward / speed / 1e6:.0f} ms and {both / speed / 1e6:.0f} ms.")  # fmt: skip
    nets = {name: build(name).eval() for name in ("plain", "TSFmicro")}
    steps = {name: predict(net, onset, motion) for name, net in nets.items()}
    if compiled:
        steps["TSFmicro, compiled"] = predict(torch.compile(build("TSFmicro").eval(), dynamic=False), onset, motion)
        steps["TSFmicro, compiled"]()
    steps["TSFmicro, bfloat16 autocast"] = predict(nets["TSFmicro"], onset, motion, low=True)
    alone = print_times("Inference, one branch", steps, turns, forward, "cpu")
    ours = mt.TwoBranch(nets["TSFmicro"].net)  # type: ignore[arg-type]
    pairs = {
        "plain, one branch": predict(nets["plain"], onset, motion),
        "plain, two passes": predict(partial(two_passes, nets["plain"]), onset, apex, offset),
        "TSFmicro, one branch": predict(nets["TSFmicro"], onset, motion),
        "TwoBranch": predict(ours, onset, apex, offset),
    }
    times = print_times("Inference, two branches", pairs, turns, 0, "cpu", "plain, two passes")
    cost = ratio(times["TwoBranch"], times["TSFmicro, one branch"])
    print(f"\nTwo branches cost {cost:.2f} times one.")
    learners = {name: build(name).train() for name in ("plain", "TSFmicro", "TSFmicro, checkpoint")}
    learning = {name: train(net, onset, motion) for name, net in learners.items()}
    learning["TSFmicro, bfloat16 autocast"] = train(learners["TSFmicro"], onset, motion, low=True)
    learned = print_times("Training step, one branch", learning, turns, both, "cpu")
    peaks = {} if quick else print_memory(batch)
    reached = {
        "inference, TSFmicro, times faster": (2.5, ratio(alone["plain"], alone["TSFmicro"])),
        "training step, TSFmicro, times faster": (1.8, ratio(learned["plain"], learned["TSFmicro"])),
        "two branches ÷ one, inference": (1.9, cost),
    }
    for name in learners if peaks else ():
        if name != "plain":
            reached[f"peak memory of training, {name} ÷ plain"] = (0.6, peaks[name])
    print_goals(reached)
    shown = ["TSFmicro"] if quick else list(nets)  # the profiler takes its time
    print_profile("Where inference goes", {name: steps[name] for name in shown})
    if not quick:
        print_profile("Where a training step goes", {name: learning[name] for name in learners})


def on_device(device: str, batch: int, turns: int, compiled: bool) -> None:
    """float32, TF32 and bfloat16, eager and compiled, against the float32 eager baseline; the tables for a GPU."""
    print_equality(device)
    onset, apex, _ = frames(batch, device)
    forward, both = count_flops(batch)
    ways: Sequence[tuple[str, bool, bool]] = [
        ("float32", False, False),
        ("TF32", True, False),
        ("bfloat16", False, True),
    ]
    for mode in ("inference", "training"):
        steps: dict[str, Step] = {}
        for candidate in ("plain", "TSFmicro"):
            for way, tf32, low in ways:
                for suffix in ("", ", compiled") if compiled else ("",):
                    net = build(candidate, device).train(mode == "training")
                    run = torch.compile(net, dynamic=False) if suffix else net
                    step = (train if mode == "training" else predict)(run, onset, apex - onset, low=low)  # type: ignore[operator]
                    steps[f"{candidate}, {way}{suffix}"] = partial(with_tf32, tf32, step)
        for step in steps.values():
            step()  # compiles
        title = f"{mode.title()} on {device}, batch {batch}"
        print_times(title, steps, turns, both if mode == "training" else forward, device, "plain, float32")


def with_tf32(allowed: bool, step: Step) -> None:
    """A step with TF32 products and convolutions, or without."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        step()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description="Cost of TSFmicro and TwoBranch.")
    parser.add_argument("--quick", action="store_true", help="one image and one turn, to see that it runs")
    parser.add_argument("--device", help="only the tables for a device: cuda, or cpu to try them")
    parser.add_argument("--batch", type=int, help="default: 8 on a CPU, 64 on a GPU")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well on the CPU: minutes")
    args = parser.parse_args()
    torch.set_num_threads(1 if args.quick else 2)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    if args.device:
        on_device(args.device, args.batch or 64, args.turns, args.device != "cpu")
        return
    batch, turns = (1, 1) if args.quick else (args.batch or 8, args.turns)
    on_cpu(batch, turns, compiled=args.compile and not args.quick, quick=args.quick)
    if torch.cuda.is_available():
        on_device("cuda", 2 if args.quick else args.batch or 64, turns, not args.quick)
    else:
        print("\nno GPU: its part is left out")


if __name__ == "__main__":
    main()
