import copy
import pickle

import pytest
import torch

import mertools as mt
from mertools.retention import default_decay

FORMS = [("parallel", 1), ("chunkwise", 1), ("chunkwise", 7), ("chunkwise", 64), ("recurrent", 1), ("auto", 4)]


def naive(layer, x, causal=True):
    """REFERENCE §4 written out for one sequence after the other: explicit D, complex rotation, no chunks."""
    q, k, v, *gate = layer._project(x)
    b, n, t, d = q.shape
    step = torch.arange(t, dtype=torch.float64)
    if layer.angle is not None:
        turn = torch.polar(torch.ones((), dtype=torch.float64), step[:, None] * layer.angle.double())
        q = torch.view_as_complex(q.double().reshape(b, n, t, d // 2, 2).contiguous()) * turn
        k = torch.view_as_complex(k.double().reshape(b, n, t, d // 2, 2).contiguous()) * turn
        scores = (q @ k.conj().mT).real
    else:
        scores = q.double() @ k.double().mT
    apart = step[:, None] - step
    decay = layer.log_decay.double().exp()[:, None, None] ** apart.abs()
    if causal:
        decay = decay * (apart >= 0)
    return layer._finish(((scores * decay) @ v.double()).to(x.dtype), gate, x.dtype)


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


@pytest.mark.parametrize("cuts", [(1,), (36,), (5, 6, 30), tuple(range(1, 37))])
@pytest.mark.parametrize(("mode", "chunk_size"), FORMS)
def test_a_clip_in_pieces_is_the_whole_clip(cuts, mode, chunk_size):
    layer, x = layer_and_clip()
    expected, last = layer(x, return_state=True)
    state, pieces = None, []
    for part in torch.tensor_split(x, cuts, 1):
        y, state = layer(part, mode=mode, chunk_size=chunk_size, state=state, return_state=True)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-10)


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
    torch.testing.assert_close(state[1:], alone_state, rtol=0, atol=1e-10)
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
    assert state.dtype == torch.float32


def test_autocast_keeps_states_in_float32():
    layer = mt.Retention(32, 4)
    x = torch.randn(2, 50, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, return_state=True)
        recurrent = layer(x, mode="recurrent")
    assert state.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)
    torch.testing.assert_close(y, recurrent, atol=0.02, rtol=0.02)


def test_a_long_stream_keeps_its_precision():
    """Angles of position 10⁵ in float32 would be off by thousandths; here only differences of positions are formed."""
    layer = mt.Retention(16, 2)
    x = torch.randn(1, 40, 16)
    _, state = layer(torch.randn(1, 100_000, 16), return_state=True)
    with_past = layer(x, state=state)
    double = copy.deepcopy(layer).double()
    torch.testing.assert_close(with_past, double(x.double(), state=state.double()).float(), atol=1e-5, rtol=0)


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
        (lambda: LAYER(CLIP, state=torch.zeros(2, 3, 8, 7)), ValueError, r"state must be \(2, 3, 8, 8\)"),
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
