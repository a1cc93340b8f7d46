"""A network of images over the frames of clips: any of yours, or one of timm's by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mertools._checks import check_floating
from mertools.layers.arguments import records_arguments
from mertools.layers.padding import check_lengths, valid_mask

__all__ = ["FrameEncoder"]


@records_arguments
class FrameEncoder(nn.Module):
    """Features of every frame, ``(b, t, c, h, w) -> (b, t, d)``, for a temporal encoder; 0 beyond a clip's length.

    Args:
        net: a network from images ``(n, c, h, w)`` to features ``(n, d)``; or the name of one of timm's models (extra
            ``timm``), which is built without its classifier.
        pretrained: timm's weights, which are downloaded; only with a name.

    Examples:
        >>> import torch
        >>> images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> FrameEncoder(images)(torch.zeros(2, 16, 3, 32, 32)).shape
        torch.Size([2, 16, 8])
    """

    def __init__(self, net: nn.Module | str, *, pretrained: bool = False) -> None:
        super().__init__()
        if isinstance(net, str):
            net = _timm_model(net, pretrained)
        elif not isinstance(net, nn.Module):
            raise TypeError(f"net must be an nn.Module or the name of a timm model, got {type(net).__name__}")
        elif pretrained:
            raise ValueError("pretrained must be False for a network of yours: load its weights yourself")
        self.net = net

    def forward(self, clips: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Features of the frames of ``clips``; padding does not pass the network."""
        check_floating("clips", clips, "(b, t, c, h, w)", hint="normalise first, e.g. clips.float() / 255")
        if clips.ndim != 5:
            raise ValueError(f"clips must be (b, t, c, h, w), got shape {tuple(clips.shape)}")
        b, t = clips.shape[:2]
        frames = clips.flatten(0, 1)
        if lengths is None:
            features = self._features(frames)
        else:
            valid = valid_mask(check_lengths(lengths, b, t, least=0).to(clips.device), t, clips.device).flatten()
            some = self._features(frames[valid])
            features = some.new_zeros(b * t, *some.shape[1:])
            features[valid] = some
        return features.view(b, t, features.shape[-1])

    def _features(self, frames: Tensor) -> Tensor:
        features = self.net(frames)
        if not isinstance(features, Tensor) or features.ndim != 2:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"net must return features (n, d) of images (n, c, h, w), got {got}: pool its map first")
        return features


def _timm_model(name: str, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"FrameEncoder({name!r}) needs timm: pip install 'mertools[timm]'") from error
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:4])
        hint = f": did you mean {near}?" if near else ""
        raise ValueError(f"net must be one of timm's models, got {name!r}{hint}")
    net: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    return net  # type: ignore[no-any-return]
