"""What the operating system says, in this package's errors: one table, for everything that writes files."""

import errno

from dedupstore.errors import AccessError, DedupstoreError, ReadOnlyError, StoreError, StoreFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def write_failure(error: OSError, what: str, place: str, **data: object) -> DedupstoreError:
    """Return the error to raise when writing ``what`` at ``place`` met ``error``."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return StoreFull(
            f"cannot write {what} in {place}, {reason}: free space there or raise the quota, then run again",
            **data,
        )
    if error.errno in _REFUSED:
        return ReadOnlyError(
            f"cannot write {what} in {place}, {reason}: mount it writable or correct its permissions", **data
        )
    if error.errno == errno.ENOENT:
        return StoreError(
            f"cannot write {what}, {place} is not there: check that its disk is mounted and a repository "
            "was created there",
            **data,
        )
    return StoreError(
        f"cannot write {what} in {place}, {reason}: check the disk and its connection, then run again", **data
    )


def read_failure(error: OSError, what: str, place: str, **data: object) -> DedupstoreError:
    """Return the error to raise when reading ``what`` at ``place`` met ``error`` (not a missing file)."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _REFUSED:
        return AccessError(f"cannot read {what} in {place}, {reason}: correct its permissions", **data)
    return StoreError(
        f"cannot read {what} in {place}, {reason}: check the disk and its connection, then run again", **data
    )
