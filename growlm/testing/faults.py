"""Named fault points: the places where a process can be told to die, or a disk to be full.

`GROWLM_FAULT=checkpoint.before_rename:kill` sends SIGKILL to the process at that point;
`checkpoint.write:enospc@3` fails the third passage as a full disk would. Unset, a point costs one look-up.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

VARIABLE = "GROWLM_FAULT"
_passages: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Do nothing, unless `GROWLM_FAULT` is `<name>:kill` or `<name>:enospc` with an optional `@n`.

    Raises:
        OSError: ENOSPC, at the n-th passage (the first if not given) of a point armed with `enospc`.
        ValueError: the variable names this point with an unknown action.
    """
    armed = os.environ.get(VARIABLE)
    if armed is None:
        return
    target, _, rest = armed.partition(":")
    if target != name:
        return
    action, _, nth = rest.partition("@")
    _passages[armed] += 1
    if _passages[armed] != int(nth or 1):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        raise ValueError(f"{VARIABLE}={armed}: the action is 'kill' or 'enospc', not {action!r}")
