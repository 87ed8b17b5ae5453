"""JSON over HTTP to a server that the user named: retries, limits, and a key that goes nowhere else."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from threading import Event
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from growlm.errors import EndpointError, RecipeError

T = TypeVar("T")

LARGEST_ANSWER = 64 << 20
LONGEST_WAIT = 60.0
"""Seconds, whatever a server's Retry-After asks for."""
_HERE = ("127.0.0.1", "localhost", "::1")
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)


class Unanswered(Exception):  # noqa: N818  (of one request; the others go on)
    """A request that was refused, or not answered properly after all attempts."""


class Client:
    """A server at `url`; its methods may be called from several threads.

    A request is tried `attempts` times, with pauses of about `pause`, 2 `pause`, 4 `pause`, ... seconds or
    what the server asks for. Redirects are not followed. The key in GROWLM_API_KEY goes along, or the one
    in OPENAI_API_KEY if nobody can read it on the way. Raises RecipeError for an address that is none.
    """

    def __init__(self, url: str, *, timeout: float = 600.0, attempts: int = 6, pause: float = 0.5) -> None:
        parts = _checked(url)
        self.url = url.rstrip("/")
        self.timeout, self.attempts, self.pause = timeout, attempts, pause
        here = parts.hostname in _HERE
        handlers = [_NoRedirect(), *([ProxyHandler({})] if here else [])]
        self._opener = build_opener(*handlers)
        key = os.environ.get("GROWLM_API_KEY")
        if not key and (here or parts.scheme == "https"):
            key = os.environ.get("OPENAI_API_KEY")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key.strip()}"

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path, tried once. Raises EndpointError, Unanswered."""
        try:
            return self._ask(path, None)
        except _Later as later:
            if later.gone:
                raise self._gone(later.why) from later
            raise Unanswered(later.why) from later

    def post(self, path: str, body: dict[str, Any], check: Callable[[dict[str, Any]], T], stop: Event) -> T:
        """What `check` makes of the JSON object that answers `body`; its ValueError counts as no answer.

        Once `stop` is set nothing is tried again.
        Raises Unanswered, EndpointError if nobody is there, or the server refuses all such requests.
        """
        data = json.dumps(body).encode()
        for attempt in range(self.attempts):
            try:
                return _read(check, self._ask(path, data))
            except _Later as later:
                if attempt + 1 == self.attempts or stop.is_set():
                    if later.gone:
                        raise self._gone(later.why) from later
                    raise Unanswered(f"{later.why}, {self.attempts} times") from later
                pause = self.pause * 2**attempt * random.uniform(0.75, 1.25)
                stop.wait(min(LONGEST_WAIT, max(pause, later.after)))
        raise AssertionError("no attempts")

    def _ask(self, path: str, data: bytes | None) -> dict[str, Any]:
        """One attempt. Raises _Later, Unanswered, EndpointError."""
        request = Request(self.url + path, data=data, headers=self._headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                body = answer.read(LARGEST_ANSWER + 1)
        except HTTPError as error:
            raise self._refused(error, path, asked=data is not None) from error
        except URLError as error:
            timed_out = isinstance(error.reason, TimeoutError)
            raise _Later(str(error.reason), gone=not timed_out) from error
        except TimeoutError as error:
            raise _Later(f"no answer within {self.timeout:g} s") from error
        except (HTTPException, OSError) as error:
            raise _Later(f"the connection broke ({error or type(error).__name__})") from error
        if len(body) > LARGEST_ANSWER:
            raise _Later(f"the answer is larger than {LARGEST_ANSWER} bytes")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Later(f"the answer is not JSON: {_start(body)}") from error
        if not isinstance(value, dict):
            raise _Later(f"the answer is not a JSON object: {_start(body)}")
        return value

    def _refused(self, error: HTTPError, path: str, asked: bool) -> Exception:
        """What becomes of a request that was answered by a status other than 200; `asked`: not only GET."""
        with error:
            why = f"HTTP {error.code}: {_message(error)}"
        if error.code in _AGAIN:
            return _Later(why, after=_seconds(error.headers))
        if error.code in (401, 403):
            fix = "put the key into the environment: export GROWLM_API_KEY=..."
        elif 300 <= error.code < 400:
            fix = "redirects are not followed: name the address that it leads to"
        elif error.code in (404, 405) and asked:
            fix = "name the address up to and with /v1, and the model as the server calls it: .../v1#MODEL"
        else:
            return Unanswered(why)
        return EndpointError("The server refuses the request", where=self.url + path, why=why, fix=fix)

    def _gone(self, why: str) -> EndpointError:
        return EndpointError(
            "No server answers",
            where=self.url,
            why=why,
            fix="start it, or correct the address; the same command continues with what is not answered",
        )


def _read(check: Callable[[dict[str, Any]], T], answer: dict[str, Any]) -> T:
    try:
        return check(answer)
    except ValueError as error:
        raise _Later(f"the server's answer is wrong: {error}") from error


class _Later(Exception):  # noqa: N818  (told apart from a refusal: the request is tried again)
    """An attempt that failed and may succeed in `after` seconds; `gone`: nobody was there at all."""

    def __init__(self, why: str, *, after: float = 0.0, gone: bool = False) -> None:
        super().__init__(why)
        self.why, self.after, self.gone = why, after, gone


class _NoRedirect(HTTPRedirectHandler):
    """The server that the user named is the one that is asked."""

    def redirect_request(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """None: the answer stays the redirect."""


def _checked(url: str) -> Any:
    """The parts of an address. Raises RecipeError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good, parts = False, None
    if not good or parts is None or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise RecipeError(
            "This is no address of a server", where=url, fix="for instance http://127.0.0.1:8000/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise RecipeError(
            "An address must not hold a password",
            where=f"{parts.scheme}://...@{parts.hostname}",
            why="command lines and logs are seen by others",
            fix="put the key into the environment: export GROWLM_API_KEY=...",
        )
    return parts


def _seconds(headers: Message) -> float:
    """How long Retry-After asks to wait: a number of seconds, or a date."""
    said = headers.get("Retry-After", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _message(error: HTTPError) -> str:
    """What the server says of an error: OpenAI's `error.message`, or how its answer begins."""
    try:
        body = error.read(10_000)
    except (HTTPException, OSError):
        return error.reason
    try:
        said = json.loads(body)
        said = said.get("error", said)
        return _short(str(said["message"] if isinstance(said, dict) else said))
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return _start(body) or str(error.reason)


def _start(body: bytes) -> str:
    return _short(body[:400].decode("utf-8", errors="replace"))


def _short(text: str) -> str:
    """On one line, without what a terminal would obey."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= 200 else plain[:200] + "..."
