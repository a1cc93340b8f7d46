"""An encoder called as ``nn.LSTM`` is, for the place of one in a model whose code is not to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from mertools._checks import check_count, check_floating
from mertools.layers.arguments import records_arguments
from mertools.retention.layer import RetentionState
from mertools.retention.temporal import RetNetTemporal

__all__ = ["LSTMShape"]

State: TypeAlias = tuple[Tensor, tuple[RetentionState, ...]]


@records_arguments
class LSTMShape(nn.Module):
    """A :class:`RetNetTemporal` with the call of ``nn.LSTM``: ``output, (h, state) = net(x)``.

    ``x`` is ``(b, t, input_size)`` or a ``PackedSequence``, the output ``(b, t, output_size)``. ``h`` is the last valid
    output ``(1, b, output_size)``, as the top layer's hidden state is; ``(h, state)`` goes back in as ``(h, c)`` does.
    An encoder with ``causal=False`` is bidirectional: the halves of the output go as the two directions, its ``h``
    ``(2, b, output_size / 2)`` is that of the last frame's first half and of the first frame's second, and it takes no
    state.

    Args:
        encoder: what is done to the frames.
        output_size: width of the output where it is not the encoder's, as of ``nn.LSTM(d, hidden, bidirectional=True)``
            ``2 * hidden``: a linear layer behind the encoder.
        input_size: width of the input where it is not the encoder's: a linear layer before it.
        batch_first: x is ``(b, t, d)``, else ``(t, b, d)``.

    Examples:
        >>> net = LSTMShape(RetNetTemporal(64, depth=1, num_heads=4), output_size=128).eval()
        >>> output, (h, state) = net(torch.zeros(2, 16, 64))
        >>> output.shape, h.shape
        (torch.Size([2, 16, 128]), torch.Size([1, 2, 128]))
        >>> host = nn.LSTM(64, 32, num_layers=2, batch_first=True, bidirectional=True)
        >>> LSTMShape.like(host, num_heads=4)(torch.zeros(2, 16, 64))[0].shape  # host.lstm = LSTMShape.like(host.lstm)
        torch.Size([2, 16, 64])
    """

    def __init__(
        self,
        encoder: RetNetTemporal,
        output_size: int | None = None,
        *,
        input_size: int | None = None,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, RetNetTemporal):
            raise TypeError(f"encoder must be a RetNetTemporal, got {type(encoder).__name__}")
        if encoder.stem is not None:
            raise ValueError("encoder must take tokens (b, t, d) as an LSTM does, this one has a stem for images")
        self.encoder, self.batch_first = encoder, batch_first
        self.bidirectional = not encoder.causal
        self.num_layers = len(encoder.blocks)
        self.input_size = encoder.dim if input_size is None else check_count("input_size", input_size)
        self.output_size = encoder.dim if output_size is None else check_count("output_size", output_size)
        if self.bidirectional and self.output_size % 2:
            raise ValueError(f"output_size must be even for an encoder of two directions, got {self.output_size}")
        self.hidden_size = self.output_size // (2 if self.bidirectional else 1)
        width = encoder.dim
        self.before = nn.Identity() if self.input_size == width else nn.Linear(self.input_size, width)
        self.after = nn.Identity() if self.output_size == width else nn.Linear(width, self.output_size)

    @classmethod
    def like(cls, lstm: nn.LSTM, *, dim: int | None = None, num_heads: int = 8, **settings: Any) -> LSTMShape:
        """One for the place of ``lstm``: its widths, layers, direction, layout and device, with new weights.

        Args:
            lstm: the layer that is replaced.
            dim: width of the encoder, a multiple of ``2 * num_heads``; default the LSTM's output.
            num_heads: heads of the encoder.
            settings: others of :class:`RetNetTemporal`.
        """
        if not isinstance(lstm, nn.LSTM):
            raise TypeError(f"lstm must be an nn.LSTM, got {type(lstm).__name__}")
        width = (lstm.proj_size or lstm.hidden_size) * (2 if lstm.bidirectional else 1)
        encoder = RetNetTemporal(
            width if dim is None else dim, lstm.num_layers, num_heads, causal=not lstm.bidirectional, **settings
        )
        net = cls(encoder, width, input_size=lstm.input_size, batch_first=lstm.batch_first)
        like = next(lstm.parameters())
        return net.to(like.device, like.dtype).train(lstm.training)

    def forward(
        self,
        x: Tensor | PackedSequence,
        hx: State | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """Output and ``(h, state)``; ``hx`` is what an earlier call returned as that."""
        if isinstance(x, PackedSequence):
            padded, counts = pad_packed_sequence(x, self.batch_first)
            y, new = self._run(padded, hx, counts)
            return pack_padded_sequence(y, counts, self.batch_first, enforce_sorted=False), new
        return self._run(x, hx, lengths)

    def _run(self, x: Tensor, hx: State | None, lengths: Tensor | Sequence[int] | None) -> tuple[Tensor, State]:
        check_floating("x", x, f"(b, t, {self.input_size})")
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"x must be (b, t, {self.input_size}) for this layer, got shape {tuple(x.shape)}")
        if self.bidirectional and hx is not None:
            raise ValueError("hx must be None for an encoder of two directions, which waits for later frames")
        tokens = self.before(x if self.batch_first else x.transpose(0, 1))
        b, t = tokens.shape[:2]
        if t == 0:
            raise ValueError("x must have at least one frame, got none")
        state: tuple[RetentionState, ...] = ()
        if self.bidirectional:
            y = self.encoder(tokens, lengths=lengths)
        else:
            y, state = self.encoder(tokens, state=None if hx is None else hx[1], lengths=lengths, return_state=True)
        y = self.after(y)
        last = torch.full((b,), t - 1, device=y.device)
        if lengths is not None:
            last = torch.as_tensor(lengths, device=y.device).clamp(min=1) - 1
        h = y[torch.arange(b, device=y.device), last]
        split = self.hidden_size
        h = torch.stack((h[:, :split], y[:, 0, split:])) if self.bidirectional else h[None]
        return (y if self.batch_first else y.transpose(0, 1)), (h, state)

    def flatten_parameters(self) -> None:
        """Nothing: an LSTM's weights are laid out anew for cuDNN, these are used as they are."""

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"{self.input_size}, {self.output_size}, batch_first={self.batch_first}"
