"""The repository: chunks in, chunks out, safely.

``repository.py`` opens and reads; ``session.py`` writes; ``keyring.py`` makes, unlocks and manages keys;
``segments.py`` keeps the local index (``index.py``) true to the store; the rest serves those four.
"""
