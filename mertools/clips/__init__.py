"""Clips as tensors: reading, resampling, flow, magnification, augmentation, and synthetic clips with known truth.

Start with ``read.py``: a video or a folder of frames as a ``(t, 3, h, w)`` uint8 tensor.
Hands on: tensors of frames; ``SyntheticClip`` with its true key frames.
"""
