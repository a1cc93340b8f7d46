"""The field's annotation tables, read as they are, checked against the disk, and served as training clips.

Start with ``read.py``: ``read_annotations``. ``schemas.py`` describes each dataset's table, ``quality.py`` finds and
repairs what is wrong, ``protocols.py`` chooses clips and classes, ``dataset.py`` feeds them to a loader.
Hands on: ``ClipAnnotation`` (``annotation.py``).
"""
