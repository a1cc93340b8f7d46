"""The host recipes run, stay short, learn through the mertools lines, and those lines change what they say they do."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from einops.layers.torch import Rearrange
from torch import nn

import mertools as mt

FOLDER = Path(__file__).parents[1] / "examples" / "hosts"
HOSTS = ("m3dfel", "former_dfer", "dfer_clip", "mmnet", "htnet")


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for a second thread where the machine is busy
    yield importlib.import_module
    torch.set_num_threads(threads)


def made(recipe, **settings):
    data = recipe("made_clips").made_clips(**settings)
    return data, recipe("made_clips").normalised(data.frames)


def built(recipe, name, data):
    """The host with mertools in it, its criterion, and its inputs."""
    host = recipe(name)
    if name in ("m3dfel", "former_dfer", "dfer_clip"):
        clips = recipe("made_clips").normalised(data.frames)
        if name == "m3dfel":
            return *host.after(), [clips]
        if name == "dfer_clip":
            return *host.after(data), [clips]
        return host.after(), torch.nn.CrossEntropyLoss(), [clips]
    if name == "mmnet":
        frames = [recipe("made_clips").normalised(x) for x in host.reselected(data)[:2]]
        return host.MMNet(3), torch.nn.CrossEntropyLoss(), frames
    return host.HTNet(3), torch.nn.CrossEntropyLoss(), [host.reselected(data)[0]]


@pytest.mark.parametrize("name", [*HOSTS, "made_clips"])
def test_short_and_marked(name):
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    assert len(lines) < 120
    marked = [line for line in lines if line.rstrip().endswith("# <- mertools") or "# <- mertools:" in line]
    assert (name in HOSTS) == bool(marked)
    unmarked = [line for line in lines if re.search(r"\bmt\.(?!KeyFrames|synthetic_clip|facs_labels)\w", line)]
    assert set(unmarked) <= set(marked), "a mertools line without its mark"


def test_every_recipe_is_listed():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*HOSTS, "made_clips"}


@pytest.mark.parametrize("name", HOSTS)
def test_runs_and_learns(name, recipe, capsys):
    recipe(name).main()
    lines = capsys.readouterr().out.splitlines()
    for start in ("before", "after"):
        first, last = re.search(r"loss (\S+) -> (\S+)", next(x for x in lines if x.startswith(start))).groups()
        assert float(last) < float(first)


def test_runs_as_a_script():
    command = [sys.executable, str(FOLDER / "htnet.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("before  (12, 3, 28, 28) -> (12, 3)  parameters ")


@pytest.mark.parametrize("name", HOSTS)
def test_gradients_reach_every_parameter(name, recipe):
    data, _ = made(recipe, num_frames=40 if name in ("mmnet", "htnet") else 16, per_class=2, hasty=2)
    model, criterion, inputs = built(recipe, name, data)
    criterion(model(*inputs), data.target).backward()
    still = [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not still


def test_m3dfel_bag_keeps_time_in_order(recipe):
    """Frame 5 is in instance 1 of 4 and in no other."""
    _, clips = made(recipe, per_class=1)
    model, _ = recipe("m3dfel").after()
    model.eval()
    seen = []
    model.aggregator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    other = clips.clone()
    other[:, 5] += 1
    model(clips), model(other)
    moved = (seen[0] - seen[1]).abs().amax((0, 2))
    assert seen[0].shape == (3, 4, 64)
    assert moved[1] > 1e-3
    assert moved[[0, 2, 3]].max() < 1e-6


def test_m3dfel_aggregator_and_loss_matter(recipe):
    data, clips = made(recipe, per_class=1)
    model, criterion = recipe("m3dfel").after()
    model.eval()
    logits = model(clips)
    assert criterion(logits, data.target) != torch.nn.functional.cross_entropy(logits, data.target)
    assert isinstance(model.aggregator, mt.RetNetTemporal)
    model.aggregator = torch.nn.Identity()
    assert (model(clips) - logits).abs().max() > 1e-3


def test_former_dfer_reads_order_and_no_padding(recipe):
    _, clips = made(recipe, per_class=1)
    host = recipe("former_dfer").after().eval()
    logits = host(clips)
    assert (host(clips.flip(1)) - logits).abs().max() > 1e-3
    longer = torch.cat([clips, torch.full_like(clips[:, :4], 7.0)], 1)
    torch.testing.assert_close(host(longer, lengths=torch.tensor([16, 16, 16])), logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match="must match the size"):
        recipe("former_dfer").before()(longer)


def test_dfer_clip_head_shares_the_classifiers_input_and_comes_off(recipe):
    data, clips = made(recipe, per_class=1)
    model, criterion = recipe("dfer_clip").after(data)
    model.eval()
    logits, units = model(clips)
    assert units.shape == (3, 18)
    fed = []
    model.classes.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    model(clips)
    torch.testing.assert_close(model.au_head(fed[0]), units)
    loss = criterion((logits, units), data.target)
    assert criterion((logits, units + 1), data.target) != loss
    host = mt.detach_au_head(model)
    assert type(host) is recipe("dfer_clip").DFERCLIP
    assert torch.equal(host(clips), logits)


@pytest.mark.parametrize(("name", "size"), [("mmnet", 48), ("htnet", 64)])
def test_key_frames_are_chosen_again_towards_the_truth(name, size, recipe):
    data, _ = made(recipe, num_frames=40, size=size, hasty=4)
    before, after = recipe(name).annotated(data), recipe(name).reselected(data)
    assert torch.equal(before[-1], data.apex)
    assert (before[0] != after[0]).any()
    off = [(apex - data.true_apex).abs().float().mean() for apex in (before[-1], after[-1])]
    assert off[1] < off[0] / 2


def test_htnet_motion_image(recipe):
    """A face that moves as a whole has flow and no strain; one that smiles has both."""
    clip = mt.synthetic_clip(size=64, amplitude=3.0)
    onset, apex = clip.frames[clip.onset], clip.frames[clip.apex]
    shift = recipe("htnet").motion_image(onset, onset.roll(2, -1))[:, 7:21, 7:21]
    smile = recipe("htnet").motion_image(onset, apex)
    assert smile.shape == (3, 28, 28)
    assert shift[0].median() == pytest.approx(2, abs=0.2)
    assert shift[2].mean() < smile[2].max() / 4


def test_the_docs_show_lines_of_the_recipes():
    page = (FOLDER.parents[1] / "docs" / "hosts.md").read_text()
    code = "\n".join((FOLDER / f"{name}.py").read_text() for name in HOSTS)
    added = re.findall(r"^\+ (.*)$", page, flags=re.MULTILINE)
    assert len(added) >= 13
    assert [line for line in added if line not in code] == []


# --- the interfaces in which a part of mertools once did not fit ------------------------------------------------------


def test_features_arrive_flattened():
    """Former-DFER: (b·t, d) in, the clip's feature out, by einops' own layer."""
    temporal = nn.Sequential(Rearrange("(b t) d -> b t d", t=16), mt.RetNetTemporal(14, 1, 7), mt.FramePool("mean"))
    features = torch.randn(3 * 16, 14)
    wanted = temporal[1](features.view(3, 16, 14)).mean(1)
    torch.testing.assert_close(temporal(features), wanted)


class Cosines(nn.Module):
    """DFER-CLIP: features are compared with texts inline, no layer is fed the feature."""

    def __init__(self):
        super().__init__()
        self.temporal_net = nn.Sequential(mt.RetNetTemporal(14, 1, 7), mt.FramePool("mean"))
        self.register_buffer("texts", torch.randn(7, 14))

    def forward(self, x):
        video = self.temporal_net(x)
        return nn.functional.normalize(video, dim=-1) @ nn.functional.normalize(self.texts, dim=-1).mT / 0.01


def test_features_are_compared_inline():
    host, x = Cosines().eval(), torch.randn(2, 5, 14)
    keys, plain = list(host.state_dict()), host(x)
    model = mt.attach_au_head(host, "temporal_net", tap="output", in_features=14)
    logits, au_logits = model(x)
    assert torch.equal(logits, plain)
    torch.testing.assert_close(au_logits, model.au_head(host.temporal_net(x)))
    assert set(keys) <= set(model.state_dict())
    assert mt.detach_au_head(model) is host
    assert list(host.state_dict()) == keys


class Bag(nn.Module):
    """M3DFEL: an LSTM of two directions, doubled in width, whose parameters are flattened in every forward."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(input_size=14, hidden_size=14, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(28, 7)

    def forward(self, x):
        self.lstm.flatten_parameters()
        x, _ = self.lstm(x)
        return self.fc(x.mean(1))


