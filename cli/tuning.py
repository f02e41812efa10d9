"""Settings of the process for commands that move data; each is an advice, none changes a result."""

import ctypes
import gc
import resource
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD = 32 * 1024 * 1024
_TRIM_THRESHOLD = 256 * 1024 * 1024
_SWITCH_INTERVAL = 0.0005
_COLLECT_AFTER = 50_000
_FILES = 65_536


def tune() -> None:
    """Set the process up for moving data. Call once, from the main thread, before the work starts."""
    gc.freeze()  # what the imports made lives as long as the process: never look at it again
    gc.set_threshold(_COLLECT_AFTER, 20, 50)
    # Threads that hand buffers to C and come back wait for the interpreter up to this long; 5 ms by
    # default, which is longer than most of what they do.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _keep_buffers()
    _raise_file_limit()


def _keep_buffers() -> None:
    """Have the C library reuse freed buffers of some MiB rather than map and fault them in anew."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc only
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
