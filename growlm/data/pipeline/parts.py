"""The input cut into parts, the tasks of the scan: a byte range, a group of small files, row groups."""

from __future__ import annotations

from collections.abc import Iterator

from growlm.data.pipeline.plan import Plan, SourcePlan
from growlm.data.pipeline.work import Part
from growlm.data.reading.extents import extents
from growlm.data.reading.files import file_of
from growlm.data.reading.tokens import token_extents


def cut_parts(plan: Plan) -> list[Part]:
    """The parts of all sources, in the order of their files. Raises DataError: a damaged file."""
    parts: list[Part] = []
    for name, source in plan.sources.items():
        found = list(_parts(name, source, plan.part_bytes))
        parts += [found[0]._replace(whole=True)] if len(found) == 1 else found
    return parts


def _parts(name: str, source: SourcePlan, size: int) -> Iterator[Part]:
    """Neighbouring small files together; a large one, where its format allows, in extents."""
    first, waiting = 0, 0
    for number, stamp in enumerate(source.files):
        if waiting and waiting + stamp.size > size:
            yield Part(name, first, number, None, waiting, False)
            first, waiting = number, 0
        cut = token_extents if source.kind == "tokens" else extents
        pieces = cut(file_of(stamp.path), size) if stamp.size > size else [None]
        if len(pieces) > 1:
            for extent in pieces:
                yield Part(name, number, number + 1, extent, stamp.size // len(pieces), False)
            first = number + 1
        else:
            waiting += stamp.size
    if first < len(source.files):
        yield Part(name, first, len(source.files), None, waiting, False)
