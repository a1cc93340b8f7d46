"""GAMDSS: onset, apex and offset of the movement in a clip, with an annotation to start from or without.

Start with ``selector.py``: ``FrameSelector`` and ``select_keyframes``. An annotated clip goes through ``windows.py``,
one without through ``robust.py``, on what the room ``movement`` says of it; ``stream.py`` is for long clips.
Hands on: ``KeyFrames`` (``records.py``).
"""
