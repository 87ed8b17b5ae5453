"""Every error a user can cause, as one clear message: what, where, why, what to do.

The exit codes are part of the command line's contract (docs/cli.md).
"""

from __future__ import annotations


class GrowLMError(Exception):
    """A failure that the user can act on. Printed without a traceback unless `--debug` is given.

    `what` is one sentence; `where` a file, line, field or step; `why` the rule that was broken;
    `fix` the thing to do next, ready to copy where that is possible.
    """

    exit_code = 1
    agreed = False
    """Whether all ranks of a run raise it at the same place, and so are still in step with one another."""

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.fix = what, where, why, fix

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (("where", self.where), ("why", self.why), ("fix", self.fix)):
            if text:
                lines.append(f"  {label + ':':<7}{text}")
        return "\n".join(lines)


class RecipeError(GrowLMError):
    """The recipe or a flag is wrong; nothing was touched."""

    exit_code = 2


class DataError(GrowLMError):
    """Text, a tokenizer or a token shard is damaged, missing or does not fit."""

    exit_code = 65


class CheckpointError(GrowLMError):
    """A checkpoint is damaged, incomplete or does not fit; nothing was overwritten."""

    exit_code = 65


class EndpointError(GrowLMError):
    """A server that answers for a model is not there, or refuses what it is asked."""

    exit_code = 69


class GrowthError(GrowLMError):
    """A growth cannot be done as asked, or was declared exact and is not."""

    exit_code = 70


class Diverged(GrowLMError):  # noqa: N818  (what became of the run; for a search, a result)
    """The training does not work as the recipe says: too many steps in a row had to be skipped."""

    exit_code = 71


class EdgeError(GrowLMError):
    """The best point of a search lies on the edge of what was searched, so the optimum may lie outside."""

    exit_code = 72


class Preempted(GrowLMError):  # noqa: N818  (not an error: the run goes on later)
    """Asked to stop (SIGTERM, Ctrl-C): saved, and the same command continues the run."""

    exit_code = 75


class LimitReached(Preempted):
    """The cost limit was reached: saved, and the same command continues once the limit is raised."""

    exit_code = 79


class DiskError(GrowLMError):
    """The disk is full, read-only or failing; the previous checkpoint is intact."""

    exit_code = 76


class LockError(GrowLMError):
    """Another process owns this run folder."""

    exit_code = 77


class DriftError(GrowLMError):
    """The recipe, the data or the tokenizer changed under a run."""

    exit_code = 78


class RankError(GrowLMError):
    """The ranks of a run could not meet; started again they may."""


class Elsewhere(GrowLMError):  # noqa: N818  (the error is another rank's)
    """Another rank failed, and rank 0 says how; this rank leaves with the same exit code and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another rank failed")
        self.exit_code = exit_code
