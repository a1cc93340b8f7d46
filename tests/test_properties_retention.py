"""Laws of retention along time and over maps, whatever the lengths, chunks, decays and cuts."""

import pytest
import torch
from brute_force import naive_retention as naive
from hypothesis import example, given
from hypothesis import strategies as st

import mertools as mt
from mertools.retention.forms import chunkwise_retention, recurrent_retention, retention_step, two_sided_retention
from mertools.retention.layer import RetentionState
from mertools.retention.manhattan import axial_attention, manhattan_attention

SEEDS = st.integers(0, 2**32 - 1)
EXACT = {"rtol": 0, "atol": 1e-10}
FORMS = st.tuples(st.sampled_from(["parallel", "chunkwise", "recurrent", "auto"]), st.integers(1, 50))


@st.composite
def layers(draw, **fixed):
    """A small layer in float64, of any settings."""
    heads, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    decays = draw(st.none() | st.lists(st.floats(1e-6, 1), min_size=heads, max_size=heads))
    learnable = decays is None and draw(st.booleans())
    settings = {
        "value_dim": heads * draw(st.integers(1, 4)), "decay": decays, "learnable_decay": learnable,
        "rotary": draw(st.booleans()), "gate": draw(st.booleans()),
    } | fixed  # fmt: skip
    torch.manual_seed(draw(SEEDS))
    return mt.Retention(2 * pairs * heads, heads, **settings).double()


@st.composite
def streams(draw, **fixed):
    """A layer, a batch of clips, and how long each of them is."""
    layer = draw(layers(**fixed))
    b, t = draw(st.integers(1, 3)), draw(st.integers(0, 40))
    x = torch.randn(b, t, layer.dim, dtype=torch.float64)
    return layer, x, draw(st.lists(st.integers(0, t), min_size=b, max_size=b))


def frames(clip, low=0):
    return st.integers(low, max(clip.shape[1] - 1, low))


@given(streams(), FORMS)
def test_every_form_is_the_definition(stream, form):
    layer, x, _ = stream
    mode, chunk_size = form
    torch.testing.assert_close(layer(x, mode=mode, chunk_size=chunk_size), naive(layer, x), **EXACT)


@given(streams(causal=False), st.sampled_from(["parallel", "chunkwise", "auto"]), st.integers(1, 50))
def test_both_directions_are_the_definition(stream, mode, chunk_size):
    layer, x, lengths = stream
    torch.testing.assert_close(layer(x, mode=mode, chunk_size=chunk_size), naive(layer, x, causal=False), **EXACT)
    y = layer(x, mode=mode, chunk_size=chunk_size, lengths=lengths)
    for row, clip, n in zip(y, x, lengths, strict=True):
        torch.testing.assert_close(row[:n], naive(layer, clip[None, :n], causal=False)[0], **EXACT)
        assert not row[n:].any()


@given(streams(), st.lists(st.integers(0, 40), max_size=5).map(sorted), st.lists(FORMS, min_size=6, max_size=6))
def test_a_clip_may_be_cut_anywhere(stream, cuts, forms):
    """Every piece in a form and chunk of its own; a piece of one frame also as a step."""
    layer, x, _ = stream
    whole, last = layer(x, return_state=True)
    state, pieces = None, []
    for part, (mode, chunk_size) in zip(torch.tensor_split(x, cuts, 1), forms, strict=False):
        if part.shape[1] == 1 and mode == "auto":
            y, state = layer.step(part[:, 0], state)
            y = y[:, None]
        else:
            y, state = layer(part, mode=mode, chunk_size=chunk_size, state=state, return_state=True)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, **EXACT)
    torch.testing.assert_close(tuple(state), tuple(last), **EXACT)


