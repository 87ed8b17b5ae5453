"""Find the line of a key in a TOML text, for error messages.

`tomllib` forgets positions. This scanner walks a text that `tomllib` has already accepted, so it
only has to tell keys, strings, brackets and comments apart, never to judge them.
"""

from __future__ import annotations

import bisect
import re
import tomllib

from growlm.recipe.keys import Key

_STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_KEY = re.compile(r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+|[ \t]*\.[ \t]*)+""")
_BLANK = re.compile(r"(?:[\s,]|#[^\n]*)*")
_SCALAR = re.compile(r"[^\s,\]}#]+(?:[ ]\d[^\s,\]}#]*)?")


def key_lines(text: str) -> dict[Key, int]:
    """The 1-based line on which each table, array element and key of a valid TOML text begins."""
    return _Scanner(text).scan()


def nearest(lines: dict[Key, int], key: Key) -> int:
    """The line of `key`, or of the closest table around it; 1 where nothing is known."""
    return next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[Key, int] = {}
        self.counts: dict[Key, int] = {}

    def scan(self) -> dict[Key, int]:
        table: Key = ()
        self._skip_blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()
        return self.lines

    def _header(self) -> Key:
        """`[a.b]` or `[[a.b]]`: the key of the table whose pairs follow."""
        start, width = self.at, 2 if self.text.startswith("[[", self.at) else 1
        self.at += width
        self._skip_blank()
        parts = self._key()
        self.at = self.text.index("]", self.at) + width
        table: Key = ()
        for n, part in enumerate(parts, 1):
            table = (*table, part)
            if width == 2 and n == len(parts):
                self.counts[table] = self.counts.get(table, 0) + 1
            self._mark(table, start)
            if table in self.counts:
                table = (*table, self.counts[table] - 1)
                self._mark(table, start)
        return table

    def _pair(self, table: Key) -> None:
        start = self.at
        parts = self._key()
        for n in range(1, len(parts) + 1):
            self._mark((*table, *parts[:n]), start)
        self.at = self.text.index("=", self.at) + 1
        self._skip_blank()
        self._value((*table, *parts))

    def _value(self, key: Key) -> None:
        opening = self.text[self.at]
        if opening not in "[{":
            match = _STRINGS.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            self.at = match.end() if match else self.at + 1
            return
        closing = "]" if opening == "[" else "}"
        self.at += 1
        self._skip_blank()
        index = 0
        while self.text[self.at] != closing:
            if opening == "{":
                self._pair(key)
            else:
                self._mark((*key, index), self.at)
                self._value((*key, index))
                index += 1
            self._skip_blank()
        self.at += 1

    def _key(self) -> tuple[str, ...]:
        """A possibly dotted and quoted key at the cursor; tomllib undoes the quotes and escapes."""
        match = _KEY.match(self.text, self.at)
        assert match is not None, "key_lines() was given a text that tomllib did not accept"
        self.at = match.end()
        parts, value = [], tomllib.loads(match.group() + " = 0")
        while isinstance(value, dict):
            name, value = next(iter(value.items()))
            parts.append(name)
        return tuple(parts)

    def _skip_blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _mark(self, key: Key, position: int) -> None:
        self.lines.setdefault(key, bisect.bisect_left(self.newlines, position) + 1)
