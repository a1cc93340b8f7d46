import copy
import pickle
import re

import pytest
import torch
from brute_force import naive_retention as naive
from torch._dynamo.testing import CompileCounterWithBackend

import mertools as mt
from mertools.retention import layer as retention
from mertools.retention.forms import chunkwise_retention, two_sided_retention
from mertools.retention.layer import default_decay

FORMS = [("parallel", 1), ("chunkwise", 1), ("chunkwise", 7), ("chunkwise", 64), ("recurrent", 1), ("auto", 4)]


def layer_and_clip(t=37, dtype=torch.float64, **settings):
    layer = mt.Retention(24, 3, **settings).to(dtype)
    return layer, torch.randn(2, t, 24, dtype=dtype)


@pytest.mark.parametrize("t", [0, 1, 2, 37, 130])
@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("value_dim", [None, 51])
@pytest.mark.parametrize("gate", [True, False])
def test_every_form_is_the_definition(t, rotary, value_dim, gate):
    layer, x = layer_and_clip(t, rotary=rotary, value_dim=value_dim, gate=gate)
    expected = naive(layer, x)
    for mode, chunk_size in FORMS:
        torch.testing.assert_close(layer(x, mode=mode, chunk_size=chunk_size), expected, rtol=0, atol=1e-10)


def test_forms_agree_in_float32():
    layer, x = layer_and_clip(211, torch.float32)
    expected = naive(copy.deepcopy(layer).double(), x.double()).float()
    for mode, chunk_size in FORMS:
        torch.testing.assert_close(layer(x, mode=mode, chunk_size=chunk_size), expected, rtol=0, atol=1e-4)


def test_gradients_agree():
    layer, x = layer_and_clip(23)
    x.requires_grad_()
    weight = torch.randn(2, 23, 24, dtype=torch.float64)
    expected = torch.autograd.grad((naive(layer, x) * weight).sum(), [x, *layer.parameters()])
    for mode, chunk_size in FORMS:
        got = torch.autograd.grad((layer(x, mode=mode, chunk_size=chunk_size) * weight).sum(), [x, *layer.parameters()])
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_gradcheck():
    layer = mt.Retention(4, 2, value_dim=6).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, mode="chunkwise", chunk_size=2), (x,))


@pytest.mark.parametrize("cuts", [(1,), (36,), (5, 6, 30), (11, 12, 25), tuple(range(1, 37))])
@pytest.mark.parametrize(("mode", "chunk_size"), FORMS)
def test_a_clip_in_pieces_is_the_whole_clip(cuts, mode, chunk_size):
    layer, x = layer_and_clip()
    expected, last = layer(x, return_state=True)
    state, pieces = None, []
    for part in torch.tensor_split(x, cuts, 1):
        y, state = layer(part, mode=mode, chunk_size=chunk_size, state=state, return_state=True)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(tuple(state), tuple(last), rtol=0, atol=1e-10)


def test_steps_are_the_whole_clip():
    layer, x = layer_and_clip()
    state, outputs = None, []
    for frame in x.unbind(1):
        y, state = layer.step(frame, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), layer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("mode", "chunk_size"), FORMS)
