"""Which GPUs there are, and how a step takes one for itself."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lensnb.run import processes

DEVICES = Path("/dev")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, or all of this machine by number."""
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(number) for number, _ in enumerate(DEVICES.glob("nvidia[0-9]*"))]
    names = [name.strip() for name in named.split(",") if name.strip()]
    return names[: names.index("-1")] if "-1" in names else names  # CUDA ignores what stands behind a wrong name


@contextmanager
def own_gpu(say: Callable[[str], None]) -> Iterator[None]:
    """Use one GPU alone for the time of the block, in this process and those that it starts; without a GPU, none.

    Takes the first one that no other step of this user on this machine has, or waits for one and says so. The lock
    goes when the process dies, however it dies.
    """
    names = visible()
    if not names:
        yield
        return
    folder = Path(tempfile.gettempdir()) / f"lensnb-gpus-{os.getuid()}"  # of this machine: run folders may be shared
    locks = {folder / re.sub(r"\W", "_", name): name for name in names}
    with processes.first_free(list(locks), "all GPUs are taken, one by process {holder}; waiting", say) as lock:
        os.environ[VISIBLE] = locks[lock]
        yield
