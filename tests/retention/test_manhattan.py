import copy
import pickle
import threading

import pytest
import torch

import mertools as mt
from mertools.retention import manhattan
from mertools.retention.manhattan import TableCache


def naive(layer, x):
    """REFERENCE §3 written out: explicit score matrices, positions one by one."""
    b, h, w, d = x.shape
    n, width = layer.num_heads, d // layer.num_heads
    q, k, v = layer.qkv(x).split(d, -1)
    local = layer.local(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    angle = torch.repeat_interleave(1 / 10000 ** torch.linspace(0, 1, width // 2, dtype=torch.float64), 2)

    def rotated(part):
        part = part.reshape(b, h, w, n, width).clone()
        for i in range(h):
            for j in range(w):
                theta = (i * w + j) * angle
                y = part[:, i, j]
                swapped = torch.stack((-y[..., 1::2], y[..., 0::2]), -1).flatten(-2)
                part[:, i, j] = y * theta.cos() + swapped * theta.sin()
        return part

    q, k, v = rotated(q), rotated(k), v.reshape(b, h, w, n, width)
    out = torch.zeros_like(v)
    for head in range(n):
        log_gamma = layer.log_decay[head]
        qh, kh, vh = q[..., head, :], k[..., head, :], v[..., head, :]
        if layer.decomposed:
            column, row = torch.arange(w), torch.arange(h)
            scores = torch.einsum("bijd,bikd->bijk", qh, kh) / width**0.5
            scores = scores + log_gamma * (column[:, None] - column).abs()
            along = torch.einsum("bijk,bikd->bijd", scores.softmax(-1), vh)
            scores = torch.einsum("bijd,bkjd->bjik", qh, kh) / width**0.5
            scores = scores + log_gamma * (row[:, None] - row).abs()
            out[..., head, :] = torch.einsum("bjik,bkjd->bijd", scores.softmax(-1), along)
        else:
            scores = torch.einsum("bijd,bkld->bijkl", qh, kh) / width**0.5
            rows, columns = torch.arange(h), torch.arange(w)
            apart = (rows.view(h, 1, 1, 1) - rows.view(1, 1, h, 1)).abs() + (
                columns.view(1, w, 1, 1) - columns.view(1, 1, 1, w)
            ).abs()
            weights = (scores + log_gamma * apart).flatten(3).softmax(-1).view(scores.shape)
            out[..., head, :] = torch.einsum("bijkl,bkld->bijd", weights, vh)
    return layer.out_proj(out.reshape(b, h, w, d) + local)


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (5, 2)])
def test_equals_the_definition(decomposed, size):
    layer = mt.ManhattanRetention(12, 3, decomposed=decomposed, decay_init=1.0, decay_range=3.0).double()
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x), naive(layer, x), rtol=0, atol=1e-12)


def test_decay_is_that_of_the_paper():
    layer = mt.ManhattanRetention(16, 2, decay_init=2.0, decay_range=6.0)
    expected = torch.log(1 - 2.0 ** -torch.tensor([2.0, 5.0], dtype=torch.float64))
    torch.testing.assert_close(layer.log_decay.double(), expected, rtol=1e-6, atol=0)


def test_the_forms_are_equal_on_one_row():
    full = mt.ManhattanRetention(8, 2)
    decomposed = mt.ManhattanRetention(8, 2, decomposed=True)
    decomposed.load_state_dict(full.state_dict())
    x = torch.randn(2, 1, 7, 8)
    torch.testing.assert_close(full(x), decomposed(x))


@pytest.mark.parametrize("decomposed", [False, True])
def test_gradcheck(decomposed):
    layer = mt.ManhattanRetention(4, 2, decomposed=decomposed).double()
    x = torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("decomposed", [False, True])
def test_autocast_stays_close(decomposed):
    layer = mt.ManhattanRetention(32, 2, decomposed=decomposed)
    x = torch.randn(2, 7, 5, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.03, rtol=0.03)


@pytest.mark.parametrize(("size", "out"), [((64, 64), (4, 4)), ((61, 37), (4, 3)), ((16, 1), (1, 1))])
def test_backbone_takes_any_size(size, out):
    net = mt.ManhattanRetNet(5, dims=(4, 8, 12, 16)).eval()
    x = torch.randn(2, 5, *size)
    y = net(x)
    assert y.shape == (2, 16, *out)
    assert torch.equal(net.stages(net.stem(x)), y)


