"""How far numbers may go: long clips, few bits, large logits, small movements, each against float64.

    python -m reliability.numeric_range

writes ``reliability/numeric_range.json``: a line for each thing tried, with the largest error, relative to the largest
value of what float64 gives for the same inputs (rounded to the type first, so that it is the computation that is seen).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import mertools as mt

RECORD = Path(__file__).with_suffix(".json")
FRAMES = 100_000
DECAYS = {"default": None, "near 0": [1e-30, 1e-8], "near 1": [1 - 2**-16, 1 - 2**-22], "1": [1.0, 1.0]}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def error(got: Tensor, expected: Tensor) -> float:
    """Largest error relative to the largest expected value; infinity where one of them is not finite."""
    if not bool(torch.isfinite(got).all() & torch.isfinite(expected).all()):
        return float("inf")
    largest = float((got.detach().double() - expected.detach()).abs().max())
    return largest / max(float(expected.detach().abs().max()), 1e-300)


# --- retention over a long clip -------------------------------------------------------------------------------------


def retention_layers(decay: list[float] | None, dtype: torch.dtype) -> tuple[mt.Retention, nn.Module]:
    """A layer, and the same with its weights in float64."""
    torch.manual_seed(0)
    layer = mt.Retention(8, 2, decay=decay).to(dtype).eval()
    return layer, copy.deepcopy(layer).double()


@torch.no_grad()
def retention(decay: list[float] | None, dtype: torch.dtype, form: str, frames: int = FRAMES) -> dict[str, float]:
    """One form over many frames, against the chunks of float64."""
    layer, exact = retention_layers(decay, dtype)
    x = torch.randn(1, frames, 8).to(dtype)
    expected: Tensor = exact(x.double())
    if form == "steps":  # the last thousand frames one by one, from the memory of all before
        y, state = layer(x[:, :-1000], return_state=True)
        outputs = []
        for frame in x[:, -1000:].unbind(1):
            y, state = layer.step(frame, state)
            outputs.append(y)
        got, expected = torch.stack(outputs, 1), expected[:, -1000:]
    elif form == "parallel":  # its scores are t × t
        got, expected = layer(x[:, :4000], mode="parallel"), expected[:, :4000]
    elif form == "recurrent":
        got, expected = layer(x[:, :20000], mode="recurrent"), expected[:, :20000]
    else:
        got = layer(x) if form == "auto" else layer(x, mode="chunkwise", chunk_size=1000)
    end = expected[:, -1000:]
    return {"error": error(got, expected), "spread": float(got[:, -1000:].double().std() / end.std())}


# --- losses ---------------------------------------------------------------------------------------------------------

LOGITS = [
    [1e4, -1e4, 0, 0, 0, 0, 0],
    [-1e4, 1e4, 1e4, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1e4],
    [1e4] * 7,
    [-1e4, 0, 0, 0, 0, 0, -1e4],
]
LOSSES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "AUPriorLoss, no head": (mt.AUPriorLoss, 0),
    "AUPriorLoss, a prior of 0 and 1": (lambda: mt.AUPriorLoss(torch.eye(7, 18)), 0),
    "AUPriorLoss, head": (mt.AUPriorLoss, 1),
    "AUPriorLoss, head and labels": (lambda: mt.AUPriorLoss(pos_weight=mt.au_pos_weight()), 2),
    "FocalLoss, γ = 2": (lambda: mt.FocalLoss(2.0), 0),
    "FocalLoss, γ = 0.5": (lambda: mt.FocalLoss(0.5), 0),
    "LogitAdjustedLoss, 1 of 10⁹": (lambda: mt.LogitAdjustedLoss([1, 10**9, 3, 4, 5, 6, 7]), 0),
}


def loss_inputs(extra: int) -> list[Tensor]:
    """Logits of ±10⁴, classes, AU logits of ±10⁴, labels."""
    torch.manual_seed(0)
    au = torch.full((5, 18), 1e4)
    au[1::2] = -1e4
    return [torch.tensor(LOGITS), torch.tensor([1, 0, 6, 3, 0]), au, torch.rand(5, 18).round(decimals=2)][: 2 + extra]


def loss(make: Callable[[], nn.Module], extra: int, dtype: torch.dtype) -> dict[str, float]:
    """Value and gradients with logits of a type, against float64 with the same logits."""
    results = []
    for kind in (dtype, torch.float64):
        given = [x.to(dtype).to(kind) if i in (0, 2) else x for i, x in enumerate(loss_inputs(extra))]
        leaves = [x.detach().requires_grad_() for i, x in enumerate(given) if i in (0, 2)]
        value = make()(leaves[0], given[1], *leaves[1:], *given[3:])
        results.append([value, *torch.autograd.grad(value, leaves)])
    value, *slopes = (error(got, expected) for got, expected in zip(*results, strict=True))
    return {"error": value, "gradient": max(slopes)}


# --- key frames -----------------------------------------------------------------------------------------------------


def movements() -> Iterator[tuple[str, Tensor, tuple[int, int, int]]]:
    """Clips, and where their key frames are."""
    made = mt.synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=96, amplitude=0.5)
    truth = (10, 18, 30)
    for scale in (1e-30, 1e-6, 1 / 255, 1.0, 1e6, 1e30):
        yield f"float32, 8-bit values times {scale:.3g}", made.frames[None].float() * scale, truth
    # One grey level, in a still patch of a textured picture: a step in 8 bits, a smooth movement in float.
    torch.manual_seed(0)
    patch = torch.zeros(96, 96)
    patch[40:60, 30:66] = 1
    extent = torch.sin(torch.pi * ((torch.arange(40) - 10) / 20).clamp(0, 1)).view(-1, 1, 1)
    picture = torch.randint(60, 190, (96, 96)) + extent * patch
    grey = picture[None, :, None].expand(1, 40, 3, 96, 96)
    yield "one grey level, 8 bits", grey.round().to(torch.uint8), (13, 14, 27)  # where it rounds to the next level
    yield "one grey level, float in [0, 1]", grey / 255, (10, 20, 30)


def key_frames(clip: Tensor, truth: tuple[int, int, int]) -> dict[str, float]:
    """Frames that a search of the whole clip is off by."""
    found = mt.select_keyframes(clip)[:3]
    return {"frames off": max(abs(int(a) - b) for a, b in zip(found, truth, strict=True))}


def still_clips() -> Iterator[tuple[str, Tensor]]:
    """Clips in which nothing moves."""
    for value in (0, 128, 255):
        yield f"constant {value}, 8 bits", torch.full((1, 20, 3, 64, 64), value, dtype=torch.uint8)
    for level in (0.0, 1e-6, 1.0, 1e30):
        yield f"constant {level:g}", torch.full((1, 20, 3, 64, 64), level)
    ramp = torch.arange(20, dtype=torch.uint8).view(1, 20, 1, 1, 1)
    yield "a plain colour that gets lighter", ramp.expand(1, 20, 3, 64, 64).contiguous()


# --- all of it ------------------------------------------------------------------------------------------------------


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Everything: a table for each part."""
    tables: dict[str, dict[str, dict[str, float]]] = {"retention": {}, "losses": {}, "key frames": {}}
    for name, decay in DECAYS.items():
        for kind in ("float32", "bfloat16"):
            for form in ("auto", "chunks of 1000", "parallel", "recurrent", "steps"):
                tables["retention"][f"γ {name}, {kind}, {form}"] = retention(decay, TYPES[kind], form)
    for name, (make, extra) in LOSSES.items():
        for kind, dtype in TYPES.items():
            tables["losses"][f"{name}, {kind}"] = loss(make, extra, dtype)
    for name, clip, truth in movements():
        tables["key frames"][name] = key_frames(clip, truth)
    for name, clip in still_clips():
        tables["key frames"][name] = key_frames(clip, (0, 10, 19))
    return tables


