"""GAMDSS: onset, apex and offset of the movement in a clip, with an annotation to start from or without.

Start with ``selector.py``: ``FrameSelector`` and ``select_keyframes``. An annotated clip goes through ``windows.py``,
one without through ``robust.py``: ``pictures.py`` and ``motion.py`` say what moves, ``movement.py`` and
``trapezoid.py`` fit the movement, ``certainty.py`` says how sure that is. ``stream.py`` is for long clips.
Hands on: ``KeyFrames`` (``records.py``).
"""