def test_backbone_does_not_mix_the_batch():
    net = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval()
    x = torch.randn(3, 3, 32, 48)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), atol=1e-5, rtol=1e-4)


def test_memory_layout_of_the_input_does_not_matter():
    net = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval()
    x = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), net(x))


def test_drop_path_rises_to_its_rate():
    net = mt.ManhattanRetNet(dims=(4, 8, 12, 16), depths=(1, 2, 1, 1), drop_path=0.2)
    rates = [block.drop_path.rate for stage in net.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.ManhattanRetention(10, 3), ValueError, "multiple of 2"),
        (lambda: mt.ManhattanRetention(0, 2), ValueError, "dim must be a positive integer"),
        (lambda: mt.ManhattanRetention(8, 2, decay_init=0), ValueError, "decay_init must be positive"),
        (lambda: mt.ManhattanRetention(8, 2)(torch.zeros(1, 8, 3, 3)), ValueError, r"x must be \(b, h, w, 8\)"),
        (lambda: mt.ManhattanRetNet(depths=(1, 1)), ValueError, "depths must have one value for each of the 4"),
        (lambda: mt.ManhattanRetNet(drop_path=1.0), ValueError, r"drop_path must be in \[0, 1\)"),
        (lambda: mt.ManhattanRetNet(dims=(4, 8))(IMAGE), ValueError, "must have one value for each of the 2 stages"),
        (lambda: mt.ManhattanRetNet(2, dims=(4, 4, 4, 4))(IMAGE), ValueError, r"x must be \(b, 2, h, w\)"),
        (lambda: mt.ManhattanRetNet(dims=(4, 4, 4, 4))(IMAGE.byte()), TypeError, "x must be floating, got torch.uint8"),
        (lambda: mt.ManhattanRetNet(dims=(4, 4, 4, 4))([1]), TypeError, "x must be a torch.Tensor"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("decomposed", [False, True])
def test_one_frame_is_the_two_dimensional_form(decomposed):
    layer = mt.ManhattanRetention(12, 3, decomposed=decomposed).double()
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x[:, None])[:, 0], layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decomposed", [False, True])
def test_decay_along_time(decomposed):
    """``(b, t, h, w, d)`` against scores written out position by position."""
    layer = mt.ManhattanRetention(12, 3, decomposed=decomposed).double()
    b, t, h, w, n, d = 2, 3, 2, 5, 3, 4
    x = torch.randn(b, t, h, w, 12, dtype=torch.float64)
    q, k, v = layer.qkv(x).split(12, -1)
    local = torch.stack([layer.local(frame.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for frame in v.unbind(1)], 1)
    angle = 1 / 10000 ** torch.linspace(0, 1, d // 2, dtype=torch.float64)
    turn = torch.polar(torch.ones((), dtype=torch.float64), torch.arange(t * h * w)[:, None] * angle)
    q, k = (
        torch.view_as_real(torch.view_as_complex(y.reshape(b, t * h * w, n, d // 2, 2)) * turn[:, None]).flatten(3)
        for y in (q, k)
    )
    place = torch.cartesian_prod(torch.arange(t), torch.arange(h), torch.arange(w))
    apart = (place[:, None] - place).abs()  # (p, p, 3)
    scores = torch.einsum("bpnd,bqnd->bnpq", q, k) / d**0.5
    y = v.reshape(b, t * h * w, n, d)
    if decomposed:
        for axis in (2, 1, 0):
            same_line = (apart.sum(-1) - apart[..., axis]) == 0
            biased = scores + layer.log_decay[:, None, None] * apart[..., axis]
            y = torch.einsum("bnpq,bqnd->bpnd", biased.masked_fill(~same_line, -torch.inf).softmax(-1), y)
    else:
        biased = scores + layer.log_decay[:, None, None] * apart.sum(-1)
        y = torch.einsum("bnpq,bqnd->bpnd", biased.softmax(-1), y)
    expected = layer.out_proj(y.reshape(b, t, h, w, 12) + local)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_a_large_map_in_pieces(monkeypatch):
    """The bias of a large map never exists whole; the result is the same."""
    layer = mt.ManhattanRetention(12, 3).double()
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    expected = layer(x)
    monkeypatch.setattr(manhattan, "_BIAS_LIMIT", 3 * 35 * 4)
    made = []
    plain = manhattan._bias
    monkeypatch.setattr(manhattan, "_bias", lambda *args: made.append(plain(*args).shape) or plain(*args))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    assert made == [(3, 4, 35)] * 8 + [(3, 3, 35)]


def test_features_are_a_pyramid():
    net = mt.ManhattanRetNet(dims=(4, 8, 12, 16)).eval()
    x = torch.randn(2, 3, 64, 96)
    maps = net.features(x)
    assert [tuple(m.shape) for m in maps] == [(2, 4, 32, 48), (2, 8, 16, 24), (2, 12, 8, 12), (2, 16, 4, 6)]
    assert torch.equal(maps[-1], net(x))
    pyramid = mt.ManhattanRetNet(dims=(4, 8, 12, 16), features_only=True).eval()
    pyramid.load_state_dict(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(pyramid(x), maps, strict=True))


def test_checkpointing_changes_memory_only():
    torch.manual_seed(0)
    plain = mt.ManhattanRetNet(dims=(4, 8, 12, 16), drop_path=0.5)
    saving = mt.ManhattanRetNet(dims=(4, 8, 12, 16), drop_path=0.5, checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(5, 3, 33, 47)
    kept = {}
    for net in (plain, saving):
        torch.manual_seed(1)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            net(x).square().sum().backward()
        kept[net] = sum(saved)
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)  # batch norm counted every image once
    assert kept[saving] < 0.7 * kept[plain]


# --- tables by size -----------------------------------------------------------------------------------------------------


def counting(cache, source=None):
    made = []

    def get(key):
        return cache.get(key, lambda: made.append(key) or torch.full((2,), float(len(made))), source=source)

    return get, made


def test_keeps_the_last_few():
    cache = TableCache(limit=2)
    get, made = counting(cache)
    first = get("a")
    assert get("a") is first
    get("b")
    get("c")
    assert len(cache) == 2
    get("a")
    assert made == ["a", "b", "c", "a"]


def test_a_table_ends_with_its_source():
    source = torch.zeros(3)
    cache = TableCache()
    get, made = counting(cache, source)
    get("a")
    get("a")
    source.add_(1)
    get("a")
    assert len(made) == 2
    get, more = counting(cache, source.clone())
    get("a")
    assert len(more) == 1


def test_copies_start_empty():
    cache = TableCache(3)
    counting(cache)[0]("a")
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(other) == 0
        assert other.limit == 3


def test_tables_made_in_inference_mode_serve_a_later_backward():
    cache = TableCache()
    with torch.inference_mode():
        table = cache.get("a", lambda: torch.ones(2))
    assert not table.is_inference()


def test_nothing_is_kept_of_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    cache = TableCache()
    with FakeTensorMode():
        cache.get("a", lambda: torch.ones(2))
    assert len(cache) == 0


def test_a_backbone_keeps_few_tables_and_follows_its_decays():
    layer = mt.ManhattanRetention(8, 2)
    x = torch.randn(2, 3, 5, 8)
    before = layer(x)
    for side in range(1, 12):
        layer(torch.randn(1, side, side, 8))
    assert len(layer._tables) <= layer._tables.limit
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    other = mt.ManhattanRetention(8, 2, decay_init=0.5)
    state = layer.state_dict() | {"log_decay": other.log_decay}
    layer.load_state_dict(state)
    other.load_state_dict(state)
    assert not torch.equal(layer(x), before)
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=0)
    assert not any("tables" in key for key in layer.state_dict())


def test_threads_get_right_tables():
    layer = mt.ManhattanRetention(8, 2).eval()
    maps = [torch.randn(1, side, side + 1, 8) for side in range(1, 9)]
    expected = [copy.deepcopy(layer)(x).detach() for x in maps]
    wrong = []

    def work():
        for _ in range(5):
            for x, y in zip(maps, expected, strict=True):
                if not torch.allclose(layer(x).detach(), y, atol=1e-6):
                    wrong.append(x.shape)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