@given(streams(), FORMS, st.sampled_from([0.0, 1e30, torch.nan, torch.inf]), st.booleans())
def test_padding_is_not_there(stream, form, filler, carried):
    layer, x, lengths = stream
    mode, chunk_size = form
    before = None
    if carried:
        _, before = layer(torch.randn(len(x), 5, layer.dim).double(), return_state=True)
    padded = x.clone()
    for row, n in zip(padded, lengths, strict=True):
        row[n:] = filler
    y, state = layer(
        padded, mode=mode, chunk_size=chunk_size, lengths=lengths, state=before, return_state=True
    )  # fmt: skip
    for i, n in enumerate(lengths):
        first = None if before is None else RetentionState(*(part[i : i + 1] for part in before))
        alone, after = layer(x[i : i + 1, :n], state=first, return_state=True)
        torch.testing.assert_close(y[i, :n], alone[0], **EXACT)
        assert not y[i, n:].any()
        torch.testing.assert_close(state.memory[i], after.memory[0], **EXACT)
        assert state.position[i] == after.position[0] == n + 5 * carried


@given(streams(), FORMS, st.data())
def test_what_happens_at_a_frame_changes_nothing_before_it(stream, form, data):
    layer, x, _ = stream
    if not x.shape[1]:
        return
    mode, chunk_size = form
    k = data.draw(frames(x))
    changed = x.clone()
    changed[:, k:] += torch.randn_like(changed[:, k:])
    before, after = (layer(clip, mode=mode, chunk_size=chunk_size) for clip in (x, changed))
    assert torch.equal(before[:, :k], after[:, :k])
    leaf = x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(leaf, mode=mode, chunk_size=chunk_size)[:, :k].sum(), leaf)
    assert not gradient[:, k:].any()


@given(streams(), FORMS, st.data())
def test_a_clip_does_not_see_its_neighbours(stream, form, data):
    layer, x, _ = stream
    mode, chunk_size = form
    i = data.draw(st.integers(0, len(x) - 1))
    alone = layer(x[i : i + 1], mode=mode, chunk_size=chunk_size)
    torch.testing.assert_close(layer(x, mode=mode, chunk_size=chunk_size)[i : i + 1], alone, **EXACT)


@given(streams(), FORMS, st.integers(0, 70))
def test_memory_fades_by_the_decay_of_its_head(stream, form, rest):
    """Frames of zeros add nothing: what is remembered shrinks by γ each, and by nothing else."""
    layer, x, _ = stream
    mode, chunk_size = form
    _, state = layer(x, return_state=True)
    nothing = torch.zeros(len(x), rest, layer.dim, dtype=torch.float64)
    _, later = layer(nothing, mode=mode, chunk_size=chunk_size, state=state, return_state=True)
    gamma = layer._log_decay().exp()
    torch.testing.assert_close(later.memory, state.memory * gamma[:, None, None] ** rest, **EXACT)
    assert bool((later.memory.abs() <= state.memory.abs() + 1e-12).all())
    assert torch.equal(later.position, state.position + rest)


@given(st.integers(1, 12), st.booleans())
def test_decay_falls_with_distance_and_rises_with_the_head(heads, causal):
    """One key of ones among queries of ones: the output is γ to the power of the distance."""
    t, at = 9, 4
    log_decay = mt.Retention(2 * heads, heads).double()._log_decay()
    assert bool((log_decay[1:] > log_decay[:-1]).all())
    q = torch.ones(1, heads, t, 1, dtype=torch.float64)
    v = torch.zeros_like(q)
    v[:, :, at] = 1
    run = chunkwise_retention(q, q, v, log_decay, chunk_size=4)[0] if causal else two_sided_retention(
        q, q, v, log_decay, chunk_size=4)  # fmt: skip
    weight = run[0, :, :, 0]
    assert not causal or not weight[:, :at].any()
    torch.testing.assert_close(weight[:, at:], log_decay.exp()[:, None] ** torch.arange(t - at), **EXACT)
    assert bool((weight[:, at + 1 :] < weight[:, at:-1]).all())
    if not causal:
        torch.testing.assert_close(weight, weight.flip(1), **EXACT)


@given(streams(causal=False, rotary=False), st.integers(1, 50))
def test_both_directions_are_alike(stream, chunk_size):
    layer, x, _ = stream
    backwards = layer(x.flip(1), chunk_size=chunk_size)
    torch.testing.assert_close(backwards.flip(1), layer(x, chunk_size=chunk_size), **EXACT)


