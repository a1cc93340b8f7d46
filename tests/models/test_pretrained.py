"""The published networks, by their published weights: every entry of the fixtures. Then weights of others."""

import hashlib

import pytest
import torch
import torch.nn.functional as F

import mertools as mt


def assert_met(got, expected):
    """To 1e-4, relative to the largest value of the entry."""
    assert got.shape == expected.shape
    assert float((got.detach() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.fixture(scope="module")
def frames(parity):
    return {name: parity.image(name) for name in ("onset", "apex", "offset")}


@pytest.fixture(scope="module")
def two_branch(parity):
    return mt.load_published(mt.TwoBranch(mt.TSFmicro(5, drop_path=0.0)), parity.state_dict("gamdss")).eval()


@pytest.mark.parametrize("network", ["tsfmicro", "s_to_t", "t_to_s", "early"])
@torch.no_grad()
def test_tsfmicro_logits(parity, frames, network):
    fusion = "parallel" if network == "tsfmicro" else network
    model = mt.load_published(mt.TSFmicro(5, fusion=fusion), parity.state_dict(network)).eval()
    assert_met(model(frames["onset"], frames["apex"]), parity.expected(f"{network}.logits0"))


@torch.no_grad()
def test_two_branch_logits(parity, frames, two_branch):
    front, back = two_branch(**frames)
    assert_met(front, parity.expected("gamdss.logits0"))
    assert_met(back, parity.expected("gamdss.logits1"))


@torch.no_grad()
def test_maps_of_the_front_branch(parity, frames, two_branch):
    where = two_branch.net.spatial(frames["onset"])
    how = two_branch.net.temporal(frames["apex"] - frames["onset"])
    assert_met(where[:, ::64], parity.expected("gamdss.spatial_map"))
    assert_met(how[:, ::64], parity.expected("gamdss.temporal_map"))


def constants():
    """The published constants, computed from REFERENCE §3."""
    out = {}
    for i, (dim, spread) in enumerate(zip((64, 128, 256, 512), (4, 4, 6, 6), strict=True)):
        angle = 1 / 10000 ** torch.linspace(0, 1, dim // 4)
        out[f"main_branch.layers.{i}.Relpos.angle"] = angle.repeat_interleave(2)
        out[f"main_branch.layers.{i}.Relpos.decay"] = torch.log(1 - 2.0 ** (-2 - spread * torch.arange(2.0) / 2))
    return out


def test_constants_are_checked_and_taken_over(parity):
    weights = parity.state_dict("tsfmicro") | constants()
    model = mt.load_published(mt.TSFmicro(5), weights)
    weights["main_branch.layers.2.Relpos.decay"] = torch.tensor([-0.5, -0.25])
    mt.load_published(model, weights)
    assert [b.retention.log_decay.tolist() for b in model.temporal.stages[2].blocks] == [[-0.5, -0.25]] * 2
    weights["main_branch.layers.1.Relpos.angle"] = torch.ones(64)
    with pytest.raises(ValueError, match="layers.1.Relpos.angle must be"):
        mt.load_published(model, weights)


def test_prefix_of_a_data_parallel_run(parity):
    weights = {f"module.{key}": value for key, value in parity.state_dict("early").items()}
    mt.load_published(mt.TSFmicro(5, fusion="early"), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("main_branch.proj.weight"), "lacks 1 keys that .*: main_branch.proj.weight"),
        (
            lambda w: w.update({"main_branch.layers.1.blocks.0.retention.k_proj.weight": torch.ones(0, 128)}),
            r"k_proj.weight must be \(128, 128\), got \(0, 128\)",
        ),
        (lambda w: w.update({"main_branch.layers.0.Relpos.decay": torch.ones(2)}), "Relpos.decay must be negative"),
        (lambda w: w.update({"module.main_branch.head.bias": torch.ones(5)}), "with and without the prefix"),
        (lambda w: w.update({"main_branch.head.bias": torch.ones(5).long()}), "head.bias must be torch.float32"),
        (lambda w: w.update({"main_branch.extra": torch.ones(1)}), "holds 1 keys that .*: main_branch.extra"),
        (
            lambda w: w.update({"main_branch.head.bias": torch.ones(7)}),
            r"main_branch.head.bias must be \(5,\), got \(7,\)",
        ),
    ],
)
def test_loading_is_strict_and_all_or_nothing(parity, change, message):
    weights = parity.state_dict("tsfmicro")
    change(weights)
    model = mt.TSFmicro(5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        mt.load_published(model, weights)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_bad_kinds():
    with pytest.raises(TypeError, match="model must be a TSFmicro"):
        mt.load_published(torch.nn.Linear(2, 2), {})
    for state in (5, None):
        with pytest.raises(TypeError, match="state_dict must map names to tensors"):
            mt.load_published(mt.TSFmicro(5), state)
    with pytest.raises(TypeError, match="state_dict must map names to tensors"):
        mt.load_published(mt.TSFmicro(5), {1: torch.ones(1)})
    with pytest.raises(ValueError, match="use model.load_state_dict"):
        mt.load_published(mt.TSFmicro(5), mt.TSFmicro(5).state_dict())
    with pytest.raises(TypeError, match="under a key such as"):
        mt.load_published(mt.TSFmicro(5), {"state_dict": {}, "epoch": 3})


def test_training_step(parity, frames):
    """Loss and gradient norm of one training step without drop path."""
    model = mt.load_published(mt.TwoBranch(mt.TSFmicro(5, drop_path=0.0)), parity.state_dict("gamdss")).train()
    front, back = model(**frames)
    target = torch.tensor([1, 3])
    loss = F.cross_entropy(front, target) + F.cross_entropy(back, target)
    loss.backward()
    norm = torch.stack([p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
    assert_met(loss.double(), parity.expected("gamdss.train_loss"))
    assert_met(norm, parity.expected("gamdss.train_gradnorm"))


# --- torchscale's retention from its formulas (sums in the denominator and all), and its weights in ours -----------------

DIM, HEADS, VALUE = 12, 3, 24


def weights(prefix="", scale=1.0):
    shapes = {"q": (DIM, DIM), "k": (DIM, DIM), "v": (VALUE, DIM), "g": (VALUE, DIM), "out": (DIM, VALUE)}
    return {f"{prefix}{k}_proj.weight": torch.randn(shape, dtype=torch.float64) * scale for k, shape in shapes.items()}


def theirs(w, x):
    b, t, _ = x.shape
    dk = DIM // HEADS
    q, k, v, g = (x @ w[f"{name}_proj.weight"].T for name in "qkvg")
    q, k, v = (y.view(b, t, HEADS, -1).transpose(1, 2) for y in (q, k * dk**-0.5, v))
    angle = (1 / 10000 ** torch.linspace(0, 1, dk // 2, dtype=torch.float64)).repeat_interleave(2)
    theta = torch.arange(t, dtype=torch.float64)[:, None] * angle

    def turned(y):
        swapped = torch.stack((-y[..., 1::2], y[..., 0::2]), -1).flatten(-2)
        return y * theta.cos() + swapped * theta.sin()

    apart = torch.arange(t)[:, None] - torch.arange(t)
    gamma = 1 - 2 ** (-5 - torch.arange(HEADS, dtype=torch.float64))
    mask = torch.where(apart >= 0, gamma[:, None, None] ** apart.clamp(min=0), 0)
    mask = mask / mask.sum(-1, keepdim=True).sqrt()
    scores = turned(q) @ turned(k).mT * mask
    scores = scores / scores.detach().abs().sum(-1, keepdim=True).clamp(min=1)
    y = (scores @ v).transpose(1, 2)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)
    return (F.silu(g) * y.reshape(b, t, -1)) @ w["out_proj.weight"].T


@pytest.mark.parametrize("scale", [1.0, 0.03, 0.01])
def test_loaded_weights_compute_what_torchscale_does(scale):
    w = weights(scale=scale)
    layer = mt.load_torchscale(mt.Retention(DIM, HEADS, value_dim=VALUE).double(), w)
    x = torch.randn(2, 17, DIM, dtype=torch.float64)
    wanted = theirs(w, x)
    tol = {"atol": (1e-5 if scale == 1 else 1e-7) * float(wanted.abs().max()), "rtol": 0}  # see load_torchscale
    torch.testing.assert_close(layer(x), wanted, **tol)
    state, steps = None, []
    for x_t in x.unbind(1):
        y, state = layer.step(x_t, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), wanted, **tol)


def test_out_of_a_whole_model():
    w = weights("decoder.layers.0.retention.")
    layer = mt.Retention(DIM, HEADS, value_dim=VALUE)
    mt.load_torchscale(layer, w | {"decoder.norm.weight": torch.ones(3)}, prefix="decoder.layers.0.retention.")
    torch.testing.assert_close(layer.out_proj.weight.double(), w["decoder.layers.0.retention.out_proj.weight"])


@pytest.mark.parametrize(
    ("layer", "state", "message"),
    [
        (mt.Retention(DIM, HEADS, value_dim=VALUE, gate=False), weights(), "gate=True"),
        (mt.Retention(DIM, HEADS, value_dim=VALUE, decay=[0.5] * 3), weights(), "RetNet's, the default"),
        (mt.Retention(DIM, HEADS), weights(), r"v_proj.weight must be \(12, 12\)"),
        (mt.Retention(DIM, HEADS, value_dim=VALUE), weights("x."), "missing"),
        (mt.Retention(DIM, HEADS, value_dim=VALUE), weights() | {"q_proj.bias": torch.ones(12)}, "q_proj.bias"),
    ],
)
def test_refuses_what_does_not_fit(layer, state, message):
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        mt.load_torchscale(layer, state)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


# --- yet-another-retnet: its group norm subtracts the mean of a head --------------------------------------------------


YAR_DECAY = 1 - 2.0 ** -torch.linspace(5, 9, HEADS, dtype=torch.float64)


def yar_weights(scale=1.0):
    return {k: v for k, v in weights(scale=scale).items() if k[0] not in "vgo"} | {
        f"{name}_proj.weight": torch.randn(DIM, DIM, dtype=torch.float64) * scale for name in ("v", "g", "out")
    }


def yar(w, x, theta=True):
    """Their parallel form from its formulas: a group norm, an epsilon that no row sum is in."""
    b, t, _ = x.shape
    dk = DIM // HEADS
    q, k, v, g = (x @ w[f"{name}_proj.weight"].T for name in "qkvg")
    q, k, v = (y.view(b, t, HEADS, dk).transpose(1, 2) for y in (q, k, v))
    if theta:
        angle = 1 / 10000 ** torch.linspace(0, 1, dk // 2, dtype=torch.float64)
        turn = torch.polar(torch.ones(()).double(), torch.arange(t)[:, None] * angle)
        q, k = (
            torch.view_as_real(torch.view_as_complex(y.reshape(b, HEADS, t, -1, 2)) * turn).flatten(3) for y in (q, k)
        )
    apart = torch.arange(t)[:, None] - torch.arange(t)
    mask = torch.where(apart >= 0, YAR_DECAY[:, None, None] ** apart.clamp(min=0), 0)
    y = ((q @ k.mT * dk**-0.5 * mask) @ v).transpose(1, 2).reshape(b * t, DIM)
    y = F.group_norm(y, HEADS, eps=1e-6).view(b, t, DIM)
    return (F.silu(g) * y) @ w["out_proj.weight"].T


@pytest.mark.parametrize("rotary", [True, False])
def test_yet_another_retnet(rotary):
    w = yar_weights()
    angle = (1 / 10000 ** torch.linspace(0, 1, DIM // HEADS // 2)).repeat_interleave(2)
    state = w | ({"thetas": angle} if rotary else {}) | {"q_proj.bias": torch.zeros(DIM)}
    layer = mt.Retention(DIM, HEADS, rotary=rotary, decay=YAR_DECAY).double()
    x = torch.randn(2, 17, DIM, dtype=torch.float64)
    wanted = yar(w, x, rotary)
    got = mt.load_yet_another_retnet(layer, {f"a.{k}": v for k, v in state.items()}, prefix="a.")(x)
    torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        ({}, {"v_proj.bias": torch.ones(DIM)}, "v_proj.bias must be 0: mertools.Retention has no biases"),
        (
            {"decay": None},
            {},
            r"must have the decays of the weights, which are theirs: decay=1 - 2 \*\* -torch.linspace",
        ),
        ({"rotary": True}, {}, "must have rotary=False"),
        ({}, {"group_norm.weight": torch.ones(DIM)}, "not known .*group_norm.weight"),
        ({"gate": False}, {}, "layer must have gate=True"),
    ],
)
def test_what_can_not_be_equal_is_refused(layer, change, message):
    made = mt.Retention(DIM, HEADS, **{"rotary": False, "decay": YAR_DECAY, **layer})
    with pytest.raises(ValueError, match=message):
        mt.load_yet_another_retnet(made, yar_weights() | change)


# --- RMT --------------------------------------------------------------------------------------------------------------

# The official model of each size, from its code: dims, depths, heads, ratios of the feed-forward, stages with layer
# scale; and a digest of the names and shapes of its whole state dict, which `official` below must meet.
RMT = {
    "rmt-t": ((64, 128, 256, 512), (2, 2, 8, 2), (4, 4, 8, 16), (3, 3, 3, 3), (),
              "fb3663aeac7f45f9dbd3cd9c3c99a92927282a8a6b3658547dff01f605b3ab3b"),
    "rmt-s": ((64, 128, 256, 512), (3, 4, 18, 4), (4, 4, 8, 16), (4, 4, 3, 3), (),
              "14731dbb5645470dc29fd5af7f50d3b54787bc9fa7026b3b8fa5aa9654340e0c"),
    "rmt-b": ((80, 160, 320, 512), (4, 8, 25, 8), (5, 5, 10, 16), (4, 4, 3, 3), (2, 3),
              "eca8ac2fdbe223b28191fdb945a7c75004600ddc63e6347379c8a502447beb85"),
    "rmt-l": ((112, 224, 448, 640), (4, 8, 25, 8), (7, 7, 14, 20), (4, 4, 3, 3), (2, 3),
              "fa66e8cc4d347cf1235f1931bd1757f962d2e5dee4c7a35d22ae40ab6a4daead"),
}  # fmt: skip


def official(dims, depths, heads, ratios, scaled):
    """Names and shapes of the official checkpoints."""
    shapes = {}

    def layer(name, *shape):
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    def batch_norm(name, d):
        layer(name, d)
        shapes.update({f"{name}.running_mean": (d,), f"{name}.running_var": (d,), f"{name}.num_batches_tracked": ()})

    half = dims[0] // 2
    for i, shape in ((0, (half, 3)), (3, (half, half)), (6, (dims[0], half)), (9, (dims[0], dims[0]))):
        layer(f"patch_embed.proj.{i}", *shape, 3, 3)
        batch_norm(f"patch_embed.proj.{i + 1}", shape[0])
    for i, (d, depth, n) in enumerate(zip(dims, depths, heads, strict=True)):
        shapes |= {f"layers.{i}.Relpos.angle": (d // n,), f"layers.{i}.Relpos.decay": (n,)}
        for j in range(depth):
            block, hidden = f"layers.{i}.blocks.{j}", int(ratios[i] * d)
            layer(f"{block}.retention_layer_norm", d)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                layer(f"{block}.retention.{name}", d, d)
            layer(f"{block}.retention.lepe.conv", d, 1, 5, 5)
            layer(f"{block}.final_layer_norm", d)
            layer(f"{block}.ffn.fc1", hidden, d)
            layer(f"{block}.ffn.fc2", d, hidden)
            layer(f"{block}.ffn.dwconv.conv", hidden, 1, 3, 3)
            layer(f"{block}.pos.conv", d, 1, 3, 3)
            if i in scaled:
                shapes |= {f"{block}.gamma_1": (1, 1, 1, d), f"{block}.gamma_2": (1, 1, 1, d)}
        if i < 3:
            layer(f"layers.{i}.downsample.reduction", dims[i + 1], d, 3, 3)
            batch_norm(f"layers.{i}.downsample.norm", dims[i + 1])
    layer("proj", 1024, dims[-1])
    batch_norm("norm", 1024)
    layer("head", 1000, 1024)
    return shapes


def rmt_state(name):
    g = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in official(*RMT[name][:5]).items():
        if key.endswith("tracked"):
            state[key] = torch.tensor(0)
        elif key.endswith(("Relpos.angle", "Relpos.decay")):
            i, n = int(key.split(".")[1]), RMT[name][2][int(key.split(".")[1])]
            spread = {"rmt-b": (5, 5, 6, 6), "rmt-l": (6, 6, 6, 6)}.get(name, (4, 4, 6, 6))[i]
            angle = (1 / 10000 ** torch.linspace(0, 1, shape[0] // 2)).repeat_interleave(2)
            state[key] = angle if "angle" in key else torch.log(1 - 2.0 ** (-2 - spread * torch.arange(n) / n))
        else:
            state[key] = torch.rand(shape, generator=g) + 0.1
    return state


@pytest.mark.parametrize("name", RMT)
def test_the_table_is_the_official_one(name):
    """Digests were made of the state dicts of the official code."""
    told = "\n".join(f"{key} {shape}" for key, shape in sorted(official(*RMT[name][:5]).items()))
    assert hashlib.sha256(told.encode()).hexdigest() == RMT[name][5]


@pytest.mark.parametrize("name", RMT)
def test_rmt_is_loaded_in_every_size(name):
    state = rmt_state(name) | {"aux_head.weight": torch.ones(1000, RMT[name][0][-1])}
    with torch.device("meta"):
        net = mt.ManhattanRetNet.preset(name, features_only=True)
    before = {key: value.shape for key, value in net.state_dict().items()}
    net = net.to_empty(device="cpu")
    mt.load_rmt(net, state)
    assert {key: value.shape for key, value in net.state_dict().items()} == before
    block = net.stages[2].blocks[-1]
    theirs = f"layers.2.blocks.{len(net.stages[2].blocks) - 1}"
    assert torch.equal(block.retention.out_proj.weight, state[f"{theirs}.retention.out_proj.weight"])
    assert torch.equal(block.retention.qkv.weight.chunk(3)[1], state[f"{theirs}.retention.k_proj.weight"])
    assert torch.equal(block.ffn.local.weight, state[f"{theirs}.ffn.dwconv.conv.weight"])
    torch.testing.assert_close(block.retention.log_decay, state["layers.2.Relpos.decay"])
    if name in ("rmt-b", "rmt-l"):
        assert torch.equal(block.retention_scale, state[f"{theirs}.gamma_1"].flatten())
        assert torch.equal(block.ffn_scale, state[f"{theirs}.gamma_2"].flatten())
        assert net.stages[0].blocks[0].retention_scale is None


@torch.no_grad()
def test_rmt_as_a_pyramid_and_in_a_model():
    weights = rmt_state("rmt-t")
    backbone = mt.load_rmt(mt.ManhattanRetNet.preset("rmt-t"), weights)
    model = mt.TSFmicro(5, image_size=64, backbone=backbone).eval()
    assert model(*torch.randn(2, 1, 3, 64, 64)).shape == (1, 5)
    assert model.backbone is backbone
    assert model.spatial.grid == 2
    assert [tuple(m.shape) for m in backbone.eval().features(torch.randn(1, 3, 64, 96))] == [
        (1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)
    ]  # fmt: skip


def test_a_stage_without_layer_scale_has_one_of_one():
    d = {"dims": (80, 160, 320, 512), "depths": (1, 1, 1, 1), "num_heads": (5, 5, 10, 16), "stem_stride": 4}
    shapes = official(d["dims"], d["depths"], d["num_heads"], (3, 3, 3, 3), (2, 3))
    state = {key: torch.full(shape, -0.5) if shape else torch.tensor(0) for key, shape in shapes.items()}
    state = {key: value for key, value in state.items() if "angle" not in key}
    net = mt.load_rmt(mt.ManhattanRetNet(**d, layer_scale=0.1), state)
    assert bool((net.stages[0].blocks[0].ffn_scale == 1).all())
    assert bool((net.stages[3].blocks[0].ffn_scale == -0.5).all())
    with pytest.raises(ValueError, match=r"holds 4 keys that .*does not know: layers.2.blocks.0.gamma_1"):
        mt.load_rmt(mt.ManhattanRetNet(**d), state)


def test_weights_for_one_stem_are_not_loaded_into_another(parity):
    """Their shapes are the same: without a word one would compute something else."""
    settings = {"dims": (64, 128, 256, 512), "depths": (2, 2, 8, 2), "num_heads": (4, 4, 8, 16)}
    fine = mt.ManhattanRetNet(**settings)
    state = rmt_state("rmt-t")
    with pytest.raises(ValueError, match=r"model must have a stem of stride 4, got 2: .*or say stem_stride=2"):
        mt.load_rmt(fine, state)
    mt.load_rmt(fine, state, stem_stride=2)
    torch.testing.assert_close(fine.stem[0].weight, state["patch_embed.proj.0.weight"])
    coarse = mt.ManhattanRetNet(**settings, stem_stride=4)
    with pytest.raises(ValueError, match="model must have a stem of stride 2, got 4"):
        mt.load_rmt(coarse, state, stem_stride=2)
    for one, other in ((fine, coarse), (coarse, fine)):
        with pytest.raises(RuntimeError, match="stride4"):
            one.load_state_dict(other.state_dict())
    net = mt.TSFmicro(5, backbone=mt.ManhattanRetNet(stem_stride=4))
    with pytest.raises(ValueError, match="model must have a stem of stride 2, as the published TSFmicro has, got 4"):
        mt.load_published(net, parity.state_dict("tsfmicro"))
    with pytest.raises(RuntimeError, match="stride4"):
        net.load_state_dict(mt.TSFmicro(5).state_dict())


def test_bad_rmt():
    with pytest.raises(TypeError, match="model must be a ManhattanRetNet, got TSFmicro"):
        mt.load_rmt(mt.TSFmicro(5), {})
    with pytest.raises(TypeError, match="under a key such as 'state_dict' or 'model'"):
        mt.load_rmt(mt.ManhattanRetNet.preset("rmt-t"), {"model": {}})
    net = mt.ManhattanRetNet.preset("rmt-t", ffn_ratio=(4, 3, 3, 3))
    with pytest.raises(ValueError, match=r"layers.0.blocks.0.ffn.fc1.weight must be \(256, 64\), got \(192, 64\)"):
        mt.load_rmt(net, rmt_state("rmt-t"))


# --- antialiasing -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_antialias_as_torchvision_resizes_from_0_17_on(parity, frames, tmp_path):
    """Its resize of a tensor is this call; the network trained with it is another one."""
    weights = parity.state_dict("tsfmicro")
    plain = mt.load_published(mt.TSFmicro(5), weights).eval()
    smooth = mt.load_published(mt.TSFmicro(5), weights, antialias=True).eval()
    assert not plain.spatial.antialias
    small = F.interpolate(frames["onset"], (14, 14), mode="bilinear", align_corners=False, antialias=True)
    wanted = plain.fusion(plain.temporal(frames["apex"] - frames["onset"]), plain.spatial(small))
    torch.testing.assert_close(smooth(frames["onset"], frames["apex"]), wanted)
    assert float((plain(frames["onset"], frames["apex"]) - wanted).abs().max()) > 1e-3
    built = mt.load_published(mt.TSFmicro(5, antialias=True), weights).eval()
    torch.testing.assert_close(built(frames["onset"], frames["apex"]), wanted)
    back = mt.load_published(mt.TSFmicro(5, antialias=True), weights, antialias=False)
    assert not back.spatial.antialias
    pytest.importorskip("safetensors")
    assert mt.load_model(mt.save_model(smooth, tmp_path)).spatial.antialias


def test_antialias_needs_a_spatial_branch(parity):
    with pytest.raises(ValueError, match="antialias must be False with fusion='early'"):
        mt.TSFmicro(5, fusion="early", antialias=True)
    with pytest.raises(ValueError, match="antialias must be None for fusion='early'"):
        mt.load_published(mt.TSFmicro(5, fusion="early"), parity.state_dict("early"), antialias=True)
