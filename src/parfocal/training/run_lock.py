"""A lock on run folders while they are trained, so that two processes do not write the same run.

The operating system releases the lock when its process ends, however it ends. The empty lock file stays.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout

from parfocal.errors import ParfocalError
from parfocal.io import explain_write_errors
from parfocal.progress import print_warning
from parfocal.run import Run

LOCK_FILE = ".lock"
# What a file system without locks answers, such as NFS without its lock service.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock_runs(runs: Iterable[Run]) -> Iterator[None]:
    """Hold the locks of run folders during the block; raise an error if another process holds one of them."""
    with ExitStack() as locks:
        for run in runs:
            with explain_write_errors(run.folder):
                run.folder.mkdir(parents=True, exist_ok=True)
                _lock(run, locks)
        yield


def _lock(run: Run, locks: ExitStack) -> None:
    try:
        locks.enter_context(FileLock(run.folder / LOCK_FILE, timeout=0))
    except Timeout:
        raise ParfocalError(
            f"{run.folder} is being trained by another process. Wait until that ends, or stop it first."
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        print_warning(f"The file system of {run.folder} has no locks. Make sure that no other process trains this run.")
