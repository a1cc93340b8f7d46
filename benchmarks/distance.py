"""What distances and key frames cost, side by side with the usual ways.

    python -m benchmarks.distance [--quick]

Method: 3 × 224 × 224 ``uint8`` frames of a synthetic clip with sensor noise, two threads. One process; the candidates
run in turn (A B C A B C ...) after one warm-up; figures are medians, ratios are medians of the ratios within a turn.
Extra memory is the peak of a fresh process above what it holds before the call. Errors are relative to a float64
double loop, the worst of a clip, a clip whose first frame is black, one that hardly moves and one with duplicate
frames.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

import mertools as mt
from benchmarks import plain
from benchmarks.measure import in_turn, ratio

Matrix = Callable[[Tensor], Tensor]


def numpy_loop(clip: Tensor) -> Tensor:
    """A double loop of float32 norms, i < j."""
    values = clip.flatten(1).numpy().astype(np.float32)
    d = np.zeros((len(values), len(values)))
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            d[i, j] = d[j, i] = np.linalg.norm(values[i] - values[j])
    return torch.from_numpy(d)


def torch_cdist(clip: Tensor) -> Tensor:
    """``torch.cdist`` in float32."""
    values = clip.flatten(1).float()
    return torch.cdist(values, values)


def scipy_pdist(clip: Tensor) -> Tensor:
    """SciPy's ``pdist``."""
    return torch.from_numpy(squareform(pdist(clip.flatten(1).numpy())))


def ours(clip: Tensor) -> Tensor:
    """``pairwise_distance`` of the ``uint8`` clip."""
    return mt.pairwise_distance(clip[None])[0]


def ours_floating(clip: Tensor) -> Tensor:
    """``pairwise_distance`` of the same values in float32, the conversion included."""
    return mt.pairwise_distance(clip[None].float())[0]


MATRICES: dict[str, Matrix] = {
    "NumPy loop of norms": numpy_loop,
    "torch.cdist": torch_cdist,
    "SciPy pdist": scipy_pdist,
    "pairwise_distance, float32": ours_floating,
    "pairwise_distance": ours,
}


