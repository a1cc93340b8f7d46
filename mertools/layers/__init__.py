"""Layers that several models share: spatial transformer, parallel fusion, frame pooling, drop path, padding, buffers.

Start with ``fusion.py``: TSFmicro's parallel fusion. ``arguments.py`` remembers what a module was built with.
Hands on: ``nn.Module``s on maps ``(b, d, h, w)`` and tokens ``(b, t, d)``.
"""
