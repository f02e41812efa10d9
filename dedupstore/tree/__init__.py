"""What is inside a snapshot: building trees, reading them, comparing them, choosing among them.

Nothing here knows a repository or a source: pages come from a ``load`` and go to a ``save``.
"""
