"""Train a dynamic facial expression model: a frame encoder, retention over the frames, the AU prior loss.

    python examples/train_dfer.py --out runs/first                     # a synthetic dataset; minutes on two cores
    python examples/train_dfer.py --out runs/dfew --table EmoLabel_DataSplit --frames Clip/clip_224x224_16f
    torchrun --nproc-per-node=8 examples/train_dfer.py --out ...       # each fold over all GPUs
    ... --encoder torchvision.models:resnet18 --resume                 # any encoder of images; go on after a kill
    ... --recipe audfer-dfew-global --au-labels AU_DFEW.txt --published-protocol   # the loss of AU-DFER as published

The number of epochs is fixed (--select last), or the epoch is chosen on clips set aside from the training clips
(--select inner). Test clips decide nothing, unless --select-on-test says so, and then every output says so.
--published-protocol scores the same training a second time, as published training loops do, and prints both.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

import mertools as mt

# For the synthetic dataset: small pictures, a narrow network, few epochs.
SYNTHETIC = {
    "size": 48, "num_frames": 8, "dims": [16, 24, 32, 48], "depth": 1, "heads": 4, "epochs": 10, "lr": 2e-3,
    "batch_size": 12, "padding": 3, "input": "motion",
}  # fmt: skip
NEEDS_GPUS = (
    "--folds-per-rank must be given with several processes on CPUs: PyTorch has batch norm over the clips of all "
    "processes for GPUs only"
)
SYNTHETIC_PROTOCOL = mt.Protocol(
    name="synthetic-3", classes=("happy", "angry", "surprise"),
    labels={"dfew": {name: name for name in ("happy", "angry", "surprise")}},
)  # fmt: skip
# The loss of AU-DFER as its code sets it; the name says which table weighs present units, none where it says nothing.
RECIPES: dict[str, dict[str, Any]] = {
    f"audfer-{dataset}{'' if weight == 'none' else f'-{weight}'}": {
        "dataset": dataset, "au_ratio": 0.25, "prior_scale": 5.0, "pos_weight": weight,
    }
    for dataset in ("dfew", "ferv39k")
    for weight in ("none", "global", "distinct", "minor")
}  # fmt: skip
PUBLISHED_PROTOCOL = "best epoch on the test clips: not a result"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        """End with the message."""
        self.exit(2, f"{self.prog}: error: {message}\n")


class FrameEncoderDFER(nn.Module):
    """An encoder on each frame, retention along the frames, a mean over them, a classifier.

    Frames ``(b, t, 3, h, w)`` to logits ``(b, e)``. With ``motion`` the encoder sees each frame minus the clip's mean
    frame: how the face moves, and not whose it is. With few subjects to learn from, that decides.
    """

    def __init__(self, encoder: nn.Module, dim: int, depth: int, heads: int, num_classes: int, *, motion: bool) -> None:
        super().__init__()
        self.encoder, self.motion = encoder, motion
        self.temporal = mt.RetNetTemporal(dim, depth, heads, causal=False)
        self.pool = mt.FramePool("attention", dim=dim)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits of clips."""
        if self.motion:
            frames = frames - frames.mean(1, keepdim=True)
        found = self.encoder(frames.flatten(0, 1))
        features = found.mean((2, 3)) if found.ndim == 4 else found
        tokens = self.temporal(features.view(*frames.shape[:2], -1))
        logits: Tensor = self.fc(self.pool(tokens))
        return logits


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What can be set; `python examples/train_dfer.py --help` shows it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), metavar="NAME",
        help="a published loss: " + ", ".join(sorted(RECIPES)) + "; options that are given too go before it",
    )  # fmt: skip
    group = parser.add_argument_group("data").add_argument
    group("--table", help="list of clips, or folder of the lists; without one, a synthetic dataset")
    group("--dataset", default="dfew", help="dfew or ferv39k, see mertools.read_annotations")
    group("--frames", help="folder with the frames of all clips")
    group("--folds", nargs="+", metavar="FOLD", help="only these of the dataset's folds (DFEW: 1 to 5)")
    group("--num-frames", type=int, default=16)
    group("--size", type=int, default=112)
    group("--padding", type=int, default=8, help="of the augmentation's crop")
    group = parser.add_argument_group("model and loss").add_argument
    group(
        "--encoder",
        default="retnet",
        help="retnet, or MODULE:NAME of what makes an encoder of images, (b, 3, h, w) to (b, d) or (b, d, h, w)",
    )
    group("--dims", type=int, nargs=4, default=[64, 128, 256, 512], help="of the encoder retnet")
    group("--input", default="frames", choices=("frames", "motion"), help="motion: minus the clip's mean frame")
    group("--depth", type=int, default=2, help="retention blocks over the frames")
    group("--heads", type=int, default=8)
    group("--au-labels", help="cache of clip labels made from OpenFace, see mertools.read_au_labels: adds an AU head")
    group("--au-ratio", type=float, default=0.25, help="share of the AU term; 0: cross entropy")
    group("--prior-scale", type=float, default=5.0, help="scale of the prior as a weight of the units")
    group(
        "--pos-weight",
        default="estimated",
        choices=("estimated", "none", "global", "distinct", "minor"),
        help="weight of present units under --au-labels: from the training clips, none, or a published table",
    )
    group = parser.add_argument_group("optimisation").add_argument
    group("--epochs", type=int, default=100)
    group("--batch-size", type=int, default=32, help="over all processes together")
    group("--accumulate", type=int, default=1, help="batches to a step")
    group("--lr", type=float, default=5e-4)
    group("--weight-decay", type=float, default=0.05)
    group("--schedule", default="cosine", choices=("cosine", "exponential"))
    group("--ema", type=float, default=0.0, help="decay of the averaged weights that are scored; 0: none")
    group("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    group("--select", default="last", choices=("last", "inner"), help="which epoch is scored")
    group("--select-on-test", action="store_true", help="choose the epoch on the test clips: not a result")
    group("--published-protocol", action="store_true", help=f"score a second time, {PUBLISHED_PROTOCOL}")
    group("--seed", type=int, default=0)
    group = parser.add_argument_group("run").add_argument
    group("--out", type=Path, required=True)
    group("--resume", action="store_true")
    group("--device", default="auto", choices=("auto", "cpu", "cuda"))
    group("--workers", type=int, default=0)
    group("--folds-per-rank", action="store_true", help="each process trains folds of its own")
    group("--timeout", type=float, default=30, help="minutes to wait for another process")
    group("--weights", default="none", choices=("none", "safetensors", "pt"), help="keep each fold's weights")
    group("--tensorboard", action="store_true")
    first = parser.parse_args(argv)
    synthetic = first.table is None
    recipe = RECIPES.get(first.recipe, {})
    parser.set_defaults(**(recipe | SYNTHETIC | {"dataset": "dfew"} if synthetic else recipe))
    args = parser.parse_args(argv)
    check(parser, args)
    if synthetic and args.recipe is not None and args.au_labels is None:
        args.au_labels = str(args.out / "synthetic-au-labels.txt")  # made with the dataset
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """What can be told before anything is read or written."""
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        parser.error("--tensorboard needs TensorBoard: pip install tensorboard")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device must be cpu: there is no GPU here that PyTorch can use")
    if args.table is not None:
        if args.frames is None:
            parser.error("--frames is needed: the folder with the frames of the clips in --table")
        if not Path(args.table).exists():
            parser.error(f"--table must be a list or a folder of lists, there is none at {args.table}")
        if not Path(args.frames).is_dir():
            parser.error(f"--frames must be a folder, there is none at {args.frames}")
        if args.recipe is not None and args.au_labels is None:
            parser.error("--recipe needs --au-labels: its loss learns the units that OpenFace found in the clips")
    if args.au_labels is not None and not Path(args.au_labels).is_file():
        parser.error(f"--au-labels must be a file, there is none at {args.au_labels}")
    if args.encoder != "retnet" and ":" not in args.encoder:
        parser.error(f"--encoder must be retnet or MODULE:NAME, got {args.encoder!r}")
    for name in ("epochs", "batch_size", "accumulate", "size", "num_frames", "heads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    for name in ("padding", "workers", "seed", "lr", "weight_decay", "depth"):
        if not getattr(args, name) >= 0:
            parser.error(f"--{name.replace('_', '-')} must not be negative, got {getattr(args, name)}")
    for name, closed in (("ema", False), ("au_ratio", True)):
        value = getattr(args, name)
        if not (0 <= value < 1 or (closed and value == 1)):
            parser.error(f"--{name.replace('_', '-')} must lie in [0, 1{']' if closed else ')'}, got {value}")
    for name in ("timeout", "prior_scale"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {getattr(args, name)}")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train the folds and pool their predictions."""
    args = arguments(argv)
    # A process with folds of its own may be done long before the others.
    with mt.join_processes(args.device, timeout_minutes=7 * 24 * 60 if args.folds_per_rank else args.timeout) as here:
        if here.world > 1 and here.device.type == "cpu" and not args.folds_per_rank and args.encoder == "retnet":
            raise ValueError(NEEDS_GPUS)
        if here.main and args.table is None:
            make_synthetic(args)
        here.wait()
        # All that the settings lead to is made once before the run is begun: a typo must not lock its folder.
        data = Clips(args)
        folds = chosen_folds(args, data)
        build(args, len(data.clips.classes))
        loss_of(args, data, next(iter(folds.values())).train)
        run = mt.RunFolder(args.out)
        if here.main:
            elsewhere = ("out", "resume", "device", "workers", "folds_per_rank", "timeout", "tensorboard", "recipe")
            settings = {k: v for k, v in vars(args).items() if k not in elsewhere}
            # Other lists under the same name would be pooled with the folds that are done.
            settings["table_crc32"] = None if args.table is None else checksum(Path(args.table))
            begin(run, settings, resume=args.resume)
        here.wait()
        own = mt.Processes(0, 1, here.device) if args.folds_per_rank else here
        places = {name: f"fold {number} of {len(folds)}" for number, name in enumerate(folds, start=1)}
        book = mt.ScoreBook(data.clips.classes, selection=selection(args))
        published = mt.ScoreBook(data.clips.classes, selection=PUBLISHED_PROTOCOL)
        for name in list(folds)[here.rank :: here.world] if args.folds_per_rank else folds:
            folder = run.fold(name)
            if not folder.done:
                found = train_fold(args, name, folds[name], data, folder, own, place=places[name])
                if own.main:
                    folder.finish(found)
                own.wait()
            if own.main:  # the others may not see the file yet, where the folder is on a network's disk
                book.merge(folder.book())
                if args.published_protocol:
                    published.merge(mt.ScoreBook.read_json(folder.path / "published-protocol.json"))
        book, published = book.gather(), published.gather()
        if not here.main:
            return {}
        # DFEW's results are usually means over its folds: both are given.
        means = mean_of_folds(book)
        notes: dict[str, Any] = {"mean_of_folds": means, "folds": len(folds), "seed": args.seed}
        if args.published_protocol:
            notes["published_protocol"] = {
                "selection": published.selection, "uf1": published.uf1(), "uar": published.uar(),
                "war": published.war(),
                "mean_of_folds": mean_of_folds(published),
            }  # fmt: skip
        draw_confusion(book, args.out)
        scores = run.finish(book, notes=notes)
        print(book)
        print(f"mean of {len(folds)} folds: UAR {means['uar']:.4f}, WAR {means['war']:.4f}")
        if args.published_protocol:
            print(f"\n{side_by_side(book, published)}\n")
        print(f"written to {args.out}")
        return scores


def begin(run: mt.RunFolder, settings: dict[str, Any], *, resume: bool) -> None:
    """Begin the run, or continue it; that another process is at work on it is no fault of the code."""
    try:
        run.begin(settings, resume=resume)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def make_synthetic(args: argparse.Namespace) -> None:
    """The synthetic dataset and, for a recipe, AU labels in the place of OpenFace's: the likely units of each label."""
    root = args.out / "synthetic"
    if not root.exists():
        mt.synthetic_dataset(root, layout="dfew", subjects=10, amplitude=6, size=args.size, seed=args.seed)
    if args.au_labels is not None and not Path(args.au_labels).exists():
        clips = mt.apply_protocol(mt.read_annotations(root / "EmoLabel_DataSplit", "dfew"), SYNTHETIC_PROTOCOL)
        likely = (mt.au_prior(clips.classes) >= 0.5).float()
        labels = {clip.clip: likely[target] for clip, target in zip(clips.clips, clips.targets, strict=True)}
        mt.write_au_labels(args.au_labels, labels)


def chosen_folds(args: argparse.Namespace, data: Clips) -> dict[str, mt.Fold]:
    """The folds that --folds names, each checked for clips on both sides and for classes without training clips."""
    folds = mt.fixed_folds(data.clips)
    if unknown := set(args.folds or ()) - folds.keys():
        raise ValueError(f"--folds must be among {', '.join(folds)}, got {', '.join(sorted(unknown))}")
    folds = {name: fold for name, fold in folds.items() if args.folds is None or name in args.folds}
    for fold in folds.values():
        mt.check_fold(fold, targets=data.clips.targets, classes=data.clips.classes)
    return folds


def mean_of_folds(book: mt.ScoreBook) -> dict[str, float]:
    """UAR and WAR as the mean over the folds."""
    each = book.per("fold").values()
    return {score: sum(getattr(s, score) for s in each) / len(each) for score in ("uar", "war")}


def side_by_side(book: mt.ScoreBook, published: mt.ScoreBook) -> str:
    """Both protocols on the same training."""
    rows = [(f"this run ({book.selection})", book), (published.selection, published)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'protocol':<{width}}     UAR     WAR    mean of folds: UAR     WAR"]
    for name, scored in rows:
        means = mean_of_folds(scored)
        lines.append(
            f"{name:<{width}}  {scored.uar():.4f}  {scored.war():.4f}{means['uar']:>23.4f}  {means['war']:.4f}"
        )
    return "\n".join(lines)


def loss_of(args: argparse.Namespace, data: Clips, train: list[int]) -> mt.AUPriorLoss:
    """The loss, with whatever it estimates taken from the training clips alone."""
    weight = None
    if data.action_units is not None and args.pos_weight == "estimated":
        weight = mt.estimate_pos_weight(data.action_units[train])
    elif data.action_units is not None and args.pos_weight != "none":
        table = "FERV39K" if args.dataset == "ferv39k" else "DFEW"
        weight = mt.au_pos_weight(table, args.pos_weight, classes=data.clips.classes)
    return mt.AUPriorLoss(
        mt.au_prior(data.clips.classes), au_ratio=args.au_ratio, prior_scale=args.prior_scale, pos_weight=weight,
        reduction="none",
    )  # fmt: skip


def draw_confusion(book: mt.ScoreBook, out: Path) -> None:
    """The confusion matrix of all folds, where matplotlib is installed."""
    try:
        mt.plot_confusion(book, path=out / "confusion.png")
    except ImportError as error:
        print(error)


def checksum(table: Path) -> int:
    """Of a list of clips, or of all lists in a folder."""
    files = sorted(path for path in table.rglob("*") if path.is_file()) if table.is_dir() else [table]
    return zlib.crc32(b"".join(path.read_bytes() for path in files))


class Clips:
    """The clips of the lists, to train on and to score on, and their action units where there is a cache of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        table, frames, protocol = args.table, args.frames, args.dataset
        if table is None:
            root = args.out / "synthetic"
            table, frames, protocol = root / "EmoLabel_DataSplit", root / "Clip", SYNTHETIC_PROTOCOL
        self.clips = mt.apply_protocol(mt.read_annotations(table, args.dataset), protocol)
        common: dict[str, Any] = {"num_frames": args.num_frames, "size": args.size, "seed": args.seed}
        augment = mt.ClipAugment(padding=args.padding)
        self.training = mt.ClipDataset(self.clips, frames, training=True, augment=augment, **common)
        self.plain = mt.ClipDataset(self.clips, frames, training=False, **common)
        self.action_units: Tensor | None = None
        if args.au_labels is not None:
            labels = mt.read_au_labels(args.au_labels)
            if missing := sorted({clip.clip for clip in self.clips.clips} - labels.keys()):
                raise ValueError(f"--au-labels has no line for {len(missing)} clips: {', '.join(missing[:5])}, ...")
            self.action_units = torch.stack([labels[clip.clip] for clip in self.clips.clips]).float()


def selection(args: argparse.Namespace) -> str:
    """How the epoch is chosen, in the words that go into every output."""
    if args.select_on_test:
        return "selected on test"
    return "inner split of the training clips" if args.select == "inner" else f"last of {args.epochs} epochs"


def build(args: argparse.Namespace, num_classes: int) -> nn.Module:
    """The network, with an AU head where there are AU labels."""
    encoder: nn.Module
    if args.encoder == "retnet":
        encoder, dim = mt.ManhattanRetNet(dims=args.dims), args.dims[-1]
    else:
        module, _, name = args.encoder.partition(":")
        if not name:
            raise ValueError(f"--encoder must be retnet or MODULE:NAME, got {args.encoder!r}")
        encoder = getattr(importlib.import_module(module), name)()
        # In evaluation: a trained encoder's batch norms must not learn from a black picture.
        with torch.no_grad():
            dim = encoder.eval()(torch.zeros(2, 3, args.size, args.size)).shape[1]
        encoder.train()
    net: nn.Module = FrameEncoderDFER(encoder, dim, args.depth, args.heads, num_classes, motion=args.input == "motion")
    return mt.attach_au_head(net, "fc") if args.au_labels else net


def train_fold(
    args: argparse.Namespace,
    name: str,
    fold: mt.Fold,
    data: Clips,
    folder: mt.FoldFolder,
    here: mt.Processes,
    place: str = "",
) -> mt.ScoreBook:
    """Train one fold, from its last checkpoint if there is one, and predict its test clips.

    ``place`` stands on the progress bar: which fold of how many.
    """
    seed = zlib.crc32(f"{args.seed}/{name}".encode())
    train, test = fold
    watched: list[int] = []
    if args.select_on_test:
        watched = test
    elif args.select == "inner":
        # The lists name no subjects: a clip is all that can be kept apart.
        train, watched = mt.inner_split(train, [c.clip for c in data.clips.clips], data.clips.targets, seed=seed)

    torch.manual_seed(seed)
    plain = build(args, len(data.clips.classes)).to(here.device)
    model: nn.Module = plain
    if here.world > 1:
        if here.device.type == "cuda":  # statistics over the clips of all processes, as in one
            plain = nn.SyncBatchNorm.convert_sync_batchnorm(plain)  # type: ignore[no-untyped-call]
        elif any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in plain.modules()):
            raise ValueError(NEEDS_GPUS)
        model = DistributedDataParallel(plain)
    average = averaged(plain, args.ema) if args.ema else None
    scored = average.module if average is not None else plain
    optimiser = torch.optim.AdamW(plain.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.epochs)
    if args.schedule == "exponential":
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.97)
    scaler = torch.amp.GradScaler(here.device.type, enabled=args.precision == "float16")
    criterion = loss_of(args, data, train).to(here.device)
    parts: dict[str, Any] = {"model": plain, "optimiser": optimiser, "schedule": schedule, "scaler": scaler}
    parts |= {"average": average} if average is not None else {}
    batches = mt.ClipBatches(len(train), args.batch_size, rank=here.rank, world=here.world, seed=seed)
    # A generator of its own: workers that stay take a random number in the first epoch after a start and none later,
    # and dropout would draw others after a resumption, or with another number of workers.
    loader = DataLoader(
        Subset(data.training, train), batch_sampler=batches, num_workers=args.workers, generator=torch.Generator(),
        persistent_workers=args.workers > 0, pin_memory=here.device.type == "cuda",
    )  # fmt: skip

    first, best, best_weights = 0, -math.inf, None
    published: list[Any] | None = None
    if (state := folder.load()) is not None:
        for key, part in parts.items():
            part.load_state_dict(state[key])
        first, best, best_weights = state["epoch"] + 1, state["best"], state["best_weights"]
        published = state["published"]
    if here.main:
        folder.rewind(first)
    for epoch in range(first, args.epochs):
        # A seed for each epoch: a run that was killed goes on as if it had not been.
        torch.manual_seed(seed + 7919 * epoch + here.rank)
        batches.set_epoch(epoch)
        data.training.set_epoch(epoch)
        entry = {"fold": name, "epoch": epoch, "lr": optimiser.param_groups[0]["lr"], "selection": selection(args)}
        model.train()
        total = torch.zeros((), dtype=torch.float64, device=here.device)
        bar = tqdm(loader, desc=f"{place or name}, epoch {epoch + 1}/{args.epochs}", disable=not here.main, leave=False)
        for number, batch in enumerate(bar):
            start = number - number % args.accumulate
            clips_of_step = sum(batches.sizes[start : start + args.accumulate])
            target = batch["target"].to(here.device, non_blocking=True)
            with torch.autocast(here.device.type, getattr(torch, args.precision), enabled=args.precision != "float32"):
                output = model(batch["frames"].to(here.device, non_blocking=True))
            if data.action_units is None:
                losses = criterion(output, target)
            else:
                losses = criterion(output[0], target, output[1], data.action_units[batch["index"]].to(here.device))
            if not bool(torch.isfinite(losses).all()):
                names = [data.clips.clips[int(i)].name for i in batch["index"]]
                raise FloatingPointError(
                    f"the loss is {losses.tolist()} for clips {names}: lower --lr, or --precision float32; the last "
                    "checkpoint is whole"
                )
            # DistributedDataParallel averages over processes what is to be averaged over the clips of the step.
            scaler.scale(losses.sum() * here.world / clips_of_step).backward()
            total += losses.detach().sum()
            if (number + 1) % args.accumulate == 0 or number + 1 == len(batches):
                scaler.step(optimiser)
                scaler.update()
                optimiser.zero_grad()
                if average is not None:
                    average.update_parameters(plain)
        check_weights(plain, epoch)
        schedule.step()
        entry["loss"] = here.sum(total).item() / len(train)
        if watched:
            entry["uar"] = predict(args, scored, data, watched, name, here).uar()
            if entry["uar"] >= best:  # of several that are as good, the one that was trained longest
                best = entry["uar"]
                best_weights = {key: value.detach().clone() for key, value in scored.state_dict().items()}
        if args.published_protocol:
            seen = predict(args, scored, data, test, name, here)
            if published is None or seen.war() > as_book(data, published).war():
                published = [list(row) for row in seen]
        if here.main:
            folder.log(**entry)
            if args.tensorboard:
                log_to_tensorboard(folder, entry)
            state = {key: part.state_dict() for key, part in parts.items()}
            state |= {"epoch": epoch, "best": best, "best_weights": best_weights, "published": published}
            folder.save(state)
    if best_weights is not None:
        scored.load_state_dict(best_weights)
    if args.weights != "none" and here.main:
        stem = "weights-selected-on-test" if args.select_on_test else "weights"
        mt.save_weights(folder.path / f"{stem}.{args.weights}", scored)
    if published is not None and here.main:
        as_book(data, published).write_json(folder.path / "published-protocol.json")
    return predict(args, scored, data, test, name, here)


def as_book(data: Clips, rows: list[Any]) -> mt.ScoreBook:
    """Predictions as a checkpoint holds them."""
    book = mt.ScoreBook(data.clips.classes, selection=PUBLISHED_PROTOCOL)
    clips, subjects, datasets, folds, targets, predicted = zip(*rows, strict=True)
    book.add(predicted, targets, clips=clips, subjects=subjects, datasets=datasets, fold=folds[0])
    return book


def check_weights(model: nn.Module, epoch: int) -> None:
    """Stop before the last good checkpoint is replaced: the loss may be finite when its gradient is not."""
    if broken := [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]:
        raise FloatingPointError(
            f"{len(broken)} weights are not finite after epoch {epoch}, the first is {broken[0]}: lower --lr, or "
            "--precision float32; the last checkpoint is whole"
        )


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights and of its batch norms' statistics."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


@torch.no_grad()
def predict(
    args: argparse.Namespace, model: nn.Module, data: Clips, indices: list[int], fold: str, here: mt.Processes
) -> mt.ScoreBook:
    """Predict clips, the work shared out among the processes."""
    model.eval()
    names = data.clips.names
    book = mt.ScoreBook(data.clips.classes, selection=selection(args))
    batches = mt.ClipBatches(len(indices), args.batch_size, rank=here.rank, world=here.world, shuffle=False)
    for batch in DataLoader(Subset(data.plain, indices), batch_sampler=batches, num_workers=args.workers):
        with torch.autocast(here.device.type, getattr(torch, args.precision), enabled=args.precision != "float32"):
            output = model(batch["frames"].to(here.device, non_blocking=True))
        logits = output if data.action_units is None else output[0]
        found = [data.clips.clips[int(i)] for i in batch["index"]]
        book.add(
            logits.float(), batch["target"], fold=fold, clips=[names[int(i)] for i in batch["index"]],
            subjects=[clip.subject for clip in found], datasets=[clip.dataset for clip in found],
        )  # fmt: skip
    return book.gather() if here.world > 1 else book


def log_to_tensorboard(folder: mt.FoldFolder, entry: dict[str, Any]) -> None:
    """The same numbers for TensorBoard (pip install tensorboard)."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder.path / "tensorboard") as writer:
        writer.add_text("selection", entry["selection"], entry["epoch"])
        for key in ("loss", "lr", "uar"):
            if key in entry:
                writer.add_scalar(key, entry[key], entry["epoch"])


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: error: {' '.join(str(error).split())}")
