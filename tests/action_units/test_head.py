import copy
import io
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import mertools as mt


class FrameLSTM(nn.Module):
    """Frame CNN and LSTM, logits from the last frame."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.lstm = nn.LSTM(6, 10, batch_first=True)
        self.fc = nn.Linear(10, 7)

    def forward(self, x):
        features = self.cnn(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.fc(self.lstm(features)[0][:, -1])


class LinearOverTime(nn.Linear):
    def __init__(self):
        super().__init__(6, 10)

    def forward(self, x):
        return super().forward(x).cumsum(1), None


class NestedTransformer(nn.Module):
    """A transformer whose classifier is ``head.fc``."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3 * 9 * 9, 12)
        self.block = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.head = nn.Module()
        self.head.fc = nn.Linear(12, 7)

    def forward(self, x):
        return self.head.fc(self.block(self.embed(x.flatten(2))).mean(1))


class ConvTuple(nn.Module):
    """A 1×1 convolution as classifier; returns logits and features."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.classify = nn.Sequential(nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.0), nn.Conv2d(5, 7, 1))

    def forward(self, x):
        features = self.conv(x[:, 0])
        return self.classify(features).mean((2, 3)), features


HOSTS = {"fc": FrameLSTM, "head.fc": NestedTransformer, "classify": ConvTuple}


@pytest.fixture(params=HOSTS)
def named(request):
    return request.param, HOSTS[request.param]().eval()


def clip(b=2):
    return torch.randn(b, 4, 3, 9, 9)


def first(output):
    return output[0] if isinstance(output, tuple) else output


def test_returns_what_the_host_returned_and_au_logits(named):
    layer, host = named
    x = clip()
    expected = host(x)
    model = mt.attach_au_head(host, layer)
    output, au_logits = model(x)
    assert torch.equal(first(output), first(expected))
    assert isinstance(output, tuple) == isinstance(expected, tuple)
    assert au_logits.shape == (2, 18)


def test_the_head_sees_the_input_of_the_layer():
    host, x = FrameLSTM(), clip()
    model = mt.attach_au_head(host, host.fc, num_aus=5)
    seen = host.lstm(host.cnn(x.flatten(0, 1)).unflatten(0, (2, 4)))[0][:, -1]
    torch.testing.assert_close(model(x)[1], model.au_head(seen))
    conv = ConvTuple().eval()
    model = mt.attach_au_head(conv, "classify")
    torch.testing.assert_close(model(x)[1], model.au_head(conv.conv(x[:, 0]).mean((2, 3))))


def test_names_and_checkpoints_of_the_host_stay(named):
    layer, host = named
    checkpoint_before = {k: v.clone() for k, v in host.state_dict().items()}
    model = mt.attach_au_head(host, layer)
    assert list(host.state_dict()) == list(checkpoint_before)
    assert set(model.state_dict()) == {*checkpoint_before, "au_head.linear.weight", "au_head.linear.bias"}
    x = clip()
    expected = first(host(x))
    head = model.au_head.linear.weight.clone()
    with torch.no_grad():
        for p in host.parameters():
            p.add_(1)
    model.load_state_dict(checkpoint_before, strict=True)  # the host's own checkpoint
    torch.testing.assert_close(first(model(x)[0]), expected)
    assert torch.equal(model.au_head.linear.weight, head)
    other = mt.attach_au_head(type(host)().eval(), layer)
    other.load_state_dict(model.state_dict(), strict=True)  # one with the head
    torch.testing.assert_close(other(x)[1], model(x)[1])
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict({**checkpoint_before, "extra": torch.ones(1)})
    host.load_state_dict(checkpoint_before, strict=True)


def test_detached_nothing_is_left(named):
    layer, host = named
    x = clip()
    expected, before = first(host(x)), pickle.dumps(host)
    model = mt.attach_au_head(host, layer)
    model(x)
    assert mt.detach_au_head(model) is host
    assert torch.equal(first(host(x)), expected)
    assert pickle.dumps(host) == before
    assert not any(module._forward_pre_hooks for module in host.modules())
    mt.attach_au_head(host, layer)


def test_both_losses_reach_the_host(named):
    layer, host = named
    model = mt.attach_au_head(host.train(), layer)
    output, au_logits = model(clip())
    mt.AUPriorLoss()(first(output), torch.tensor([0, 3]), au_logits, torch.rand(2, 18)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    host.zero_grad()
    model(clip())[1].sum().backward()  # through the AU head alone
    assert any(p.grad is not None and p.grad.any() for p in host.parameters())


def test_copies_have_their_own_head(named):
    layer, host = named
    model, x = mt.attach_au_head(host, layer), clip()
    expected = model(x)[1]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        torch.testing.assert_close(other(x)[1], expected)
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
        torch.testing.assert_close(model(x)[1], expected)
        assert mt.detach_au_head(other) is not host


def test_compiles_in_one_graph(named):
    layer, host = named
    if isinstance(host, FrameLSTM):
        host.lstm = LinearOverTime()  # PyTorch itself does not compile an nn.LSTM
    model, x = mt.attach_au_head(host, layer), clip()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x)[1], model(x)[1])
    assert mt.detach_au_head(compiled) is host


def test_autocast(named):
    layer, host = named
    model = mt.attach_au_head(host, layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(clip())[1].dtype == torch.bfloat16


def test_the_head_follows_the_hosts_type():
    model = mt.attach_au_head(FrameLSTM().double(), "fc")
    assert model(clip().double())[1].dtype == torch.float64


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.body, self.fc, self.reentrant = nn.Linear(5, 6), nn.Linear(6, 7), reentrant

    def forward(self, x):
        return checkpoint(lambda x: self.fc(self.body(x).relu()), x, use_reentrant=self.reentrant)


def test_gradient_checkpointing():
    model = mt.attach_au_head(Checkpointed(False), "fc")
    plain = copy.deepcopy(model)
    plain.host.forward = lambda x: plain.host.fc(plain.host.body(x).relu())
    x = torch.randn(3, 5, requires_grad=True)
    for net in (model, plain):
        logits, au_logits = net(x)
        (logits.square().sum() + au_logits.square().sum()).backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    copy.deepcopy(model)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        mt.attach_au_head(Checkpointed(True), "fc")(x)


class Repeating(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.fc, self.times = nn.Linear(5, 5), times

    def forward(self, x):
        for _ in range(self.times):
            x = self.fc(x)
        return x


@pytest.mark.parametrize(("times", "message"), [(0, "not called"), (2, "called 2 times")])
def test_a_layer_that_does_not_run_once(times, message):
    model = mt.attach_au_head(Repeating(times), "fc")
    with pytest.raises(RuntimeError, match=message):
        model(torch.rand(2, 5))


def test_attributes_of_the_host_can_be_reached():
    model = mt.attach_au_head(FrameLSTM(), "fc")
    assert model.lstm is model.host.lstm
    with pytest.raises(AttributeError, match="no_such_thing"):
        model.no_such_thing  # noqa: B018


def test_distributed_data_parallel_on_two_processes(tmp_path):
    """Gradients of two ranks are those of the whole batch in one process."""
    script = textwrap.dedent("""
        import os, sys, torch, torch.distributed as dist, mertools as mt
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        torch.set_num_threads(1)
        rank = int(sys.argv[1])
        dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}/store", rank=rank, world_size=2)
        torch.manual_seed(0)
        host = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7))
        x, y, au = torch.randn(4, 5), torch.tensor([0, 1, 2, 3]), torch.rand(4, 18)
        model = mt.attach_au_head(host, "2")
        mt.AUPriorLoss()(*(model(x)[:1]), y, model(x)[1], au).backward()
        expected = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        ddp = DDP(model)
        half = slice(2 * rank, 2 * rank + 2)
        logits, au_logits = ddp(x[half])
        mt.AUPriorLoss()(logits, y[half], au_logits, au[half]).backward()
        for p, e in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, e)
        assert mt.detach_au_head(ddp) is host
        print("same gradients", flush=True)
        dist.barrier()
        os._exit(0)  # gloo's own threads sometimes abort an orderly exit
    """)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(2)
    ]
    outputs = [process.communicate() for process in ranks]
    assert [output for output, _ in outputs] == ["same gradients\n"] * 2, outputs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.attach_au_head(FrameLSTM(), "head"), ValueError, "layer must be the name of a layer of model"),
        (lambda: mt.attach_au_head(NestedTransformer(), "fc"), ValueError, "did you mean .*'head.fc'"),
        (lambda: mt.attach_au_head(FrameLSTM(), nn.Linear(2, 2)), ValueError, "must be a part of model"),
        (lambda: mt.attach_au_head(FrameLSTM(), 3), TypeError, "layer must be the name"),
        (lambda: mt.attach_au_head("resnet", "fc"), TypeError, "model must be an nn.Module"),
        (lambda: mt.attach_au_head(FrameLSTM(), "lstm"), ValueError, "'lstm' .LSTM. does not tell the width"),
        (lambda: mt.attach_au_head(mt.attach_au_head(FrameLSTM(), "fc"), "fc"), ValueError, "has an AU head already"),
        (lambda: mt.detach_au_head(FrameLSTM()), ValueError, "must be what attach_au_head returned"),
        (lambda: mt.detach_au_head(None), TypeError, "model must be an nn.Module"),
        (lambda: mt.AUHead(0), ValueError, "in_features must be a positive integer"),
        (lambda: mt.AUHead(5)(torch.ones(2, 6)), ValueError, r"AUHead\(in_features=6\)"),
        (lambda: mt.AUHead(5)([1.0]), TypeError, "features must be a torch.Tensor"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_widths_of_numpy_and_tensors_are_widths():
    for width, units in ((np.int64(8), np.uint8(5)), (torch.tensor(8), torch.tensor(5))):
        head = mt.AUHead(width, units)
        assert (type(head.linear.in_features), head(torch.zeros(2, 8)).shape) == (int, (2, 5))
        host = nn.Sequential(nn.Flatten(), nn.Linear(8, 7))
        model = mt.attach_au_head(host, "0", in_features=width, num_aus=units)
        assert model(torch.zeros(2, 8))[1].shape == (2, 5)
    for width in (True, 8.0, "8"):
        with pytest.raises(ValueError, match="in_features must be a positive integer"):
            mt.AUHead(width)


# --- where the features are ------------------------------------------------------------------------------------------


class InlineCosine(nn.Module):
    """Compares features with text inline, as DFER-CLIP does: there is no layer whose input the features are."""

    def __init__(self, width=8, classes=7):
        super().__init__()
        self.image_encoder = nn.Linear(5, width)
        self.temporal_net = nn.LSTM(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.text = nn.Parameter(torch.randn(classes, width))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, frames):
        tokens, _ = self.temporal_net(self.image_encoder(frames))
        features = self.norm(tokens[:, -1])
        features = features / features.norm(dim=-1, keepdim=True)
        text = self.text / self.text.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * features @ text.T


def last_token(inputs, output):
    return output[0][:, -1]


@pytest.mark.parametrize(
    ("layer", "settings", "features"),
    [
        ("norm", {"tap": "output"}, lambda host, x: host.norm(host.temporal_net(host.image_encoder(x))[0][:, -1])),
        (
            "temporal_net",
            {"tap": last_token, "in_features": 8},
            lambda host, x: host.temporal_net(host.image_encoder(x))[0][:, -1],
        ),
    ],
)
def test_features_that_no_layer_is_fed(layer, settings, features):
    host = InlineCosine()
    frames, keys = torch.randn(2, 3, 5), list(host.state_dict())
    expected = host(frames)
    model = mt.attach_au_head(host, layer, **settings)
    assert [key for key in model.state_dict() if not key.startswith("au_head.")] == keys
    logits, au_logits = model(frames)
    assert torch.equal(logits, expected)
    assert torch.equal(au_logits, model.au_head(features(host, frames)))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(frames)[1], au_logits)
        other.load_state_dict(InlineCosine().state_dict())
    au_logits.sum().backward()
    assert host.image_encoder.weight.grad is not None
    assert mt.detach_au_head(model) is host
    assert not [
        hooks for module in host.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks) if hooks
    ]


@pytest.mark.parametrize(
    ("body", "width"),
    [
        (nn.Linear(5, 8), 8),
        (nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU()), 8),
        (nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.Dropout(0.0)), 9),
    ],
)
def test_the_width_of_an_output(body, width):
    host = nn.Sequential(body, nn.Linear(width, 7)).eval()
    model = mt.attach_au_head(host, "0", tap="output")
    x = torch.randn(3, 5)
    assert torch.equal(model(x)[1], model.au_head(body(x)))


def test_an_output_of_channels_is_averaged_over_its_positions():
    body = nn.Sequential(nn.Conv2d(3, 11, 3), nn.BatchNorm2d(11), nn.ReLU())
    host = nn.Sequential(body, nn.Flatten(), nn.Linear(11 * 9, 7)).eval()
    model = mt.attach_au_head(host, "0", tap="output")
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(model(x)[1], model.au_head(body(x).mean((2, 3))))


def test_an_output_under_compile():
    model = mt.attach_au_head(nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 7)), "0", tap="output")
    x = torch.randn(2, 5)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for expected, found in zip(model(x), compiled(x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "norm", "tap": "both"}, TypeError, "tap must be 'input', 'output' or a callable"),
        (
            {"layer": "norm", "tap": last_token},
            ValueError,
            "the width that the callable makes of it: pass in_features=",
        ),
        ({"layer": "temporal_net", "tap": "output"}, ValueError, "the width of its output: pass in_features="),
        ({"layer": "norm"}, ValueError, "the width of its input: pass in_features="),
    ],
)
def test_a_tap_that_can_not_be(settings, error, message):
    with pytest.raises(error, match=message):
        mt.attach_au_head(InlineCosine(), **settings)


def test_a_tap_that_gives_no_tensor():
    model = mt.attach_au_head(InlineCosine(), "temporal_net", tap="output", in_features=8)
    with pytest.raises(
        TypeError, match=r"the tap must give a tensor of features, got tuple: .*tap=lambda inputs, output"
    ):
        model(torch.randn(2, 3, 5))


class Motion(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(12, 8), nn.Linear(8, 7)

    def forward(self, static, motion):
        return self.fc(self.body((static + motion).flatten(1)))


def test_the_order_that_works_around_two_branches():
    frames = [torch.randn(2, 3, 2, 2) for _ in range(3)]
    wrong = mt.attach_au_head(mt.TwoBranch(Motion()), "net.fc")
    with pytest.raises(RuntimeError, match=r"called 2 times .*: .*TwoBranch\(attach_au_head\(net, layer\)\)"):
        wrong(*frames)
    front, back = mt.TwoBranch(mt.attach_au_head(Motion(), "fc"))(*frames)
    assert [part.shape for part in (*front, *back)] == [(2, 7), (2, 18)] * 2


class OfTimm(nn.Sequential):
    """timm's models, and those made after them, say which layer classifies."""

    def get_classifier(self):
        return self[-1]


def test_a_model_that_names_its_classifier():
    host = OfTimm(nn.Linear(5, 8), nn.Linear(8, 7))
    logits, au_logits = mt.attach_au_head(host)(torch.zeros(2, 5))
    assert (logits.shape, au_logits.shape) == ((2, 7), (2, 18))
    for unclear in (nn.Sequential(nn.Linear(5, 7)), OfTimm(nn.Linear(5, 8), nn.Identity())):
        with pytest.raises(ValueError, match="layer must be given for a .*, by name such as 'fc'"):
            mt.attach_au_head(unclear)