# --- the functions --------------------------------------------------------------------------------------------------


@st.composite
def heads(draw):
    b, n, t, dk, dv = (draw(st.integers(*size)) for size in ((1, 2), (1, 3), (0, 24), (1, 3), (1, 3)))
    torch.manual_seed(draw(SEEDS))
    q, k = (torch.randn(b, n, t, dk, dtype=torch.float64) for _ in range(2))
    memory = torch.randn(b, n, dk, dv, dtype=torch.float64) if draw(st.booleans()) else None
    return q, k, torch.randn(b, n, t, dv, dtype=torch.float64), -3 * torch.rand(n, dtype=torch.float64), memory


def by_loops(q, k, v, log_decay, memory):
    """``O_n = q_n S_n`` with ``S_n = γ S_(n−1) + k_nᵀ v_n``, a number at a time where that is not too slow."""
    gamma, output = log_decay.exp(), torch.zeros_like(v)
    s = torch.zeros(*q.shape[:2], q.shape[3], v.shape[3]).double() if memory is None else memory.clone()
    for i in range(q.shape[2]):
        for head in range(q.shape[1]):
            s[:, head] *= gamma[head]
            s[:, head] += k[:, head, i, :, None] * v[:, head, i, None]
            output[:, head, i] = (q[:, head, i, :, None] * s[:, head]).sum(1)
    return output, s


@given(heads(), st.integers(1, 30), st.data())
def test_functions_are_the_recurrence(drawn, chunk_size, data):
    q, k, v, log_decay, memory = drawn
    expected, last = by_loops(*drawn)
    output, after = chunkwise_retention(q, k, v, log_decay, memory=memory, chunk_size=chunk_size)
    torch.testing.assert_close((output, after), (expected, last), **EXACT)
    output, _ = chunkwise_retention(q, k, v, log_decay, memory=memory, chunk_size=chunk_size, remember=False)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(recurrent_retention(q, k, v, log_decay, memory=memory), (expected, last), **EXACT)

    b, _, t, _ = q.shape
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, t), min_size=b, max_size=b)))
    real = (torch.arange(t) < lengths[:, None])[:, None, :, None]
    ends = [by_loops(*(x[i : i + 1, :, :n] for x in (q, k, v)), log_decay, None if memory is None else memory[i : i + 1])
            for i, n in enumerate(lengths)]  # fmt: skip
    for run, more in ((chunkwise_retention, {"chunk_size": chunk_size}), (recurrent_retention, {})):
        _, after = run(q, k * real, v * real, log_decay, memory=memory, lengths=lengths, **more)
        torch.testing.assert_close(after, torch.cat([state for _, state in ends]), **EXACT)
    if t:
        step = retention_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], log_decay, memory)
        torch.testing.assert_close(step[0], expected[:, :, 0], **EXACT)


@given(heads(), st.integers(1, 30))
def test_two_sided_is_past_and_future_less_the_present(drawn, chunk_size):
    q, k, v, log_decay, _ = drawn
    past, _ = by_loops(q, k, v, log_decay, None)
    future, _ = by_loops(*(x.flip(2) for x in (q, k, v)), log_decay, None)
    present = (q * k).sum(-1, keepdim=True) * v
    expected = past + future.flip(2) - present
    torch.testing.assert_close(two_sided_retention(q, k, v, log_decay, chunk_size=chunk_size), expected, **EXACT)


@given(heads(), st.integers(1, 30))
@example((*torch.ones(3, 1, 1, 20, 1).double(), torch.tensor([-700.0]).double(), None), 20)
def test_forms_agree_in_float32(drawn, chunk_size):
    q, k, v, log_decay, memory = (None if x is None else x.float() for x in drawn)
    output, _ = chunkwise_retention(q, k, v, log_decay, memory=memory, chunk_size=chunk_size)
    expected, _ = by_loops(*drawn)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-4)


