"""Train a micro-expression model from an annotation table, leave one subject out, and score it honestly.

    python examples/train_mer.py --out runs/first                   # a synthetic dataset; minutes on two cores
    python examples/train_mer.py --out runs/casme2 --table CASME2.xlsx --frames Cropped --protocol casme2-5
    ... --recipe gamdss-casme2-5 --published-protocol               # a published experiment, and what its protocol adds
    ... --table CASME2.xlsx SAMM.xlsx --dataset casme2 samm --frames Cropped SAMM --protocol megc2019 --folds lodo
    torchrun --nproc-per-node=2 examples/train_mer.py --out ... --folds-per-rank    # a fold each
    torchrun --nproc-per-node=2 examples/train_mer.py --out ...     # one fold over both; on GPUs
    ... --resume                                                    # go on after a kill

The number of epochs is fixed (--select last), or the epoch is chosen on an inner split of the training subjects
(--select inner). The held-out subject decides nothing, unless --select-on-test says so, and then every output says so.
--published-protocol scores the same training a second time, as published training loops do, and prints both.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

import mertools as mt

# For the synthetic dataset: small pictures, a narrow network, few epochs. The defaults below are the published ones.
SYNTHETIC = {
    "dataset": ["casme2"], "protocol": "megc2019", "size": 64, "dims": [16, 24, 32, 48], "hidden": 96, "epochs": 30,
    "lr": 2e-3, "weight_decay": 0.05, "batch_size": 16, "padding": 3, "ema": 0.9, "schedule": "cosine",
}  # fmt: skip
# What the code of the papers sets: cross entropy alone, no averaged weights, every subject left out in turn. GAMDSS
# trains two branches on three key frames, TSFmicro one on onset and apex; each re-selects them in training by a preset.
PUBLISHED = {
    "folds": "loso", "reselect": "training", "size": 224, "padding": 15, "au": "none", "epochs": 200, "lr": 8e-4,
    "weight_decay": 0.6, "schedule": "exponential", "ema": 0.0, "dims": [64, 128, 256, 512], "hidden": 1024,
    "drop_path": 0.1, "fusion": "parallel", "class_weights": False,
}  # fmt: skip
PAPERS = {
    "gamdss": {"model": "two-branch", "selector": "full"},
    "tsfmicro": {"model": "tsfmicro", "selector": "short"},
}
EXPERIMENTS = {
    name: {"dataset": [dataset], "protocol": protocol}
    for name, dataset, protocol in (
        ("casme2-5", "casme2", "casme2-5"), ("casme2-3", "casme2", "megc2019"),
        ("samm-5", "samm", "samm-5"), ("samm-3", "samm", "megc2019"),
        ("casme3-7", "casme3-a", "casme3-7"), ("casme3-4", "casme3-a", "casme3-4"),
    )
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    f"{paper}-{name}": PUBLISHED | settings | experiment
    for paper, settings in PAPERS.items()
    for name, experiment in EXPERIMENTS.items()
}
# Without a table, a recipe keeps its method and takes the size of the synthetic dataset.
SIZES = ("dataset", "protocol", "size", "dims", "hidden", "epochs", "batch_size", "padding", "lr", "weight_decay")
PUBLISHED_PROTOCOL = "best epoch on the held-out subject: not a result"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        """End with the message."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What can be set; `python examples/train_mer.py --help` shows it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), metavar="NAME",
        help="a published experiment: " + ", ".join(sorted(RECIPES)) + "; options that are given too go before it",
    )  # fmt: skip
    group = parser.add_argument_group("data").add_argument
    group("--table", nargs="+", help="annotation table, or several of a composite; without one, a synthetic dataset")
    group("--dataset", nargs="+", default=["casme2"], help="whose table each is, see mertools.read_annotations")
    group("--frames", nargs="+", help="folder with the frames of all clips, one for each table")
    group("--protocol", default="casme2-5", help="which clips and classes count, see mertools.PROTOCOLS")
    group("--repair", nargs="*", default=[], help="what to mend in the table, e.g. apex-midpoint drop")
    group("--folds", default="loso", choices=("loso", "lodo", "5"), help="leave out subjects, datasets, or five groups")
    group(
        "--reselect", default="training", choices=("training", "always", "never"), help="key frames, near the table's"
    )
    group("--selector", default="full", choices=("full", "short", "late-apex", "wide", "refine"))
    group("--size", type=int, default=224)
    group("--padding", type=int, default=15, help="of the augmentation's crop")
    group = parser.add_argument_group("model and loss").add_argument
    group("--model", default="two-branch", choices=("two-branch", "tsfmicro"))
    group("--fusion", default="parallel", choices=("parallel", "early", "s_to_t", "t_to_s"))
    group("--dims", type=int, nargs=4, default=[64, 128, 256, 512])
    group("--hidden", type=int, default=1024)
    group("--drop-path", type=float, default=0.1)
    group(
        "--au",
        default="prior",
        choices=("none", "prior", "labels"),
        help="labels: an AU head on the table's FACS codes",
    )
    group("--au-ratio", type=float, default=0.25)
    group("--class-weights", action="store_true", help="rare classes count more")
    group = parser.add_argument_group("optimisation").add_argument
    group("--epochs", type=int, default=200)
    group("--batch-size", type=int, default=32, help="over all processes together")
    group("--accumulate", type=int, default=1, help="batches to a step")
    group("--lr", type=float, default=8e-4)
    group("--weight-decay", type=float, default=0.6)
    group("--schedule", default="exponential", choices=("cosine", "exponential", "none"))
    group("--ema", type=float, default=0.0, help="decay of the averaged weights that are scored; 0: none")
    group("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    group("--select", default="last", choices=("last", "inner"), help="which epoch is scored")
    group("--select-on-test", action="store_true", help="choose the epoch on the held-out clips: not a result")
    group("--published-protocol", action="store_true", help=f"score a second time, {PUBLISHED_PROTOCOL}")
    group("--seed", type=int, default=0)
    group = parser.add_argument_group("run").add_argument
    group("--out", type=Path, required=True)
    group("--resume", action="store_true")
    group("--device", default="auto", choices=("auto", "cpu", "cuda"))
    group("--workers", type=int, default=0)
    group("--folds-per-rank", action="store_true", help="each process trains folds of its own")
    group("--timeout", type=float, default=30, help="minutes to wait for another process")
    group("--checkpoint-every", type=int, default=1, help="epochs")
    group("--weights", default="none", choices=("none", "safetensors", "pt"), help="keep each fold's weights")
    group("--tensorboard", action="store_true")
    first = parser.parse_args(argv)
    synthetic = first.table is None
    recipe = RECIPES.get(first.recipe, {})
    if synthetic:
        recipe = SYNTHETIC | {name: value for name, value in recipe.items() if name not in SIZES}
    parser.set_defaults(**recipe)
    args = parser.parse_args(argv)
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """What can be told before anything is read or written."""
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        parser.error("--tensorboard needs TensorBoard: pip install tensorboard")
    if args.protocol.casefold() not in mt.PROTOCOLS:
        parser.error(f"--protocol must be one of {', '.join(mt.PROTOCOLS)}, got {args.protocol!r}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device must be cpu: there is no GPU here that PyTorch can use")
    if args.table is not None:
        if args.frames is None:
            parser.error("--frames is needed: the folder with the frames of the clips in --table")
        if not len(args.table) == len(args.dataset) == len(args.frames):
            parser.error(
                f"--table, --dataset and --frames must be equally many, got {len(args.table)}, {len(args.dataset)} and "
                f"{len(args.frames)}"
            )
        for table in args.table:
            if not Path(table).is_file():
                parser.error(f"--table must be a file, there is none at {table}")
        for frames in args.frames:
            if not Path(frames).is_dir():
                parser.error(f"--frames must be a folder, there is none at {frames}")
    for name in ("epochs", "batch_size", "accumulate", "checkpoint_every", "size", "hidden"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    for name in ("padding", "workers", "seed", "lr", "weight_decay"):
        if not getattr(args, name) >= 0:
            parser.error(f"--{name.replace('_', '-')} must not be negative, got {getattr(args, name)}")
    for name, closed in (("ema", False), ("drop_path", False), ("au_ratio", True)):
        value = getattr(args, name)
        if not (0 <= value < 1 or (closed and value == 1)):
            parser.error(f"--{name.replace('_', '-')} must lie in [0, 1{']' if closed else ')'}, got {value}")
    if not args.timeout > 0:
        parser.error(f"--timeout must be positive, got {args.timeout}")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train all folds and pool their predictions."""
    args = arguments(argv)
    # A process with folds of its own may be done long before the others.
    with mt.join_processes(args.device, timeout_minutes=7 * 24 * 60 if args.folds_per_rank else args.timeout) as here:
        if here.world > 1 and here.device.type == "cpu" and not args.folds_per_rank:
            raise ValueError(
                "--folds-per-rank must be given with several processes on CPUs: PyTorch has batch norm over the clips "
                "of all processes for GPUs only"
            )
        if here.main and args.table is None and not (args.out / "synthetic").exists():
            mt.synthetic_dataset(args.out / "synthetic", size=args.size, seed=args.seed)
        here.wait()
        # All that the settings lead to is made once before the run is begun: a typo must not lock its folder.
        data = Clips(args)
        folds = named_folds(args, data.clips)
        build(args, len(data.clips.classes))
        loss_of(args, data, next(iter(folds.values())).train)
        run = mt.RunFolder(args.out)
        if here.main:
            elsewhere = ("out", "resume", "device", "workers", "folds_per_rank", "timeout", "tensorboard", "recipe")
            settings = {name: value for name, value in vars(args).items() if name not in elsewhere}
            # Another table under the same name would be pooled with the folds that are done.
            settings["table_crc32"] = [zlib.crc32(Path(table).read_bytes()) for table in args.table or []]
            begin(run, settings, resume=args.resume)
        here.wait()
        own = mt.Processes(0, 1, here.device) if args.folds_per_rank else here
        places = {name: f"fold {number} of {len(folds)}, {name}" for number, name in enumerate(folds, start=1)}
        names = list(folds)[here.rank :: here.world] if args.folds_per_rank else list(folds)
        book = mt.ScoreBook(data.clips.classes, selection=selection(args))
        published = mt.ScoreBook(data.clips.classes, selection=PUBLISHED_PROTOCOL)
        for name in names:
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
        notes = {"protocol": data.clips.name, "folds": len(folds), "seed": args.seed}
        if args.published_protocol:
            notes["published_protocol"] = published_scores(published)
        draw_confusion(book, args.out)
        scores = run.finish(book, notes=notes)
        print(book)
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


def published_scores(book: mt.ScoreBook) -> dict[str, Any]:
    """The scores of published training loops: the epoch chosen on who is tested, and a mean precision called UAR."""
    precision = mt.class_scores(book.confusion).precision
    return {
        "selection": book.selection, "uf1": book.uf1(), "uar": book.uar(), "war": book.war(),
        "uar_as_published": float(precision.nanmean()),
    }  # fmt: skip


def side_by_side(book: mt.ScoreBook, published: mt.ScoreBook) -> str:
    """Both protocols on the same training, and what of the difference is the epoch and what the formula."""
    mine, theirs = (book.uf1(), book.uar(), book.war()), published_scores(published)
    rows = [
        (f"this run ({book.selection})", *mine),
        (f"{published.selection}", theirs["uf1"], theirs["uar"], theirs["war"]),
        ("and its mean precision in the place of UAR", theirs["uf1"], theirs["uar_as_published"], theirs["war"]),
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f"{'protocol':<{width}}     UF1     UAR     WAR"]
    lines += [f"{name:<{width}}  {uf1:.4f}  {uar:.4f}  {war:.4f}" for name, uf1, uar, war in rows]
    epoch, formula = theirs["uar"] - mine[1], theirs["uar_as_published"] - theirs["uar"]
    lines.append(f"of the difference in UAR, {epoch:+.4f} is the choice of the epoch and {formula:+.4f} the formula")
    return "\n".join(lines)


def draw_confusion(book: mt.ScoreBook, out: Path) -> None:
    """The confusion matrix of all folds, where matplotlib is installed."""
    try:
        mt.plot_confusion(book, path=out / "confusion.png")
    except ImportError as error:
        print(error)


class Clips:
    """The clips of the table, to train on and to score on, and the action units that the table names."""

    def __init__(self, args: argparse.Namespace) -> None:
        tables, frames = args.table, args.frames
        if tables is None:
            tables, frames = [args.out / "synthetic" / "annotations.csv"], [args.out / "synthetic" / "frames"]
        rows: list[mt.ClipAnnotation] = []
        folders: dict[str, Path] = {}
        for table, dataset, folder in zip(tables, args.dataset, frames, strict=True):
            found = mt.read_annotations(table, dataset, repair=args.repair)
            if folders.keys() & {clip.dataset for clip in found}:
                raise ValueError(f"--dataset must name each dataset once, got {' '.join(args.dataset)}")
            rows += found
            folders |= {clip.dataset: Path(folder) for clip in found}
        self.clips = mt.apply_protocol(rows, args.protocol)
        refine = args.selector == "refine"
        selector = mt.FrameSelector(refine=True) if refine else mt.FrameSelector.preset(args.selector)
        augment = mt.ClipAugment(padding=args.padding)
        common: dict[str, Any] = {"size": args.size, "selector": selector, "reselect": args.reselect, "seed": args.seed}
        self.training = mt.ClipDataset(self.clips, folders, training=True, augment=augment, **common)
        self.plain = mt.ClipDataset(self.clips, folders, training=False, **common)
        self.targets = torch.tensor(self.clips.targets)
        self.action_units = mt.facs_labels(["+".join(clip.action_units) for clip in self.clips.clips])
        for name in sorted({clip.dataset for clip in self.clips.clips}):
            own = [i for i, clip in enumerate(self.clips.clips) if clip.dataset == name]
            if args.au != "none" and not self.action_units[own].any():
                raise ValueError(f"--au must be none: the table of {name} names no action units")


def named_folds(args: argparse.Namespace, clips: mt.ProtocolClips) -> dict[str, mt.Fold]:
    """Folds by name, each checked for subjects on both sides and for classes without training clips."""
    if args.folds == "5":
        found = mt.group_folds(clips.subjects, clips.targets, folds=5, seed=args.seed)
        folds = {str(number): fold for number, fold in enumerate(found, start=1)}
    else:
        groups = clips.subjects if args.folds == "loso" else [clip.dataset for clip in clips.clips]
        found = mt.loso_folds(groups) if args.folds == "loso" else mt.lodo_folds(groups, clips.subjects)
        folds = {groups[fold.test[0]]: fold for fold in found}
    for fold in folds.values():
        mt.check_fold(fold, clips.subjects, targets=clips.targets, classes=clips.classes)
    return folds


def selection(args: argparse.Namespace) -> str:
    """How the epoch is chosen, in the words that go into every output."""
    if args.select_on_test:
        return "selected on test"
    return "inner split of the training subjects" if args.select == "inner" else f"last of {args.epochs} epochs"


def build(args: argparse.Namespace, num_classes: int) -> nn.Module:
    """The network: called with onset, apex and offset (or the first two), it returns a list of outputs, front first."""
    net: nn.Module = mt.TSFmicro(
        num_classes, fusion=args.fusion, image_size=args.size, dims=args.dims, hidden=args.hidden,
        drop_path=args.drop_path,
    )  # fmt: skip
    if args.au == "labels":
        net = mt.attach_au_head(net, "fusion.head")
    return mt.TwoBranch(net) if args.model == "two-branch" else net


def train_fold(
    args: argparse.Namespace,
    name: str,
    fold: mt.Fold,
    data: Clips,
    folder: mt.FoldFolder,
    here: mt.Processes,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
    place: str = "",
) -> mt.ScoreBook:
    """Train one fold, from its last checkpoint if there is one, and predict the held-out clips.

    ``after_epoch`` is called with the epoch and the network that is scored; ``place`` stands on the progress bar.
    """
    seed = zlib.crc32(f"{args.seed}/{name}".encode())
    train, held_out = fold
    watched: list[int] = []
    if args.select_on_test:
        watched = held_out
    elif args.select == "inner":
        train, watched = mt.inner_split(train, data.clips.subjects, data.clips.targets, seed=seed)

    torch.manual_seed(seed)
    plain = build(args, len(data.clips.classes)).to(here.device)
    if here.world > 1:  # statistics over the clips of all processes, as in one
        plain = nn.SyncBatchNorm.convert_sync_batchnorm(plain)  # type: ignore[no-untyped-call]
    model = DistributedDataParallel(plain) if here.world > 1 else plain
    average = averaged(plain, args.ema) if args.ema else None
    optimiser = torch.optim.AdamW(plain.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate(args))
    scaler = torch.amp.GradScaler(here.device.type, enabled=args.precision == "float16")
    criterion = loss_of(args, data, train).to(here.device)
    parts: dict[str, Any] = {"model": plain, "optimiser": optimiser, "schedule": schedule, "scaler": scaler}
    parts |= {"average": average} if average is not None else {}
    scored = average.module if average is not None else plain
    batches = mt.ClipBatches(len(train), args.batch_size, rank=here.rank, world=here.world, seed=seed)
    loader = clips_loader(args, data.training, train, batches)

    first, best, best_weights = 0, -math.inf, None
    published: list[Any] | None = None
    if (state := folder.load()) is not None:
        for key, part in parts.items():
            part.load_state_dict(state[key])
        first, best, best_weights = state["epoch"] + 1, state["best"], state["best_weights"]
        published = state["published"]
    if here.main:
        folder.rewind(first)
    epochs = tqdm(
        range(first, args.epochs), desc=place or name, initial=first, total=args.epochs, disable=not here.main
    )
    for epoch in epochs:
        # A seed for each epoch: a run that was killed goes on as if it had not been.
        torch.manual_seed(seed + 7919 * epoch + here.rank)
        batches.set_epoch(epoch)
        data.training.set_epoch(epoch)
        entry = {"fold": name, "epoch": epoch, "lr": optimiser.param_groups[0]["lr"], "selection": selection(args)}
        entry["loss"] = train_epoch(args, model, criterion, data, loader, batches, optimiser, scaler, average, here)
        check_weights(plain, epoch)
        schedule.step()
        if watched:
            entry["uf1"] = predict(args, scored, data, watched, name, here).uf1()
            if entry["uf1"] >= best:  # of several that are as good, the one that was trained longest
                best = entry["uf1"]
                best_weights = {key: value.detach().clone() for key, value in scored.state_dict().items()}
        if args.published_protocol:
            seen = predict(args, scored, data, held_out, name, here)
            if published is None or seen.war() > as_book(data, published).war():
                published = [list(row) for row in seen]
        if after_epoch is not None:
            after_epoch(epoch, scored)
        if here.main:
            folder.log(**entry)
            if args.tensorboard:
                log_to_tensorboard(folder, entry)
            if (epoch + 1) % args.checkpoint_every == 0 or epoch + 1 == args.epochs:
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
    return predict(args, scored, data, held_out, name, here)


def as_book(data: Clips, rows: list[Any]) -> mt.ScoreBook:
    """Predictions as a checkpoint holds them."""
    book = mt.ScoreBook(data.clips.classes, selection=PUBLISHED_PROTOCOL)
    clips, subjects, datasets, folds, targets, predicted = zip(*rows, strict=True)
    book.add(predicted, targets, clips=clips, subjects=subjects, datasets=datasets, fold=folds[0])
    return book


def train_epoch(
    args: argparse.Namespace,
    model: nn.Module,
    criterion: nn.Module,
    data: Clips,
    loader: DataLoader[dict[str, Any]],
    batches: mt.ClipBatches,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: AveragedModel | None,
    here: mt.Processes,
) -> float:
    """One pass over the training clips; returns their mean loss."""
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=here.device)
    for number, batch in enumerate(loader):
        start = number - number % args.accumulate
        clips_of_step = sum(batches.sizes[start : start + args.accumulate])
        target = batch["target"].to(here.device)
        with torch.autocast(here.device.type, getattr(torch, args.precision), enabled=args.precision != "float32"):
            outputs = forward(args, model, batch, here.device)
        losses = sum(clip_losses(args, criterion, output, target, data, batch["index"]) for output in outputs)
        assert isinstance(losses, Tensor)
        if not bool(torch.isfinite(losses).all()):
            names = [data.clips.clips[int(i)].name for i in batch["index"]]
            raise FloatingPointError(
                f"the loss is {losses.tolist()} for clips {names}: lower --lr, or --precision float32; the last "
                "checkpoint is whole"
            )
        # DistributedDataParallel averages over processes what is to be averaged over the clips of the step.
        scaler.scale(losses.sum() * here.world / clips_of_step).backward()  # type: ignore[no-untyped-call]
        total += losses.detach().sum()
        if (number + 1) % args.accumulate == 0 or number + 1 == len(batches):
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            if average is not None:
                average.update_parameters(model.module if isinstance(model, DistributedDataParallel) else model)
    return here.sum(total).item() / batches.num_clips


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


def forward(args: argparse.Namespace, model: nn.Module, batch: dict[str, Tensor], device: torch.device) -> list[Any]:
    """Outputs of the branches, the front one first."""
    frames = [batch[key].to(device, non_blocking=True) for key in ("onset", "apex", "offset")]
    if args.model == "two-branch":
        return list(model(*frames))
    return [model(*frames[:2])]


def loss_of(args: argparse.Namespace, data: Clips, train: list[int]) -> mt.AUPriorLoss:
    """The loss, with whatever it needs to know taken from the training clips alone."""
    e = len(data.clips.classes)
    units, targets = data.action_units[train], data.targets[train]
    weight = mt.class_weights(torch.bincount(targets, minlength=e)) if args.class_weights else None
    return mt.AUPriorLoss(
        mt.estimate_au_prior(units, targets, num_classes=e),
        au_ratio=0.0 if args.au == "none" else args.au_ratio,
        pos_weight=mt.estimate_pos_weight(units) if args.au == "labels" else None,
        class_weight=weight,
        reduction="none",
    )


def clip_losses(
    args: argparse.Namespace, criterion: nn.Module, output: Any, target: Tensor, data: Clips, index: Tensor
) -> Tensor:
    """The loss of each clip."""
    if args.au == "labels":
        logits, au_logits = output
        losses: Tensor = criterion(logits, target, au_logits, data.action_units[index].to(target.device))
    else:
        losses = criterion(output, target)
    return losses


@torch.no_grad()
def predict(
    args: argparse.Namespace, model: nn.Module, data: Clips, indices: list[int], fold: str, here: mt.Processes
) -> mt.ScoreBook:
    """Predict clips from their key frames, annotated or as --reselect has them, the work shared out among processes."""
    model.eval()
    names = data.clips.names
    book = mt.ScoreBook(data.clips.classes, selection=selection(args))
    batches = mt.ClipBatches(len(indices), args.batch_size, rank=here.rank, world=here.world, shuffle=False)
    for batch in clips_loader(args, data.plain, indices, batches):
        onset, apex = batch["onset"].to(here.device), batch["apex"].to(here.device)
        with torch.autocast(here.device.type, getattr(torch, args.precision), enabled=args.precision != "float32"):
            output = model.front(onset, apex) if isinstance(model, mt.TwoBranch) else model(onset, apex)
        logits = output[0] if args.au == "labels" else output
        found = [data.clips.clips[int(i)] for i in batch["index"]]
        book.add(
            logits.float(), batch["target"], fold=fold, datasets=[clip.dataset for clip in found],
            subjects=[data.clips.subjects[int(i)] for i in batch["index"]],
            clips=[names[int(i)] for i in batch["index"]],
        )  # fmt: skip
    return book.gather() if here.world > 1 else book


def clips_loader(
    args: argparse.Namespace, dataset: mt.ClipDataset, indices: list[int], batches: mt.ClipBatches
) -> DataLoader[dict[str, Any]]:
    """Batches of the clips at ``indices``; what a clip looks like does not depend on the workers."""
    return DataLoader(Subset(dataset, indices), batch_sampler=batches, num_workers=args.workers)


def rate(args: argparse.Namespace) -> Callable[[int], float]:
    """The learning rate of an epoch as a share of --lr; exponential is the published one."""
    if args.schedule == "cosine":
        return lambda epoch: (1 + math.cos(math.pi * epoch / args.epochs)) / 2
    if args.schedule == "exponential":
        return lambda epoch: 0.987 ** min(epoch, 50)
    return lambda epoch: 1.0


def log_to_tensorboard(folder: mt.FoldFolder, entry: dict[str, Any]) -> None:
    """The same numbers for TensorBoard (pip install tensorboard)."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder.path / "tensorboard") as writer:
        writer.add_text("selection", entry["selection"], entry["epoch"])
        for key in ("loss", "lr", "uf1"):
            if key in entry:
                writer.add_scalar(key, entry[key], entry["epoch"])


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: error: {' '.join(str(error).split())}")
