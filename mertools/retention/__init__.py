"""TSFmicro's "how": retention along time and on maps, the backbone made of it, and the temporal encoder.

Start with ``layer.py`` for tokens ``(b, t, d)`` and ``backbone.py`` for images; ``forms.py`` has the three equal forms,
``temporal.py`` the encoder, ``lstm_shape.py`` puts it in the place of an ``nn.LSTM``.
Hands on: ``Retention``, ``RetNetTemporal``, ``LSTMShape``, ``ManhattanRetNet``.
"""