def test_an_lstm_is_replaced_literally():
    host, x = Bag(), torch.randn(2, 4, 14)
    host.lstm = mt.LSTMShape.like(host.lstm, num_heads=7)
    host(x).sum().backward()
    assert [key for key, p in host.named_parameters() if p.grad is None] == []
    assert (host(x) - host(x.flip(1))).abs().max() > 1e-4


class OnMotion(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, static, motion):
        return self.net(motion)


def test_a_network_of_flow():
    """STSTNet, HTNet, SSSNet: u, v and strain of re-selected frames, a batch at once, in two branches."""

    def motion(first, second):
        flow = mt.optical_flow(first, second)
        image = torch.cat([flow, mt.optical_strain(flow)[:, None]], 1)
        return nn.functional.interpolate(image, (28, 28), mode="bilinear", antialias=True)

    clips = [mt.synthetic_clip(size=48, seed=seed) for seed in range(2)]
    frames = torch.stack([clip.frames for clip in clips])
    onset, apex, offset = (
        torch.tensor([getattr(clip, name) for clip in clips]) for name in ("onset", "apex", "offset")
    )
    keys = mt.FrameSelector(refine=True)(frames, onset, apex, offset)
    onset, apex, offset = keys.gather(frames)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    front, back = mt.TwoBranch(OnMotion(net), motion=motion)(onset, apex, offset)
    assert torch.equal(front, net(motion(onset, apex)))
    assert torch.equal(back, net(motion(offset, apex)))


def test_beside_torchmetrics():
    """What the page says is the same is, on random predictions; and where it says where not, it is not."""
    of = pytest.importorskip("torchmetrics.functional.classification")
    differ = 0
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        n, e = int(torch.randint(1, 40, (), generator=g)), int(torch.randint(2, 8, (), generator=g))
        p, t = torch.randint(e, (2, n), generator=g)
        ours = {"predicted": p, "target": t, "num_classes": e}
        assert float(of.multiclass_f1_score(p, t, e, average="macro")) == pytest.approx(mt.uf1(**ours), abs=1e-6)
        assert float(of.multiclass_accuracy(p, t, e, average="micro")) == pytest.approx(mt.war(**ours), abs=1e-6)
        assert torch.equal(of.multiclass_confusion_matrix(p, t, e), mt.confusion_matrix(**ours))
        recall = float(of.multiclass_recall(p, t, e, average="macro"))
        if len(t.unique()) == e:
            assert recall == pytest.approx(mt.uar(**ours), abs=1e-6)
        else:
            differ += abs(recall - mt.uar(**ours)) > 1e-6
    assert differ
