"""mertools put into the published repositories themselves, which are run beside it: a row for each way.

    python -m reliability.hosts FOLDER [HOST ...]

FOLDER holds clones under the names in ``HOSTS``; docs/hosts.md has their addresses and commits. What a repository needs
(timm, torchvision, ftfy, regex) must be installed. Weights are random; a row says what comes out, and that a step of
training reaches every parameter that it reached before.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import Tensor, nn

import mertools as mt

TARGET = torch.tensor([1, 4])
UNITS = torch.ones(2, 18)


def load(folder: Path, module: str, **missing: types.ModuleType) -> Any:
    """A module of a clone; ``missing`` are modules that it imports and that nobody has."""
    sys.path[:0] = places = [str(folder), str(folder / "models")]
    sys.modules.update(missing)
    try:
        return importlib.import_module(module)
    finally:
        for place in places:
            sys.path.remove(place)


def stub(name: str, **content: Any) -> types.ModuleType:
    """A module that is imported and not used here."""
    module = types.ModuleType(name)
    module.__dict__.update(content)
    return module


def row(host: str, way: str, net: nn.Module, inputs: list[Any], criterion: Callable[..., Tensor]) -> None:
    """A step of training; the parameters that it does not reach are counted."""
    output = net.train()(*inputs)
    parts = output if isinstance(output, tuple) else (output,)
    loss = criterion(parts[0], TARGET, *parts[1:])
    loss.backward()  # type: ignore[no-untyped-call]
    still = sum(p.requires_grad and p.grad is None for p in net.parameters())
    for p in net.parameters():
        p.grad = None
    print(f"| {host} | {way} | {', '.join(str(tuple(x.shape)) for x in parts)} | {still} |")


def with_au_head(host: str, net: nn.Module, inputs: list[Any], layer: str | None, **settings: Any) -> None:
    """Attach, a step, detach: nothing may be left."""
    names = list(net.state_dict())
    before = {key: value.clone() for key, value in net.named_parameters()}
    model = mt.attach_au_head(net, layer, **settings)
    assert set(names) <= model.state_dict().keys(), "names of the host changed"
    loss = mt.AUPriorLoss(mt.au_prior()[: 7 if host != "MMNet" else 5])
    row(host, "attach_au_head", model, inputs, lambda y, t, au: loss(y, t, au, UNITS))
    assert mt.detach_au_head(model) is net
    assert list(net.state_dict()) == names
    assert all(torch.equal(value, before[key]) for key, value in net.named_parameters())


def former_dfer(folder: Path) -> None:
    """Features arrive as (b·t, d)."""
    net, clips = load(folder, "models.ST_Former").GenerateModel(), [torch.randn(2, 16, 3, 112, 112)]
    row("Former-DFER", "as published", net, clips, F.cross_entropy)
    with_au_head("Former-DFER", net, clips, "fc")
    net.t_former = nn.Sequential(Rearrange("(b t) d -> b t d", t=16), mt.RetNetTemporal(512), mt.FramePool("mean"))
    row("Former-DFER", "RetNetTemporal", net, clips, F.cross_entropy)


def m3dfel(folder: Path) -> None:
    """An LSTM of two directions, whose flatten_parameters() is called."""
    module, clips = load(folder, "models.M3DFEL"), [torch.randn(2, 16, 3, 112, 112)]
    r3d = module.r3d_18
    module.r3d_18 = lambda weights=None: r3d()
    net = module.M3DFEL(SimpleNamespace(gpu_ids=[], num_frames=16, instance_length=4, num_classes=7))
    row("M3DFEL", "as published", net, clips, F.cross_entropy)
    with_au_head("M3DFEL", net, clips, "fc")
    net.lstm = mt.LSTMShape.like(net.lstm)
    row("M3DFEL", "LSTMShape, AUPriorLoss", net, clips, mt.AUPriorLoss(label_smoothing=0.1))


def mae_dfer(folder: Path) -> None:
    """A transformer of clips (b, c, t, h, w), trained with mixup; get_classifier() names its head."""
    module, clips = load(folder, "modeling_finetune"), [torch.randn(2, 3, 16, 160, 160)]
    net = module.VisionTransformer(
        img_size=160, embed_dim=64, depth=2, num_heads=4, num_classes=7, all_frames=16, init_scale=1.0,
        attn_type="local_global", lg_region_size=(2, 5, 10),
    )  # fmt: skip
    row("MAE-DFER", "as published", net, clips, F.cross_entropy)
    soft = torch.softmax(torch.randn(2, 7), 1)
    row("MAE-DFER", "AUPriorLoss with mixup", net, clips, lambda y, _: mt.AUPriorLoss()(y, soft))
    with_au_head("MAE-DFER", net, clips, None)


def dfer_clip(folder: Path) -> None:
    """Cosines with texts are computed inline: there is no layer whose input is the feature."""
    packaging = stub("pkg_resources", packaging=importlib.import_module("packaging"))
    importlib.import_module("packaging.version")
    parts = load(folder, "models.clip.model", pkg_resources=packaging)
    module = load(folder, "models.Generate_Model")
    clip = parts.CLIP(512, 224, 2, 64, 32, 77, 49408, 512, 8, 2).float()
    args = SimpleNamespace(
        contexts_number=4, class_token_position="end", class_specific_contexts="True",
        load_and_tune_prompt_learner="True", temporal_layers=1,
    )  # fmt: skip
    net, clips = module.GenerateModel(list(mt.EXPRESSIONS), clip, args), [torch.randn(2, 16, 3, 224, 224)]
    row("DFER-CLIP", "as published", net, clips, F.cross_entropy)
    with_au_head("DFER-CLIP", net, clips, "temporal_net", tap="output", in_features=512)
    net.temporal_net = nn.Sequential(mt.RetNetTemporal(512, 1), mt.FramePool("mean"))
    row("DFER-CLIP", "RetNetTemporal", net, clips, F.cross_entropy)


class AsFrames(nn.Module):
    """A host of frames for TwoBranch: the apex is the frame with the motion."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, static: Tensor, motion: Tensor) -> Tensor:
        """MMNet reads the first and the fifth of nine frames."""
        logits: Tensor = self.net(*[static] * 4, static + motion, *[static] * 4, False)
        return logits


