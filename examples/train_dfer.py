"""Train a dynamic facial expression model: a frame encoder, retention over the frames, the AU prior loss.

    python examples/train_dfer.py --out runs/first                     # synthetic subjects; minutes on two cores
    python examples/train_dfer.py --out runs/dfew --table EmoLabel_DataSplit --frames Clip/clip_224x224_16f
    torchrun --nproc-per-node=8 examples/train_dfer.py --out ...       # each fold over all GPUs
    ... --encoder torchvision.models:resnet18 --resume                 # any encoder of images; go on after a kill

The number of epochs is fixed (--select last), or the epoch is chosen on clips set aside from the training clips
(--select inner). Test clips decide nothing, unless --select-on-test says so, and then every output says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

import mertools as mt

# For synthetic subjects: small pictures, a narrow network, few epochs.
SYNTHETIC = {
    "size": 48, "num_frames": 8, "dims": [16, 24, 32, 48], "depth": 1, "heads": 4, "epochs": 10, "lr": 2e-3,
    "batch_size": 12, "padding": 3, "input": "motion",
}  # fmt: skip
NEEDS_GPUS = (
    "--folds-per-rank must be given with several processes on CPUs: PyTorch has batch norm over the clips of all "
    "processes for GPUs only"
)
MADE_UP = mt.Protocol(
    name="synthetic-3", classes=("happy", "angry", "surprise"),
    labels={"dfew": {name: name for name in ("happy", "angry", "surprise")}},
)  # fmt: skip


class FrameEncoderDFER(nn.Module):
    """An encoder on each frame, retention along the frames, a mean over them, a classifier.

    Frames ``(b, t, 3, h, w)`` to logits ``(b, e)``. With ``motion`` the encoder sees each frame minus the clip's mean
    frame: how the face moves, and not whose it is. With few people to learn from, that decides.
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_argument_group("data").add_argument
    group("--table", help="list of clips, or folder of the lists; without one, subjects are synthetic")
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
    synthetic = parser.parse_args(argv).table is None
    if synthetic:
        parser.set_defaults(**SYNTHETIC)
    args = parser.parse_args(argv)
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        parser.error("--tensorboard needs TensorBoard: pip install tensorboard")
    if not synthetic and args.frames is None:
        parser.error("--frames is needed: the folder with the frames of the clips in --table")
    for name in ("epochs", "batch_size", "accumulate"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if not 0 <= args.ema < 1:
        parser.error(f"--ema must lie in [0, 1), got {args.ema}")
    return args


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train the folds and pool their predictions."""
    args = arguments(argv)
    # A process with folds of its own may be done long before the others.
    with mt.join_processes(args.device, timeout_minutes=7 * 24 * 60 if args.folds_per_rank else args.timeout) as here:
        if here.world > 1 and here.device.type == "cpu" and not args.folds_per_rank and args.encoder == "retnet":
            raise ValueError(NEEDS_GPUS)
        run = mt.RunFolder(args.out)
        if here.main:
            elsewhere = ("out", "resume", "device", "workers", "folds_per_rank", "timeout", "tensorboard")
            settings = {k: v for k, v in vars(args).items() if k not in elsewhere}
            # Other lists under the same name would be pooled with the folds that are done.
            settings["table_crc32"] = None if args.table is None else checksum(Path(args.table))
            run.begin(settings, resume=args.resume)
            if args.table is None and not (args.out / "people").exists():
                mt.synthetic_dataset(
                    args.out / "people", layout="dfew", subjects=10, amplitude=6, size=args.size, seed=args.seed
                )
        here.wait()
        data = Clips(args)
        folds = mt.fixed_folds(data.clips)
        if unknown := set(args.folds or ()) - folds.keys():
            raise ValueError(f"--folds must be among {', '.join(folds)}, got {', '.join(sorted(unknown))}")
        folds = {name: fold for name, fold in folds.items() if args.folds is None or name in args.folds}
        for fold in folds.values():
            mt.check_fold(fold, targets=data.clips.targets, classes=data.clips.classes)
        own = mt.Processes(0, 1, here.device) if args.folds_per_rank else here
        book = mt.ScoreBook(data.clips.classes, selection=selection(args))
        for name in list(folds)[here.rank :: here.world] if args.folds_per_rank else folds:
            folder = run.fold(name)
            if not folder.done:
                found = train_fold(args, name, folds[name], data, folder, own)
                if own.main:
                    folder.finish(found)
                own.wait()
            if own.main:  # the others may not see the file yet, where the folder is on a network's disk
                book.merge(folder.book())
        book = book.gather()
        if not here.main:
            return {}
        # DFEW's results are usually means over its folds: both are given.
        each = book.per("fold")
        means = {score: sum(getattr(s, score) for s in each.values()) / len(each) for score in ("uar", "war")}
        draw_confusion(book, args.out)
        scores = run.finish(book, notes={"mean_of_folds": means, "folds": len(folds), "seed": args.seed})
        print(book)
        print(f"mean of {len(folds)} folds: UAR {means['uar']:.4f}, WAR {means['war']:.4f}\nwritten to {args.out}")
        return scores


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
            table, frames, protocol = args.out / "people/EmoLabel_DataSplit", args.out / "people/Clip", MADE_UP
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
    args: argparse.Namespace, name: str, fold: mt.Fold, data: Clips, folder: mt.FoldFolder, here: mt.Processes
) -> mt.ScoreBook:
    """Train one fold, from its last checkpoint if there is one, and predict its test clips."""
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
    criterion = mt.AUPriorLoss(
        mt.au_prior(data.clips.classes), au_ratio=args.au_ratio, reduction="none",
        pos_weight=None if data.action_units is None else mt.estimate_pos_weight(data.action_units[train]),
    ).to(here.device)  # fmt: skip
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
    if (state := folder.load()) is not None:
        for key, part in parts.items():
            part.load_state_dict(state[key])
        first, best, best_weights = state["epoch"] + 1, state["best"], state["best_weights"]
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
        bar = tqdm(loader, desc=f"fold {name}, epoch {epoch + 1}/{args.epochs}", disable=not here.main, leave=False)
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
        if here.main:
            folder.log(**entry)
            if args.tensorboard:
                log_to_tensorboard(folder, entry)
            state = {key: part.state_dict() for key, part in parts.items()}
            folder.save(state | {"epoch": epoch, "best": best, "best_weights": best_weights})
    if best_weights is not None:
        scored.load_state_dict(best_weights)
    if args.weights != "none" and here.main:
        stem = "weights-selected-on-test" if args.select_on_test else "weights"
        mt.save_weights(folder.path / f"{stem}.{args.weights}", scored)
    return predict(args, scored, data, test, name, here)


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
    main()
