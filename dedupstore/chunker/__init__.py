"""Where chunks end: the keyed, content-defined chunker.

`base` holds what the rest of the package uses; `awindow` defines the rule in plain Python, and
``_awindow`` (C) and `blocks` (NumPy) are fast copies of it that give the same cuts.
"""