def mmnet(folder: Path) -> None:
    """Nine frames, of which onset and apex are read."""
    load(folder, "CA_block").resnet50 = None  # imported by the script, and nowhere defined
    names = ("opencv_flow", "resmodel", "gradcam", "confusion_matrix")
    unused = dict.fromkeys(("OpticFlow", "resnet18", "show_cam_on_image", "GradCam", "preprocess_image"))
    module = load(folder, "CASME2_5", **{name: stub(name, **unused) for name in names})
    net, frames = module.MMNet(), [torch.randn(2, 3, 224, 224) for _ in range(3)]
    nine = [frames[0]] * 4 + [frames[1]] + [frames[2]] * 4 + [False]
    row("MMNet", "as published", net, nine, F.cross_entropy)
    with_au_head("MMNet", net, nine, "main_branch.fc")
    row("MMNet", "TwoBranch", mt.TwoBranch(AsFrames(net)), frames,
        lambda y, t, back: F.cross_entropy(y, t) + F.cross_entropy(back, t))  # fmt: skip


class OnMotion(nn.Module):
    """A host of flow for TwoBranch: it sees the motion only."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, static: Tensor, motion: Tensor) -> Tensor:
        """The host's own output."""
        logits: Tensor = self.net(motion)
        return logits


def flow_host(host: str, net: nn.Module, side: int, layer: str) -> None:
    """u, v and strain of re-selected frames."""

    def motion(first: Tensor, second: Tensor) -> Tensor:
        flow = mt.optical_flow(first, second)
        image = torch.cat([flow, mt.optical_strain(flow)[:, None]], 1)
        return F.interpolate(image, (side, side), mode="bilinear", antialias=True)

    clips = [mt.synthetic_clip(size=96, seed=seed) for seed in range(2)]
    told = [torch.tensor([getattr(clip, name) for clip in clips]) for name in ("onset", "apex", "offset")]
    frames = torch.stack([clip.frames for clip in clips])
    onset, apex, offset = mt.FrameSelector(refine=True)(frames, *told).gather(frames)
    target = TARGET % 3
    row(host, "as published", net, [motion(onset, apex)], lambda y, _: F.cross_entropy(y, target))
    row(
        host,
        "FrameSelector, optical_flow, TwoBranch",
        mt.TwoBranch(OnMotion(net), motion=motion),
        [onset, apex, offset],
        lambda y, _, back: F.cross_entropy(y, target) + F.cross_entropy(back, target),
    )
    assert mt.detach_au_head(mt.attach_au_head(net, layer)) is net


def htnet(folder: Path) -> None:
    """Flow and strain, 28 × 28."""
    net = load(folder, "Model").HTNet(
        image_size=28, patch_size=7, dim=256, heads=3, num_hierarchies=3, block_repeats=(2, 2, 10), num_classes=3
    )
    flow_host("HTNet", net, 28, "mlp_head.2")


def ststnet(folder: Path) -> None:
    """Flow and strain, 28 × 28."""
    util = stub("distutils.util", strtobool=bool)
    unused = {"torchsummary": stub("torchsummary", summary=None), "distutils": stub("distutils", util=util)}
    flow_host("STSTNet", load(folder, "main", **unused, **{"distutils.util": util}).STSTNet(), 28, "fc")


def sssnet(folder: Path) -> None:
    """Flow and strain, 64 × 64, in MEB."""
    spec = importlib.util.spec_from_file_location("me_networks", folder / "meb" / "models" / "me_networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flow_host("SSSNet", module.SSSNet(), 64, "fc")


HOSTS = {
    "Former-DFER": former_dfer,
    "DFER-CLIP": dfer_clip,
    "M3DFEL_replicate": m3dfel,
    "MAE-DFER": mae_dfer,
    "MMNet": mmnet,
    "HTNet": htnet,
    "STSTNet": ststnet,
    "meb": sssnet,
}


def main(folder: str, *names: str) -> None:
    """A table; each host in a fresh set of modules, as they share names."""
    warnings.simplefilter("ignore")
    timm = importlib.import_module("timm.layers")  # under the names that older code imports
    sys.modules["timm.models.layers"] = stub("timm.models.layers", **vars(timm))
    sys.modules["timm.models.registry"] = stub("timm.models.registry", register_model=lambda function: function)
    print("| host | way | output | parameters without gradient |\n|---|---|---|---|")
    for name in names or HOSTS:
        torch.manual_seed(0)
        HOSTS[name](Path(folder) / name)
        for module in [name for name in sys.modules if name.split(".")[0] in ("clip", "main", "models", "utils")]:
            del sys.modules[module]


if __name__ == "__main__":
    main(*sys.argv[1:])
