"""Two folders change places in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_HERE = -100  # AT_FDCWD: paths are as they stand
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or this file system


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders of one file system: nobody ever finds either of them missing.

    Returns:
        Whether it was done; not where the system has no such call, or a folder is missing.
    """
    swap = _system_call()
    if swap is None:
        return False
    if swap(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (*_UNABLE, errno.ENOENT):
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _system_call() -> Any:
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            renamex = library.renamex_np
            return lambda one, other: renamex(one, other, _EXCHANGE)
        renameat2 = library.renameat2
        return lambda one, other: renameat2(_HERE, one, _HERE, other, _EXCHANGE)
    except (AttributeError, OSError, TypeError):  # the last: Windows has no library of all
        return None
