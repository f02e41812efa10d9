"""Bytes and values: every encoding, seal and key of the on-disk format. Pure; no I/O.

``FORMAT.md`` is the specification and ``constants.py`` its numbers. Decoders raise `FormatError`
for a version or feature they do not know, `ObjectDamaged` for anything else that is wrong.
"""
