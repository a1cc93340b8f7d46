"""What a host does with an nn.LSTM works with the layer in its place."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import mertools as mt


def encoder(**settings):
    return mt.RetNetTemporal(14, 2, 7, **settings)


LSTMS = {
    "plain": nn.LSTM(14, 14, batch_first=True),
    "wide": nn.LSTM(11, 28, num_layers=3, batch_first=True),
    "both ways": nn.LSTM(14, 7, num_layers=2, batch_first=True, bidirectional=True, dropout=0.3),
    "time first": nn.LSTM(14, 28),
    "projected": nn.LSTM(14, 28, proj_size=14, batch_first=True),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LSTMS)
def test_in_the_place_of_an_lstm(name):
    """Shapes of output and hidden state, and the attributes that hosts read."""
    lstm = LSTMS[name]
    net = mt.LSTMShape.like(lstm, num_heads=7)
    x = torch.randn(5, 3, lstm.input_size)
    wanted, (h, _) = lstm(x)
    got, (ours, _) = net(x)
    net.flatten_parameters()
    assert got.shape == wanted.shape
    directions = 2 if lstm.bidirectional else 1
    assert ours.shape == h[-directions:].shape
    for attribute in ("input_size", "num_layers", "bidirectional", "batch_first"):
        assert getattr(net, attribute) == getattr(lstm, attribute)
    assert net.hidden_size == (lstm.proj_size or lstm.hidden_size)
    got.sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


def test_it_is_the_encoder():
    net, x = mt.LSTMShape(encoder()), torch.randn(2, 9, 14)
    output, (h, _) = net(x)
    assert torch.equal(output, net.encoder(x))
    assert torch.equal(h, output[None, :, -1])
    wide = mt.LSTMShape(encoder(), 28, input_size=11)
    x = torch.randn(2, 9, 11)
    torch.testing.assert_close(wide(x)[0], wide.after(wide.encoder(wide.before(x))))


def test_a_stream_goes_on_with_the_state():
    net, x = mt.LSTMShape(encoder(), 28).double(), torch.randn(2, 9, 14, dtype=torch.float64)
    whole, (last, _) = net(x)
    first, hx = net(x[:, :5])
    rest, (h, _) = net(x[:, 5:], hx)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(h, last)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_packed_and_padded_batches(causal, batch_first):
    net = mt.LSTMShape(encoder(causal=causal), batch_first=batch_first)
    clips = [torch.randn(n, 14) for n in (4, 9, 2)]
    packed = pack_padded_sequence(
        nn.utils.rnn.pad_sequence(clips, batch_first), [4, 9, 2], batch_first, enforce_sorted=False
    )
    output, (h, _) = net(packed)
    found, lengths = pad_packed_sequence(output, batch_first=True)
    assert lengths.tolist() == [4, 9, 2]
    for i, clip in enumerate(clips):
        alone, (one, _) = net(clip[None] if batch_first else clip[:, None])
        torch.testing.assert_close(found[i, : len(clip)], alone.view(-1, 14), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(h[:, i], one[:, 0], atol=1e-5, rtol=1e-5)


def test_the_hidden_state_of_two_directions_has_seen_all():
    """As an LSTM's: forwards it is the last frame's, backwards the first frame's."""
    net, x = mt.LSTMShape(encoder(causal=False)), torch.randn(2, 9, 14)
    output, (h, state) = net(x)
    assert torch.equal(h[0], output[:, -1, :7])
    assert torch.equal(h[1], output[:, 0, 7:])
    assert state == ()


def test_saved_and_built_again(tmp_path):
    pytest.importorskip("safetensors")
    net = mt.LSTMShape.like(LSTMS["wide"], num_heads=7).eval()
    loaded = mt.load_model(mt.save_model(net, tmp_path))
    x = torch.randn(2, 5, 11)
    assert torch.equal(loaded(x)[0], net(x)[0])
    assert torch.equal(copy.deepcopy(net)(x)[0], net(x)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.LSTMShape(nn.Identity()), TypeError, "encoder must be a RetNetTemporal, got Identity"),
        (lambda: mt.LSTMShape(encoder(stem=nn.Conv2d(3, 14, 3))), ValueError, "has a stem for images"),
        (lambda: mt.LSTMShape(encoder(causal=False), 7), ValueError, "output_size must be even"),
        (lambda: mt.LSTMShape(encoder(), 0), ValueError, "output_size must be a positive integer"),
        (lambda: mt.LSTMShape.like(nn.GRU(3, 4)), TypeError, "lstm must be an nn.LSTM, got GRU"),
        (lambda: mt.LSTMShape(encoder())(torch.zeros(2, 14)), ValueError, r"x must be \(b, t, 14\)"),
        (lambda: mt.LSTMShape(encoder())(torch.zeros(2, 0, 14)), ValueError, "at least one frame"),
        (
            lambda: mt.LSTMShape(encoder(causal=False))(torch.zeros(2, 3, 14), (torch.zeros(1), ())),
            ValueError,
            "hx must be None for an encoder of two directions",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
