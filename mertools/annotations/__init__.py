"""The field's annotation tables, read as they are, checked against the disk, and served as training clips.

Start with ``read.py``: ``read_annotations``. ``schemas.py`` describes each dataset's table, ``tables.py`` turns files
into cells, ``quality.py`` finds and repairs what is wrong, ``protocols.py`` chooses clips and classes, ``folders.py``
finds the frames and says where table and disk disagree, ``dataset.py`` feeds clips to a loader.
Hands on: ``ClipAnnotation``, ``Problem`` and ``Repair`` (``annotation.py``).
"""