def make_clip(t: int, size: int = 224) -> Tensor:
    """A clip with a smile in it, and sensor noise."""
    rest = max(t // 8, 1)
    short = mt.synthetic_clip(
        num_frames=t, onset=rest, apex=rest + t // 4, offset=rest + t // 2, hold=0, size=size, noise=2.0, amplitude=3.0
    )
    return short.frames


def hard_clips(t: int) -> list[Tensor]:
    """Clips on which quick formulas lose digits."""
    clip = make_clip(t)
    black_first, nearly_still, duplicates = clip.clone(), clip[:1].repeat(t, 1, 1, 1), clip.clone()
    black_first[0] = 0
    nearly_still[t // 2, 1, 100, 17] ^= 1
    duplicates[1::2] = duplicates[::2][: len(duplicates[1::2])]
    return [clip, black_first, nearly_still, duplicates]


def worst_error(matrix: Matrix) -> float:
    """Largest relative error, and infinity where equal frames are not 0 apart or the matrix is lopsided."""
    worst = 0.0
    for clip in hard_clips(16):
        d = matrix(clip).double()
        values = clip.flatten(1).double()
        true = torch.stack([(values - frame).norm(dim=1) for frame in values])
        worst = max(worst, float(((d - true).abs() / true.clamp(min=1e-300))[true > 0].max()))
        if bool(d[true == 0].any()) or not torch.equal(d, d.mT):
            return float("inf")
    return worst


def extra_memory(name: str, t: int) -> float:
    """Peak MB of a fresh process above what it held before the call."""
    script = f"""
import torch
from benchmarks import distance
from benchmarks.peak import peak_bytes
torch.set_num_threads(2)
distance.MATRICES[{name!r}](torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
clip = torch.empty({t}, 3, 224, 224, dtype=torch.uint8).random_()
before = peak_bytes()
distance.MATRICES[{name!r}](clip)
print((peak_bytes() - before) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_distances(lengths: tuple[int, ...], turns: int, memory: bool) -> None:
    """Time, memory and error of the matrices of distances."""
    print("| all pairwise distances | " + " | ".join(f"t={t}: ms | × | extra MB" for t in lengths) + " | worst error |")
    print("|---" * (2 + 3 * len(lengths)) + "|")
    cells: dict[str, list[str]] = {name: [] for name in MATRICES}
    for t in lengths:
        clip = make_clip(t)
        calls = {name: lambda f=f, clip=clip: f(clip) for name, f in MATRICES.items()}
        times = in_turn(calls, turns if t < 500 else 1)
        for name, values in times.items():
            extra = f"{extra_memory(name, t):.0f}" if memory else "–"
            gain = ratio(values, times["pairwise_distance"])
            cells[name] += [f"{statistics.median(values):.1f}", f"{gain:.0f}", extra]
    for name, row in cells.items():
        error = worst_error(MATRICES[name])
        shown = f"{error:.0e}" if error < float("inf") else "equal frames not 0 apart"
        print(f"| {name} | " + " | ".join(row) + f" | {shown} |")


def print_search(lengths: tuple[int, ...], turns: int) -> None:
    """The search over a whole clip, beside converting the frames and decoding them."""
    print("\n| one clip | " + " | ".join(f"t={t}: ms" for t in lengths) + " |")
    print("|---" * (1 + len(lengths)) + "|")
    rows: dict[str, list[str]] = {}
    for t in lengths:
        clip = make_clip(t)
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(clip, Path(folder))
            times = in_turn(
                {
                    "frames.float()": clip.float,
                    "read_clip of JPEG files": lambda folder=folder: mt.read_clip(folder),
                    "select_keyframes, no annotation": lambda clip=clip: mt.select_keyframes(clip[None]),
                },
                turns,
            )
        for name, values in times.items():
            rows.setdefault(name, []).append(f"{statistics.median(values):.0f}")
        search = times["select_keyframes, no annotation"]
        for name in ("frames.float()", "read_clip of JPEG files"):
            rows.setdefault(f"the search ÷ {name}", []).append(f"{ratio(search, times[name]):.2f}")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row) + " |")


def print_folder(t: int, turns: int) -> None:
    """The published windowed search over a folder of JPEG files: decoding for every pair, or every frame once."""
    clip = make_clip(t)
    onset, apex, offset = 0, t // 2, t - 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(clip, folder)

        def per_pair() -> None:
            plain.windowed_search(lambda i: folder / f"{i}.jpg", onset, apex, offset)

        def per_frame() -> None:
            mt.select_keyframes(folder, onset, apex, offset)

        times = in_turn({"per pair": per_pair, "per frame": per_frame}, turns)
    print(f"\n| published windows on {t} JPEG files | ms | × |\n|---|---|---|")
    gain = ratio(times["per pair"], times["per frame"])
    print(f"| both images decoded for every pair | {statistics.median(times['per pair']):.0f} | {gain:.1f} |")
    print(f"| mertools, every frame once | {statistics.median(times['per frame']):.0f} | 1 |")


def write_jpegs(clip: Tensor, folder: Path) -> None:
    """Frames as numbered JPEG files."""
    for i, frame in enumerate(clip):
        cv2.imwrite(str(folder / f"{i}.jpg"), np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[..., ::-1]))


def print_device(device: str, t: int, turns: int) -> None:
    """Time on a device, against a copy of the same bytes on it and reading them once."""
    if device == "cuda" and not torch.cuda.is_available():
        print("\nno GPU: its part is left out")
        return
    clip = make_clip(t).to(device)
    calls = {
        "reading the frames once": lambda: clip.view(torch.int64).amax(),
        "a copy of the frames": clip.clone,
        "pairwise_distance": lambda: ours(clip),
        "select_keyframes": lambda: mt.select_keyframes(clip[None]),
    }
    times = in_turn(calls, turns, device=device)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"\n| {name}, t={t} | ms | ÷ reading once |\n|---|---|---|")
    for call, values in times.items():
        print(f"| {call} | {statistics.median(values):.2f} | {ratio(values, times['reading the frames once']):.1f} |")


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description="Cost of distances and key frames.")
    parser.add_argument("--quick", action="store_true", help="short clips and few turns, to see that it runs")
    parser.add_argument("--part", choices=("distances", "search", "folder", "gpu"), help="default: all")
    args = parser.parse_args()
    torch.set_num_threads(1 if args.quick else 2)
    lengths, turns = ((8,), 1) if args.quick else ((64, 200, 500), 3)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if args.part in (None, "distances"):
        print_distances(lengths, turns, memory=not args.quick)
    if args.part in (None, "search"):
        print_search((16,) if args.quick else (64, 200), 1 if args.quick else 7)
    if args.part in (None, "folder"):
        for t in (16,) if args.quick else (64, 200):
            print_folder(t, turns)
    if args.part in (None, "gpu"):
        print_device("cuda", 200, 9)


if __name__ == "__main__":
    main()