@pytest.mark.parametrize("filler", [0.0, torch.nan])
def test_lengths_leave_padding_out(mode, chunk_size, filler):
    layer, x = layer_and_clip()
    lengths = torch.tensor([37, 11])
    padded = x.clone()
    padded[1, 11:] = filler
    padded.requires_grad_()
    y, state = layer(padded, mode=mode, chunk_size=chunk_size, lengths=lengths, return_state=True)
    alone, alone_state = layer(x[1:, :11], return_state=True)
    torch.testing.assert_close(y[1:, :11], alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(state.memory[1:], alone_state.memory, rtol=0, atol=1e-10)
    assert state.position.tolist() == [37, 11]
    torch.testing.assert_close(y[:1], layer(x[:1]), rtol=0, atol=1e-10)
    assert not y[1, 11:].any()
    y.sum().backward()
    assert torch.isfinite(padded.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize(("mode", "chunk_size"), FORMS)
def test_a_stream_that_pauses(mode, chunk_size):
    """Clip 1 gets no new frame in the second call: its state must not age."""
    layer, x = layer_and_clip(20)
    _, state = layer(x[:, :8], return_state=True)
    _, state = layer(x[:, 8:12], state=state, lengths=[4, 0], mode=mode, chunk_size=chunk_size, return_state=True)
    y = layer(x[:, 12:], state=state, mode=mode, chunk_size=chunk_size)
    torch.testing.assert_close(y[0], layer(x)[0, 12:], rtol=0, atol=1e-10)
    skipping = torch.cat([x[1:, :8], x[1:, 12:]], 1)
    torch.testing.assert_close(y[1:], layer(skipping)[:, 8:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rotary", [True, False])
def test_two_sided_decays_both_ways(rotary):
    layer, x = layer_and_clip(causal=False, rotary=rotary)
    expected = naive(layer, x, causal=False)
    for mode, chunk_size in [("parallel", 1), ("chunkwise", 5), ("auto", 64)]:
        torch.testing.assert_close(layer(x, mode=mode, chunk_size=chunk_size), expected, rtol=0, atol=1e-10)
    padded = x.clone()
    padded[1, 11:] = torch.nan
    y = layer(padded, lengths=[37, 11])
    torch.testing.assert_close(y[1:, :11], layer(x[1:, :11]), rtol=0, atol=1e-10)


def test_the_past_does_not_know_the_future():
    layer, x = layer_and_clip()
    changed = x.clone()
    changed[:, 20] += 1
    for mode, chunk_size in FORMS:
        before, after = (layer(clip, mode=mode, chunk_size=chunk_size) for clip in (x, changed))
        assert torch.equal(before[:, :20], after[:, :20])
        assert (before[:, 20:] != after[:, 20:]).any()


@pytest.mark.parametrize("decay", [[1.0, 1.0, 1.0], [1e-30, 0.5, 1.0], [0.02, 0.9, 1 - 2**-20]])
def test_extreme_decays(decay):
    layer, x = layer_and_clip(300, torch.float32, decay=decay)
    expected = layer(x, mode="recurrent")
    for mode, chunk_size in FORMS:
        y = layer(x, mode=mode, chunk_size=chunk_size)
        assert torch.isfinite(y).all()
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-4)


def test_default_decay_is_that_of_the_paper():
    assert default_decay(3).tolist() == [1 - 2**-5, 1 - 2**-6, 1 - 2**-7]
    torch.testing.assert_close(mt.Retention(6, 3).log_decay.exp().double(), default_decay(3), atol=1e-7, rtol=0)


def test_sixteen_bits_do_not_stop_forgetting():
    layer = mt.Retention(32, 8).to(torch.bfloat16)
    assert (layer.log_decay < 0).all()  # γ = 1 − 2^−12 itself would round to 1
    x = torch.randn(1, 200, 32, dtype=torch.bfloat16)
    y, state = layer(x, return_state=True)
    assert y.dtype == torch.bfloat16
    assert state.memory.dtype == torch.float32


def test_autocast_keeps_states_in_float32():
    layer = mt.Retention(32, 4)
    x = torch.randn(2, 50, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, return_state=True)
        recurrent = layer(x, mode="recurrent")
    assert state.memory.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)
    torch.testing.assert_close(y, recurrent, atol=0.02, rtol=0.02)


def test_a_long_stream_keeps_its_precision():
    """Angles of position 10⁵ in float32 would be off by thousandths; here only differences of positions are formed."""
    layer = mt.Retention(16, 2)
    x = torch.randn(1, 40, 16)
    _, state = layer(torch.randn(1, 100_000, 16), return_state=True)
    with_past = layer(x, state=state)
    double = copy.deepcopy(layer).double()
    torch.testing.assert_close(
        with_past, double(x.double(), state=(state.memory.double(), state.position)).float(), atol=1e-5, rtol=0
    )


def test_heads_are_independent_of_the_batch():
    layer, x = layer_and_clip()
    torch.testing.assert_close(layer(x)[1:], layer(x[1:]), rtol=0, atol=1e-14)


def test_state_dict_holds_weights_and_decays_only():
    layer = mt.Retention(24, 3)
    assert set(layer.state_dict()) == {"in_proj.weight", "out_proj.weight", "log_decay"}
    fresh = mt.Retention(24, 3, decay=[0.5, 0.5, 0.5])
    fresh.load_state_dict(layer.state_dict())
    x = torch.randn(1, 9, 24)
    assert torch.equal(fresh(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


@pytest.mark.parametrize("tokens", [1, 7, 40, 1000])
@pytest.mark.parametrize("lengths", [None, [37, 0, 11, 36, 5]])
def test_parts_of_a_batch_and_of_a_clip_are_the_whole(monkeypatch, tokens, lengths):
    """Long clips and large batches go through in parts; where the cuts are must not show, nor in the gradients."""
    layer = mt.Retention(24, 3).double()
    x = torch.randn(5, 37, 24, dtype=torch.float64, requires_grad=True)
    expected, last = layer(x, lengths=lengths, return_state=True)
    wanted = torch.autograd.grad(expected.square().sum() + last.memory.square().sum(), [x, *layer.parameters()])
    monkeypatch.setitem(retention._SEGMENT_TOKENS, "cpu", tokens)
    for chunk_size in (3, 64):
        y, state = layer(x, lengths=lengths, chunk_size=chunk_size, return_state=True)
        got = torch.autograd.grad(y.square().sum() + state.memory.square().sum(), [x, *layer.parameters()])
        torch.testing.assert_close((y, tuple(state)), (expected, tuple(last)), rtol=0, atol=1e-10)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)
        with torch.no_grad():
            y, state = layer(x, lengths=lengths, chunk_size=chunk_size, return_state=True)
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
            rest = layer(x, chunk_size=chunk_size, state=state)
        torch.testing.assert_close(rest, layer(x, state=last), rtol=0, atol=1e-10)


def test_gradients_flow_through_a_carried_state():
    layer, x = layer_and_clip(30)
    x.requires_grad_()
    expected = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    for mode, chunk_size in FORMS:
        first, state = layer(x[:, :13], mode=mode, chunk_size=chunk_size, return_state=True)
        rest = layer(x[:, 13:], mode=mode, chunk_size=chunk_size, state=state)
        got = torch.autograd.grad(first.square().sum() + rest.square().sum(), [x, *layer.parameters()])
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_gradgradcheck():
    layer = mt.Retention(4, 2, learnable_decay=True).double()
    x = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, mode="chunkwise", chunk_size=2), (x,))


@pytest.mark.parametrize("causal", [True, False])
def test_learnable_decays(causal):
    layer = mt.Retention(24, 3, decay=[0.5, 0.9, 0.99], learnable_decay=True, causal=causal).double()
    fixed = mt.Retention(24, 3, decay=[0.5, 0.9, 0.99], causal=causal).double()
    fixed.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(2, 19, 24, dtype=torch.float64)
    torch.testing.assert_close(layer(x), fixed(x), rtol=0, atol=1e-6)
    assert set(layer.state_dict()) == {"in_proj.weight", "out_proj.weight", "decay_logit"}
    expected = torch.autograd.grad(naive(layer, x, causal).square().sum(), layer.decay_logit)
    for mode, chunk_size in FORMS if causal else [("parallel", 1), ("chunkwise", 5)]:
        got = torch.autograd.grad(layer(x, mode=mode, chunk_size=chunk_size).square().sum(), layer.decay_logit)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_decays_keep_their_precision_when_weights_are_cast():
    layer = mt.Retention(32, 8)
    exact = layer.log_decay.clone()
    assert torch.equal(layer.bfloat16().float().log_decay, exact)
    assert torch.equal(mt.Retention(32, 8, dtype=torch.bfloat16).log_decay, exact)
    double = mt.Retention(32, 8, dtype=torch.float64).log_decay
    torch.testing.assert_close(double, default_decay(8).log(), rtol=1e-15, atol=0)


def test_built_on_meta_and_materialised():
    layer = mt.Retention(24, 3, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    torch.testing.assert_close(layer.log_decay.exp().double(), default_decay(3), atol=1e-7, rtol=0)
    assert torch.isfinite(layer(torch.randn(1, 5, 24))).all()


def test_a_hundred_thousand_steps_in_bfloat16_stay_useful():
    """Sums in 16 bits would stall at 256 increments; the memory is float32, so late outputs are those of float64."""
    torch.manual_seed(0)
    layer = mt.Retention(16, 2, decay=[1 - 2**-12, 1.0])
    exact, layer = copy.deepcopy(layer).double(), layer.bfloat16()
    exact.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
    x = torch.randn(1, 100_000, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        y, state = layer(x, return_state=True)
        expected, _ = exact(x.double(), return_state=True)
        step, _ = layer.step(x[:, 0], state)
    assert torch.isfinite(y).all()
    assert torch.isfinite(step).all()
    late = slice(-1000, None)
    error = (y[:, late].double() - expected[:, late]).square().mean() / expected[:, late].square().mean()
    assert error.sqrt() < 0.006  # bfloat16 itself rounds by 0.004


def test_large_products_may_have_few_bits():
    """What a GPU does with 16-bit tokens, on a CPU: operands are cast, decays and memories are not."""
    q, k, v = (torch.randn(2, 3, 50, 8) for _ in range(3))
    rate = default_decay(3).log().float()
    exact, memory = chunkwise_retention(q, k, v, rate, chunk_size=16)
    rough, kept = chunkwise_retention(q, k, v, rate, chunk_size=16, operand=torch.bfloat16)
    assert rough.dtype == kept.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.02 * exact.abs().max().item(), rtol=0)
    torch.testing.assert_close(kept, memory, atol=0.02 * memory.abs().max().item(), rtol=0)
    both = two_sided_retention(q, k, v, rate, chunk_size=16, operand=torch.bfloat16)
    torch.testing.assert_close(both, two_sided_retention(q, k, v, rate, chunk_size=16), atol=0.5, rtol=0.02)


def test_states_of_streams_join_like_batches():
    layer, x = layer_and_clip(20)
    _, early = layer(x[:1, :4], return_state=True)
    _, late = layer(x[1:, :9], return_state=True)
    joined = mt.RetentionState(*(torch.cat(parts) for parts in zip(early, late, strict=True)))
    y = layer(torch.stack([x[0, 4:9], x[1, 9:14]]), state=joined)
    expected = layer(x)
    torch.testing.assert_close(y[0], expected[0, 4:9], rtol=0, atol=1e-10)
    torch.testing.assert_close(y[1], expected[1, 9:14], rtol=0, atol=1e-10)


def test_a_state_takes_no_more_room_later():
    layer = mt.Retention(24, 3)
    _, state = layer(torch.randn(2, 3, 24), return_state=True)
    _, later = layer(torch.randn(2, 500, 24), state=state, return_state=True)
    assert [x.shape for x in later] == [x.shape for x in state]
    assert later.memory.untyped_storage().nbytes() == later.memory.numel() * 4


def test_one_graph_for_every_length():
    layer = mt.Retention(24, 3).eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for t in (200, 65, 130, 1025, 37, 64, 5):
        x = torch.randn(2, t, 24)
        torch.testing.assert_close(compiled(x), layer(x), atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 2  # clips of one chunk and longer ones


@pytest.mark.parametrize("mode", ["auto", "parallel"])
def test_export_with_any_batch_and_length(mode):
    if mode == "auto" and not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("before PyTorch 2.7 a layer can't tell that it is exported: mode='parallel'")
    layer = mt.Retention(24, 3).eval()
    batch, time = torch.export.Dim("b", min=1, max=64), torch.export.Dim("t", min=2, max=4096)
    free = {"x": {0: batch, 1: time}, "mode": None}
    graph = torch.export.export(layer, (torch.randn(2, 70, 24),), {"mode": mode}, dynamic_shapes=free)
    for shape in ((2, 70), (3, 5), (1, 300)):
        x = torch.randn(*shape, 24)
        torch.testing.assert_close(graph.module()(x, mode=mode), layer(x), atol=1e-5, rtol=1e-5)


def test_steps_compile():
    layer = mt.Retention(24, 3).eval()
    step = torch.compile(layer.step, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 6, 24)
    state = None
    with torch.no_grad():
        for i in range(6):
            y, state = step(x[:, i], state)
    torch.testing.assert_close(y, layer(x)[:, -1], atol=1e-5, rtol=1e-5)


def test_vmap_over_an_ensemble():
    layers = [mt.Retention(24, 3).double() for _ in range(4)]
    params, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    run = torch.func.vmap(lambda p, s: torch.func.functional_call(layers[0], (p, s), (x,)))
    torch.testing.assert_close(run(params, buffers), torch.stack([layer(x) for layer in layers]))


def test_vmap_over_clips_and_streams():
    layer = mt.Retention(24, 3).double()
    x = torch.randn(5, 130, 24, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(lambda clip: layer(clip[None])[0])(x), layer(x))
    _, state = layer(x[:, :7], return_state=True)

    def step(frame, memory, position):
        return layer.step(frame[None], (memory[None], position[None]))[0][0]

    torch.testing.assert_close(torch.func.vmap(step)(x[:, 7], *state), layer(x)[:, 7])


LAYER = mt.Retention(24, 3)
CLIP = torch.zeros(2, 5, 24)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.Retention(25, 3), ValueError, "dim must be a multiple of num_heads=3, got 25"),
        (lambda: mt.Retention(24, 3, value_dim=10), ValueError, "value_dim must be a multiple"),
        (lambda: mt.Retention(9, 3), ValueError, "must be even for rotary"),
        (lambda: mt.Retention(24, 0), ValueError, "num_heads must be a positive integer"),
        (lambda: mt.Retention(24, 3, decay=[0.5]), ValueError, r"decay must be \(3,\)"),
        (lambda: mt.Retention(24, 3, decay=[0.5, 0.5, 1.5]), ValueError, r"decay must lie in \(0, 1\]"),
        (lambda: LAYER(CLIP[..., :5]), ValueError, r"x must be \(b, t, 24\), got shape \(2, 5, 5\)"),
        (lambda: LAYER(CLIP, mode="fast"), ValueError, "mode must be one of 'auto'"),
        (lambda: LAYER(CLIP, chunk_size=0), ValueError, "chunk_size must be a positive integer"),
        (lambda: LAYER(CLIP, state=torch.zeros(2, 3, 8, 8)), TypeError, "state must be what an earlier call returned"),
        (lambda: LAYER(CLIP, state=LAYER.step(CLIP[:1, 0])[1]), ValueError, r"must have a memory \(2, 3, 8, 8\)"),
        (lambda: mt.Retention(24, 3, decay=[0.5, 0.5, 1], learnable_decay=True), ValueError, r"lie in \(0, 1\) to be"),
        (lambda: LAYER(CLIP, lengths=[5, 6]), ValueError, "got 6 for clip 1"),
        (lambda: LAYER.step(CLIP), ValueError, r"x_t must be \(b, 24\)"),
        (lambda: mt.Retention(24, 3, causal=False).step(CLIP[:, 0]), ValueError, "causal=True"),
        (lambda: mt.Retention(24, 3, causal=False)(CLIP, return_state=True), ValueError, "causal=True"),
        (lambda: mt.Retention(24, 3, causal=False)(CLIP, mode="recurrent"), ValueError, "causal=True"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- what is said, word for word ------------------------------------------------------------------------------------

NARROW = mt.Retention(24, 3, value_dim=6)
TWO_SIDED = "need causal=True: a two-sided layer waits for later frames"


def state(memory=(2, 3, 8, 2), position=(2,)):
    return torch.zeros(memory), torch.zeros(position, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[
            (lambda settings=settings: mt.Retention(**settings), message)
            for settings, message in (
                ({"dim": 0, "num_heads": 1}, "dim must be a positive integer, got 0"),
                ({"dim": 4, "num_heads": 0}, "num_heads must be a positive integer, got 0"),
                ({"dim": 4, "num_heads": 2, "value_dim": 0}, "value_dim must be a positive integer, got 0"),
                ({"dim": 7, "num_heads": 2}, "dim must be a multiple of num_heads=2, got 7"),
                ({"dim": 8, "num_heads": 2, "value_dim": 7}, "value_dim must be a multiple of num_heads=2, got 7"),
                (
                    {"dim": 9, "num_heads": 3},
                    "dim / num_heads must be even for rotary positions, got 9 / 3 = 3: choose other heads or pass "
                    "rotary=False",
                ),
                ({"dim": 8, "num_heads": 2, "decay": "ab"}, "decay must be (2,) numbers, one per head, got 'ab'"),
                ({"dim": 8, "num_heads": 2, "decay": [0.5]}, "decay must be (2,), one per head, got shape (1,)"),
                ({"dim": 8, "num_heads": 2, "decay": [0.5, 0]}, "decay must lie in (0, 1], got [0.5, 0.0]"),
                ({"dim": 8, "num_heads": 2, "decay": [1.5, 0.5]}, "decay must lie in (0, 1], got [1.5, 0.5]"),
                (
                    {"dim": 8, "num_heads": 2, "decay": [0.5, 1], "learnable_decay": True},
                    "decay must lie in (0, 1) to be learnable, got [0.5, 1.0]",
                ),
            )
        ],
        (lambda: NARROW([1]), "x must be a torch.Tensor (b, t, 24), got list"),
        (
            lambda: NARROW(torch.zeros(1, 1, 24).long()),
            "x must be floating, got torch.int64: convert it with x.float()",
        ),
        (lambda: NARROW(torch.zeros(5, 24)), "x must be (b, t, 24), got shape (5, 24)"),
        (lambda: NARROW(torch.zeros(5, 4, 23)), "x must be (b, t, 24), got shape (5, 4, 23)"),
        (
            lambda: NARROW(torch.zeros(1, 1, 24), mode="fast"),
            "mode must be one of 'auto', 'parallel', 'chunkwise', 'recurrent', got 'fast'",
        ),
        (
            lambda: NARROW(torch.zeros(1, 1, 24), chunk_size=0),
            "chunk_size must be a positive integer, got 0",
        ),
        *[
            (
                lambda settings=settings: mt.Retention(24, 3, causal=False)(torch.zeros(2, 4, 24), **settings),
                f"state, return_state and mode='recurrent' {TWO_SIDED}",
            )
            for settings in ({"state": state()}, {"return_state": True}, {"mode": "recurrent"})
        ],
        (lambda: mt.Retention(24, 3, causal=False).step(torch.zeros(2, 24)), f"step needs{TWO_SIDED[4:]}"),
        (lambda: NARROW.step([1]), "x_t must be a torch.Tensor (b, 24), got list"),
        *[
            (
                lambda shape=shape: NARROW.step(torch.zeros(shape)),
                f"x_t must be (b, 24), one frame per stream, got shape {shape}",
            )
            for shape in ((2, 1, 24), (2, 23))
        ],
        *[
            (
                lambda value=value: NARROW.step(torch.zeros(2, 24), value),
                f"state must be what an earlier call returned, {got}",
            )
            for value, got in ((3, "got int"), ((1, 2, 3), "got tuple"))
        ],
        (
            lambda: NARROW.step(torch.zeros(2, 24), (None, None)),
            "state.memory must be a torch.Tensor (2, 3, 8, 2), got NoneType",
        ),
        *[
            (
                lambda shapes=shapes: NARROW(torch.zeros(2, 4, 24), state=state(*shapes)),
                "state must have a memory (2, 3, 8, 2) and a position (2,) for this layer and batch, "
                f"got {shapes[0]} and {shapes[1]}",
            )
            for shapes in (((1, 3, 8, 2), (2,)), ((2, 3, 8, 3), (2,)), ((2, 3, 8, 2), (1,)), ((2, 3, 8, 2), ()))
        ],
    ],
)
def test_messages_in_full(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        call()


def test_a_position_that_is_no_tensor_of_integers_is_refused():
    memory, _ = state()
    for position in (7, None, torch.zeros(2)):
        with pytest.raises(TypeError, match="^state.position must be an integer tensor"):
            NARROW.step(torch.zeros(2, 24), (memory, position))


def test_what_a_layer_says_of_itself():
    assert repr(mt.Retention(8, 2, learnable_decay=True, gate=False, rotary=False)).startswith(
        "Retention(\n  dim=8, num_heads=2, value_dim=8, rotary=False, gate=False, causal=True, learnable_decay=True\n"
    )
    assert "value_dim=6, rotary=True, gate=True, causal=False, learnable_decay=False" in repr(
        mt.Retention(8, 2, value_dim=6, causal=False)
    )


def test_weights_are_drawn_as_in_the_paper():
    """Xavier for each of queries, keys, values and gate by itself, with gain 2^(−5/2); the output with gain 1."""
    layer = mt.Retention(64, 2, value_dim=256)
    edges = [(weight, 2**-2.5 * (6 / (64 + len(weight))) ** 0.5) for weight in layer.in_proj.weight.split(layer.widths)]
    assert [len(weight) for weight, _ in edges] == [64, 64, 256, 256]
    for weight, edge in [*edges, (layer.out_proj.weight, (6 / (64 + 256)) ** 0.5)]:
        assert 0.97 * edge < weight.abs().max() <= edge
        assert abs(weight.mean()) < 0.05 * edge
    before = layer.in_proj.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.in_proj.weight, before)
    torch.testing.assert_close(layer.log_decay.exp().double(), default_decay(2), rtol=0, atol=1e-7)
    learnt = mt.Retention(8, 2, learnable_decay=True)
    torch.testing.assert_close(learnt.decay_logit.sigmoid().double(), default_decay(2), rtol=0, atol=1e-6)


def test_built_in_the_type_that_was_asked_for():
    for settings in ({}, {"learnable_decay": True}):
        layer = mt.Retention(8, 2, dtype=torch.float64, **settings)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
        small = mt.Retention(8, 2, dtype=torch.bfloat16, **settings)
        assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}
        assert small.log_decay is None or small.log_decay.dtype == torch.float32
        assert {parameter.device.type for parameter in mt.Retention(8, 2, device="meta", **settings).parameters()} == {
            "meta"
        }


def test_states_are_given_only_when_asked_for():
    layer, x = mt.Retention(8, 2), torch.randn(2, 5, 8)
    assert isinstance(layer(x), torch.Tensor)
    _, last = layer(x, return_state=True)
    assert isinstance(last, retention.RetentionState)
    assert last.position.tolist() == [5, 5]
    assert last.position.dtype == torch.int64
    assert isinstance(layer(x, state=last), torch.Tensor)
    assert isinstance(layer(x, state=last, mode="recurrent"), torch.Tensor)
    _, first = layer.step(x[:, 0])
    assert first.position.tolist() == [1, 1]
    _, second = layer.step(x[:, 1], first)
    assert second.position.tolist() == [2, 2]


def test_a_single_frame_takes_one_step_and_none_gives_none(monkeypatch):
    """What "auto" does: a frame of a stream by the recurrent form, more by chunks."""
    called = []
    for name in ("recurrent_retention", "chunkwise_retention"):
        plain = getattr(retention, name)
        monkeypatch.setattr(
            retention, name, lambda *args, _plain=plain, _name=name, **more: called.append((_name, more.get("chunk_size"))) or _plain(*args, **more)
        )  # fmt: skip
    layer = mt.Retention(8, 2)
    layer(torch.zeros(1, 1, 8))
    layer(torch.zeros(1, 5, 8))
    layer(torch.zeros(1, 5, 8), mode="parallel")
    layer(torch.zeros(1, 5, 8), mode="chunkwise", chunk_size=2)
    layer(torch.zeros(1, 5, 8), mode="recurrent")
    assert layer(torch.zeros(1, 0, 8)).shape == (1, 0, 8)
    names = [(name.partition("_")[0], size) for name, size in called]
    assert names == [("recurrent", None), ("chunkwise", 64), ("chunkwise", 5), ("chunkwise", 2), ("recurrent", None),
                     ("chunkwise", 64)]  # fmt: skip


@pytest.mark.parametrize("form", [mt.chunkwise_retention, mt.recurrent_retention, mt.two_sided_retention])
def test_shapes_of_the_forms_must_fit(form):
    q, k, v = torch.zeros(3, 2, 3, 5, 4)
    for args in ((q[0], k[0], v[0], torch.zeros(3)), (q, k[:, :, :3], v, torch.zeros(3)), (q, k, v, torch.zeros(2))):
        with pytest.raises(
            ValueError, match=r"q and k must be \(b, n, t, dk\), v \(b, n, t, dv\) and log_decay \(n,\)"
        ):
            form(*args)
