"""A trained model made ready for prediction: the same numbers with fewer passes over memory.

In evaluation a batch norm is one multiplication and addition per channel, which the convolution or linear layer before
it can take over; the short cut around a depthwise convolution is one more in the middle of its kernel; and on a CPU
oneDNN computes a linear layer or convolution together with the GELU or the sum that follows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mertools.layers.fusion import ParallelFusion
from mertools.layers.spatial import TransformerBlock, self_attention
from mertools.retention.backbone import Block, LocalResidual

__all__ = ["fold_batch_norm", "fuse"]

Model = TypeVar("Model", bound=nn.Module)


def fuse(model: Model) -> Model:
    """A copy of a model for prediction, equal to it in evaluation and faster.

    Batch norms go into the convolution or linear layer before them, short cuts into depthwise kernels, and on a CPU in
    float32 activations and residual sums are computed with the layer before them. The model itself stays as it is.

    Args:
        model: a :class:`TSFmicro`, :class:`TwoBranch`, any other module of this library, or a module of yours that
            holds some. In ``nn.Sequential``, ``Conv2d`` followed by ``BatchNorm2d`` is folded whoever wrote it.
            Everything else is left alone, and so is a part with hooks on the layers that would go.

    Returns:
        The copy, in evaluation mode and without gradients. Train and save the original: the copy has other parameters.

    Raises:
        TypeError: the model is no module.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()).eval()
        >>> fused = fuse(model)
        >>> print(fused)
        Sequential(
          (0): FusedConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), activation=gelu)
          (1): Identity()
          (2): Identity()
        )
        >>> x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(fused(x), model(x), atol=1e-6)
        True

    Source: ours; folding batch norms is usual since Jacob et al., CVPR 2018.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    with torch.no_grad():
        return cast(Model, _fused(copy.deepcopy(model)).eval().requires_grad_(False))