def page(tables: dict[str, dict[str, dict[str, float]]]) -> str:
    """The tables of docs/reliability.md: the largest error of each line over its types or forms."""
    lines = ["| retention over 10⁵ frames | float32 | bfloat16 |", "|---|---|---|"]
    for name in DECAYS:
        cells = []
        for kind in ("float32", "bfloat16"):
            some = [row for key, row in tables["retention"].items() if key.startswith(f"γ {name}, {kind}")]
            cells.append(f"{max(row['error'] for row in some):.0e}")
        lines.append(f"| γ {name} | " + " | ".join(cells) + " |")
    lines += ["", "| logits of ±10⁴ | " + " | ".join(TYPES) + " |", "|---|" + "---|" * len(TYPES)]
    for name in LOSSES:
        rows = [tables["losses"][f"{name}, {kind}"] for kind in TYPES]
        cells = [f"{row['error']:.0e}, {row['gradient']:.0e}" for row in rows]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| clips | frames off |", "|---|---|"]
    lines += [f"| {name} | {row['frames off']:.0f} |" for name, row in tables["key frames"].items()]
    return "\n".join(lines)


def write(tables: dict[str, dict[str, dict[str, float]]], path: Path = RECORD) -> None:
    """The record, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Measure, write the record, print the page's tables."""
    torch.set_num_threads(1)
    tables = measure()
    write(tables)
    print(page(tables))


if __name__ == "__main__":
    main()
