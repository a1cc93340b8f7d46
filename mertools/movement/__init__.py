"""What moves in a face, and the one movement of a clip that rises, holds and falls.

Start with ``fit.py``: the movement, shared by all blocks that it moves. ``pictures.py`` and ``motion.py`` turn frames
into the trajectories that it is fitted to, ``trapezoid.py`` is its shape, ``certainty.py`` says how sure it is. The
search for key frames and spotting stand on it.
Hands on: ``Motion``, and ``Fit`` with the extent in each frame.
"""
