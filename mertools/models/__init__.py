"""Whole models: TSFmicro, GAMDSS's two branches around any network, and their weights in and out.

Start with ``tsfmicro.py``; ``two_branch.py`` and ``frame_encoder.py`` go around networks of yours. ``pretrained.py``
reads the weights of others, ``hub.py`` saves and loads a model's folder, ``onnx.py`` exports.
Hands on: modules that map frames to logits.
"""
