"""Whole models: TSFmicro, GAMDSS's two branches around any network, and their weights in and out.

Start with ``tsfmicro.py``. ``pretrained.py`` reads published weights, ``hub.py`` saves and loads a model's folder,
``onnx.py`` exports.
Hands on: modules that map frames to logits.
"""
