"""What happened in a run, as short lines a person reads: starts, resumes, growths, messages, the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from growlm.report.series import Record, or_none

SHOWN = 200
AXES = ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers", "vocab_size")
_AXIS_NAMES = {"n_heads": "heads", "n_kv_heads": "kv heads", "d_ff": "ffn", "n_layers": "layers"}
_ENDS = {
    "done": ("ok", "Done."),
    "preempted": ("warning", "Stopped on request: saved, the same command continues."),
    "failed": ("error", "Failed."),
}


def events_of(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The newest `SHOWN` events, newest first: {"time", "step", "level", "text"}."""
    told = [(r, line) for r in records if (line := _line(r))]
    return [
        {"time": or_none(r.get("time")), "step": or_none(r.get("step")), "level": level, "text": text}
        for r, (level, text) in reversed(told[-SHOWN:])
    ]


def growth_changes(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The axes that grew: {"axis", "name", "from", "to"}."""
    one_kv_per_head = all(shape.get("n_kv_heads") == shape.get("n_heads") for shape in (old, new))
    return [
        {
            "axis": axis,
            "name": _AXIS_NAMES.get(axis, axis.removesuffix("_size")),
            "from": old[axis],
            "to": new[axis],
        }
        for axis in AXES
        if not (axis == "n_kv_heads" and one_kv_per_head)
        if old.get(axis) != new.get(axis) and axis in old and axis in new
    ]


def _line(r: Record) -> tuple[str, str] | None:
    match r["kind"]:
        case "start":
            again = "Started" if r["incarnation"] == 1 else f"Started again (start {r['incarnation']})"
            return "info", f"{again} on {r.get('device')}, {r.get('precision')}, torch {r.get('torch')}."
        case "resume":
            return "info", f"Resumed from step {r['step']}."
        case "verified" if r.get("identical"):
            return "ok", f"Resume verified: {r.get('replayed')} repeated steps are bit-identical."
        case "verified":
            return "error", f"Resume differs: {r.get('replayed')} repeated steps are not bit-identical."
        case "growth":
            return "growth", _growth_line(r)
        case "event":
            level = r.get("level")
            return level if level in ("warning", "error") else "info", str(r.get("message"))
        case "end":
            return _ENDS.get(str(r.get("status")), ("info", f"Ended: {r.get('status')}."))
    return None


def _growth_line(r: Record) -> str:
    old, new = r.get("from"), r.get("to")
    changes = growth_changes(old, new) if isinstance(old, dict) and isinstance(new, dict) else []
    grew = ", ".join(f"{c['name']} {c['from']} → {c['to']}" for c in changes)
    return f"Grew: {grew or 'nothing'} ({r.get('operator')}, {r.get('depth')})."
