"""Answers that outlive a kill: each is on disk before it is used, and is not asked for again."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from growlm.checkpoint.disk import disk_errors, make_dirs, write_all
from growlm.errors import LockError
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Model, Prompt

ANSWERS = "answers.jsonl"

R = TypeVar("R", Choice, Prompt, str)
A = TypeVar("A", Likelihood, Completion)
_FIELDS: dict[type, set[str]] = {kind: {f.name for f in fields(kind)} for kind in (Likelihood, Completion)}


class Journal:
    """A `Model` that remembers in a file what another has answered; failures it asks for again.

    A line is a key, the hash of the model's identity and the request, and the answer. Lines that are damaged
    count for nothing. Raises DiskError, LockError: another process has it open.
    """

    def __init__(self, path: Path, model: Model) -> None:
        self._path, self.model = path, model
        self._known: dict[str, dict[str, Any]] = {}
        self.reused = 0
        """Answers that were given without asking."""
        with disk_errors(path):
            make_dirs(path.parent)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._lock()
            self._read()

    @property
    def identity(self) -> str:
        """The model's."""
        return self.model.identity

    @property
    def context(self) -> int:
        """The model's."""
        return self.model.context

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely each continuation is."""
        return self._answers("likelihood", requests, self.model.likelihoods, Likelihood)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, Likelihood | Failed]]:
        """How likely whole texts are, if the model says that."""
        return self._answers("rolling", texts, getattr(self.model, "rolling"), Likelihood)  # noqa: B009

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        """How the model goes on with each text."""
        return self._answers("completion", requests, self.model.completions, Completion)

    def _answers(
        self,
        kind: str,
        requests: Sequence[R],
        ask: Callable[[Sequence[R]], Iterator[tuple[int, A | Failed]]],
        answer_of: type[A],
    ) -> Iterator[tuple[int, A | Failed]]:
        """What is known at once, then the rest as it comes; the same request is asked once."""
        new: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            key = self._key(kind, request)
            known = self._known.get(key)
            if known is not None and known.keys() == _FIELDS[answer_of]:
                self.reused += 1
                yield index, answer_of(**known)
            else:
                new.setdefault(key, []).append(index)
        keys = list(new)
        if not keys:
            return
        for at, answer in ask([requests[new[key][0]] for key in keys]):
            if not isinstance(answer, Failed):
                self._write(keys[at], asdict(answer))
            for index in new[keys[at]]:
                yield index, answer

    def _key(self, kind: str, request: Choice | Prompt | str) -> str:
        asked = request if isinstance(request, str) else asdict(request)
        return xxhash.xxh3_128_hexdigest(json.dumps([self.identity, kind, asked]).encode())

    def _write(self, key: str, answer: dict[str, Any]) -> None:
        self._known[key] = answer
        line = json.dumps({"key": key, "answer": answer}) + "\n"
        with disk_errors(self._path, len(line)):
            write_all(self._fd, line.encode())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise LockError(
                "Another evaluation writes into this folder",
                where=str(self._path.parent),
                fix="wait for it, or give another --out",
            ) from None
        except OSError:  # a file system without locks
            return

    def _read(self) -> None:
        with open(self._fd, "rb", closefd=False) as file:
            held = file.read()
        for line in held.split(b"\n"):
            try:
                told = json.loads(line)
                self._known[told["key"]] = dict(told["answer"])
            except (ValueError, KeyError, TypeError):
                continue
        if held and not held.endswith(b"\n"):  # torn by a kill: what is written next begins a line
            write_all(self._fd, b"\n")