# --- an encoder of them ---------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 20), st.integers(0, 20), st.booleans())
def test_an_encoder_is_causal_and_may_be_cut(seed, t, cut, one_by_one):
    torch.manual_seed(seed)
    encoder = mt.RetNetTemporal(8, depth=2, num_heads=2).double().eval()
    x = torch.randn(2, t, 8, dtype=torch.float64)
    whole = encoder(x)
    first, state = encoder(x[:, :cut], return_state=True)
    torch.testing.assert_close(first, whole[:, :cut], **EXACT)
    if cut < t:
        torch.testing.assert_close(encoder(x[:, cut:], state=state), whole[:, cut:], **EXACT)
    lengths = [min(cut, t), t]
    padded = x.clone()
    padded[0, lengths[0] :] = torch.nan
    y = encoder(padded, lengths=lengths)
    torch.testing.assert_close(y[0, : lengths[0]], whole[0, : lengths[0]], **EXACT)
    torch.testing.assert_close(y[1], whole[1], **EXACT)


# --- over maps ------------------------------------------------------------------------------------------------------


@st.composite
def maps(draw):
    grid = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    b, n, d = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    torch.manual_seed(draw(SEEDS))
    return (*torch.randn(3, b, *grid, n, d, dtype=torch.float64).unbind(0), -torch.rand(n, dtype=torch.float64))


@given(maps(), st.data())
def test_distance_has_no_direction(drawn, data):
    """A map in the mirror gives the mirrored result; turned by a quarter too, where no axis comes before another."""
    *qkv, log_decay = drawn
    grid = range(1, qkv[0].ndim - 2)
    axis = data.draw(st.sampled_from(grid))
    for attention in (manhattan_attention, axial_attention):
        expected = attention(*qkv, log_decay)
        mirrored = attention(*(x.flip(axis) for x in qkv), log_decay)
        torch.testing.assert_close(mirrored.flip(axis), expected, **EXACT)
    first, second = data.draw(st.permutations(grid))[:2]
    turned = manhattan_attention(*(x.transpose(first, second) for x in qkv), log_decay)
    torch.testing.assert_close(turned.transpose(first, second), manhattan_attention(*qkv, log_decay), **EXACT)


@given(maps())
def test_attention_over_a_map_is_a_mean(drawn):
    """Weights are positive and sum to one: equal values come back, and none is exceeded."""
    q, k, v, log_decay = drawn
    for attention in (manhattan_attention, axial_attention):
        ones = attention(q, k, torch.ones_like(v), log_decay)
        torch.testing.assert_close(ones, torch.ones_like(v), **EXACT)
        y = attention(q, k, v, log_decay)
        flat = v.flatten(1, -3)
        low, high = (bound.view(len(v), *[1] * (v.ndim - 3), *v.shape[-2:]) for bound in (flat.amin(1), flat.amax(1)))
        assert bool(((y >= low - 1e-9) & (y <= high + 1e-9)).all())


@given(SEEDS, st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_maps_do_not_see_their_neighbours(seed, h, w, decomposed):
    torch.manual_seed(seed)
    layer = mt.ManhattanRetention(12, 2, decomposed=decomposed).double()
    x = torch.randn(3, h, w, 12, dtype=torch.float64)
    alone = torch.cat([layer(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(layer(x), alone, **EXACT)


@pytest.mark.parametrize("decomposed", [False, True])
def test_near_places_matter_more(decomposed):
    """With nothing but distance to go by, weight falls with it."""
    attention = axial_attention if decomposed else manhattan_attention
    q = torch.zeros(1, 5, 7, 1, 1, dtype=torch.float64)
    v = torch.zeros_like(q)
    v[0, 2, 3] = 1
    y = attention(q, q, v, torch.tensor([-0.5], dtype=torch.float64))[0, :, :, 0, 0]
    column, row = y[:, 3], y[2]
    assert bool((column[2:-1] > column[3:]).all())
    assert bool((column[1:3] > column[:2]).all())
    assert bool((row[3:-1] > row[4:]).all())
    assert bool((row[1:4] > row[:3]).all())