def fold_batch_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with its batch norm: ``γ/σ · W`` and ``γ/σ · (b − μ) + β``, computed in float64.

    Shape:
        - weight: ``(o, ...)``; bias: ``(o,)``; both of the result alike
    """
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    gain = (var + norm.eps).rsqrt() if norm.weight is None else norm.weight.double() * (var + norm.eps).rsqrt()
    shift = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    start = torch.zeros_like(mean) if bias is None else bias.double()
    folded = weight.double() * gain.view(-1, *[1] * (weight.ndim - 1))
    return folded.to(weight.dtype), (gain * (start - mean) + shift).to(weight.dtype)


class FusedConv2d(nn.Conv2d):
    """A convolution with the activation that follows; what :func:`fuse` puts in the place of both."""

    activation = "none"

    def forward(self, x: Tensor) -> Tensor:
        """``activation(conv(x))``."""
        if self.padding_mode == "zeros" and not isinstance(self.padding, str) and _onednn(x, self.weight):
            scheme = "none" if self.activation == "gelu" else ""
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups,
                self.activation, [], scheme,
            )  # fmt: skip
            return y
        x = super().forward(x)
        return F.gelu(x) if self.activation == "gelu" else x

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return shown + _shown(self.activation)


class FusedLinear(nn.Linear):
    """A linear layer with the activation that follows, or with a sum; what :func:`fuse` puts in their place."""

    activation = "none"

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """``activation(linear(x))``, or ``residual + linear(x)``."""
        if _onednn(x, self.weight):
            y: Tensor
            if residual is not None:
                y = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            else:
                scheme = "none" if self.activation == "gelu" else ""
                y = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], scheme)
            return y
        x = super().forward(x)
        if residual is not None:
            return residual + x
        return F.gelu(x) if self.activation == "gelu" else x

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return super().extra_repr() + _shown(self.activation)


class FusedBlock(nn.Module):
    """A block of the retention backbone, without drop path."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.position, self.local = _conv(block.position), _conv(block.ffn.local)
        self.retention_norm, self.retention, self.ffn_norm = block.retention_norm, block.retention, block.ffn_norm
        self.retention.qkv, self.retention.out_proj = _linear(block.retention.qkv), _linear(block.retention.out_proj)
        self.fc1, self.fc2 = _linear(block.ffn.fc1, "gelu"), _linear(block.ffn.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, h, w, d)`` to the same."""
        x = self.position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self.retention.out_proj(self.retention.mix(self.retention_norm(x)), x)
        y = self.local(self.fc1(self.ffn_norm(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.fc2(y, x)
        return out


class FusedTransformerBlock(nn.Module):
    """A block of the spatial branch, without drop path."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.num_heads = block.num_heads
        self.attention_norm, self.mlp_norm = block.attention_norm, block.mlp_norm
        self.qkv, self.out_proj = _linear(block.qkv), _linear(block.out_proj)
        self.fc1, self.fc2 = _linear(cast(nn.Linear, block.mlp[0]), "gelu"), _linear(cast(nn.Linear, block.mlp[2]))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, l, d)`` to the same."""
        x = self.out_proj(self_attention(self.qkv(self.attention_norm(x)), self.num_heads), x)
        out: Tensor = self.fc2(self.fc1(self.mlp_norm(x)), x)
        return out


def _fused(module: nn.Module) -> nn.Module:
    """The module, or what takes its place; its parts are replaced within it."""
    if isinstance(module, (Block, TransformerBlock)):
        if not _as_built(module):
            return module
        return FusedBlock(module) if isinstance(module, Block) else FusedTransformerBlock(module)
    for name, child in module.named_children():
        setattr(module, name, _fused(child))
    if isinstance(module, nn.Sequential):
        _fold_sequence(module)
    if isinstance(module, ParallelFusion) and _folds(module.norm) and type(module.lift) is nn.Linear:
        weight, bias = fold_batch_norm(module.lift.weight, module.lift.bias, module.norm)
        module.lift.weight, module.lift.bias = nn.Parameter(weight), nn.Parameter(bias)
        module.lift, module.norm = _linear(module.lift), cast(nn.BatchNorm2d, nn.Identity())
    return module


def _fold_sequence(layers: nn.Sequential) -> None:
    """Conv2d, BatchNorm2d and GELU, one after the other, become one layer; the last two the identity."""
    for i, conv in enumerate(layers):
        if type(conv) is not nn.Conv2d or not _as_built(conv):
            continue
        norm = layers[i + 1] if i + 1 < len(layers) and _folds(layers[i + 1]) else None
        place = i + 1 if norm is None else i + 2
        act = layers[place] if place < len(layers) else None
        fused = _conv(conv)
        if norm is not None:
            weight, bias = fold_batch_norm(conv.weight, conv.bias, cast(nn.BatchNorm2d, norm))
            fused.weight, fused.bias = nn.Parameter(weight), nn.Parameter(bias)
            layers[i + 1] = nn.Identity()
        if isinstance(act, nn.GELU) and act.approximate == "none" and _as_built(act):
            fused.activation = "gelu"
            layers[place] = nn.Identity()
        fused.weight.data = fused.weight.data.contiguous(memory_format=torch.channels_last)
        layers[i] = fused


def _folds(norm: nn.Module) -> bool:
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and _as_built(norm)


def _as_built(module: nn.Module) -> bool:
    """No hook that would be lost, no layer inside that somebody has put in the place of ours."""
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return False
    if isinstance(module, Block):
        retention, ffn = module.retention, module.ffn
        linear = [retention.qkv, retention.out_proj, ffn.fc1, ffn.fc2]
        return all(type(conv) is LocalResidual for conv in (module.position, ffn.local)) and _plain(linear)
    if isinstance(module, TransformerBlock):
        first, act, last = module.mlp
        return _plain([module.qkv, module.out_proj, first, last]) and type(act) is nn.GELU
    return True


def _plain(layers: Sequence[nn.Module]) -> bool:
    return all(type(layer) is nn.Linear for layer in layers)


def _conv(conv: nn.Conv2d) -> FusedConv2d:
    """The same convolution, with the short cut of a :class:`LocalResidual` in its kernel."""
    fused = FusedConv2d(
        conv.in_channels, conv.out_channels, _pair(conv.kernel_size), _pair(conv.stride), cast(str, conv.padding),
        _pair(conv.dilation), conv.groups, conv.bias is not None, conv.padding_mode, device="meta",
    )  # fmt: skip
    weight = conv.weight_of_sum() if isinstance(conv, LocalResidual) else conv.weight
    fused.weight, fused.bias = nn.Parameter(weight.detach()), conv.bias
    return fused


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    return size[0], size[1]


def _linear(layer: nn.Linear, activation: str = "none") -> FusedLinear:
    fused = FusedLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    fused.weight, fused.bias, fused.activation = layer.weight, layer.bias, activation
    return fused


def _onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's layer-with-activation can be called: private to PyTorch, so everything else works without."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and type(x) is Tensor
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _shown(activation: str) -> str:
    return "" if activation == "none" else f", activation={activation}"
