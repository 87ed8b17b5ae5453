"""The phases of a preparation in their order, and its manifest."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import chain
from typing import Any

from growlm.data.manifest import MANIFEST, SPLITS, Manifest, Source, Split, Step, TokenizerEntry
from growlm.data.pipeline.assemble import OUT, plan_shards, shard_of
from growlm.data.pipeline.chunks import CLAIMS, EXACT, NEAR
from growlm.data.pipeline.copies import BANDS_OF, buckets
from growlm.data.pipeline.encode import stored_dtype
from growlm.data.pipeline.parts import cut_parts
from growlm.data.pipeline.sample import sample_bins
from growlm.data.pipeline.settle import Settled, settled, split_limit
from growlm.data.pipeline.steps import added
from growlm.data.pipeline.tasks import Executor
from growlm.data.pipeline.work import TOKENIZER, ChunkPlace, Work
from growlm.data.progress import Progress
from growlm.data.reading.bad_rows import too_many
from growlm.data.reading.text import CUT_CHARS
from growlm.data.tokenizer import Tokenizer
from growlm.errors import DataError

QUARANTINE = "quarantine.jsonl"


class Run:
    """One preparation; each method finds what an earlier start has done of it."""

    def __init__(self, work: Work, executor: Executor, progress: Progress) -> None:
        self.work, self.plan = work, work.plan
        self._executor, self._progress = executor, progress

    def run(self) -> Manifest:
        """All phases. Raises GrowLMError for what is wrong with the input; OSError."""
        self.scan()
        found, steps = self.settle()
        tokenizer = self.train()
        self.encode()
        sources = self._assemble(tokenizer, found, steps)
        manifest = Manifest(
            tokenizer=TokenizerEntry(
                file=TOKENIZER,
                hash=tokenizer.hash,
                vocab_size=tokenizer.vocab_size,
                eos_id=tokenizer.eos_id,
                signal_ids=tokenizer.signal_ids,
            ),
            dtype=stored_dtype("text", tokenizer.vocab_size).name,
            validation_share=self.plan.validation_share,
            text_cut_chars=CUT_CHARS,
            sources=sources,
        )
        out = self.work.folder / OUT
        tokenizer.save(out / TOKENIZER)
        (out / MANIFEST).write_text(manifest.to_json())
        return manifest

    def _phase(self, phase: str, count: int, name: str, total: int | None = None) -> None:
        """Run the tasks of a phase that are not done."""
        waiting = [number for number in range(count) if not self.work.done(phase, number)]
        if 0 < len(waiting) < count:
            self._progress.say(f"{name}: {count - len(waiting)} of {count} parts were done before")
        if waiting:
            with self._progress.task(name, total) as advance:
                self._executor.run(self.work, phase, waiting, advance)

    def scan(self) -> None:
        """Read and clean; then number the chunks and their documents."""
        work = self.work
        if not (work.folder / "parts.json").exists():
            work.write("parts", cut_parts(self.plan))
        self._phase("scan", len(work.parts), "read")
        self._check_bad_rows()
        places: list[ChunkPlace] = []
        first = 0
        for task, part in enumerate(work.parts):
            for number, (documents, size) in enumerate(work.result("scan", task)["chunks"]):
                places.append(ChunkPlace(part.source, task, number, first, documents, size))
                first += documents
        work.write("chunks", places)

    def _check_bad_rows(self) -> None:
        """Write the bad rows of all parts into the folder to be. Raises DataError: they are too many."""
        out = self.work.folder / OUT
        out.mkdir(exist_ok=True)
        count = 0
        with (out / QUARANTINE).open("w", encoding="utf-8") as file:
            for task, part in enumerate(self.work.parts):
                for row in self.work.result("scan", task)["bad"]:
                    count += 1
                    file.write(json.dumps({"source": part.source, **row}, ensure_ascii=False) + "\n")
                    if count > self.plan.max_bad_rows:
                        error = DataError(row["reason"], where=row["where"], why=row["why"])
                        raise too_many(self.plan.max_bad_rows, count, error)
        if not count:
            (out / QUARANTINE).unlink()

    def settle(self) -> tuple[dict[str, Settled], dict[str, tuple[Step, ...]]]:
        """Find copies; what is left of each source, and the counts of each step."""
        wanted = {
            EXACT: True,
            NEAR: self.plan.near_duplicates,
            CLAIMS: any(source.kind == "signals" for source in self.plan.sources.values()),
        }
        for table in (table for table, is_wanted in wanted.items() if is_wanted):
            self._phase(table, BANDS_OF[table] * buckets(self.work), "find copies")
        self._phase("settle", len(self.work.chunks), "leave out copies")
        results: dict[str, dict[int, Any]] = {name: {} for name in self.plan.sources}
        for number, place in enumerate(self.work.chunks):
            results[place.source][number] = self.work.result("settle", number)
        found = {name: settled(self.work, of_source) for name, of_source in results.items()}
        steps = {name: self._steps(name, of_source) for name, of_source in results.items()}
        limits = {
            name: split_limit(name, source, found[name], steps[name], self.plan.validation_share)
            for name, source in self.plan.sources.items()
        }
        bins = sample_bins(self.plan.sources, found)
        decisions = {name: {"limit": limits[name], "bins": bins.get(name, 0)} for name in limits}
        self.work.write("decisions", decisions)
        return found, steps

    def _steps(self, source: str, settled_results: dict[int, Any]) -> tuple[Step, ...]:
        tasks = [task for task, part in enumerate(self.work.parts) if part.source == source]
        steps: defaultdict[str, list[Step]] = defaultdict(list)
        scanned = (self.work.result("scan", task)["steps"] for task in tasks)
        for step in chain(*scanned, *(result["steps"] for result in settled_results.values())):
            steps[step["name"]].append(Step(**step))
        return tuple(map(added, steps.values()))

    def train(self) -> Tokenizer:
        """The tokenizer, given or trained."""
        self._phase("tokenizer", 1, "train the tokenizer")
        return Tokenizer.load(self.work.path("tokenizer", 0) / TOKENIZER)

    def encode(self) -> None:
        """Text to tokens."""
        chunks = self.work.chunks
        self._phase("encode", len(chunks), "encode", sum(chunk.bytes for chunk in chunks))

    def _assemble(
        self, tokenizer: Tokenizer, found: dict[str, Settled], steps: dict[str, tuple[Step, ...]]
    ) -> dict[str, Source]:
        work = self.work
        chunks: dict[str, list[tuple[int, Any]]] = {name: [] for name in self.plan.sources}
        for number, place in enumerate(work.chunks):
            chunks[place.source].append((number, work.result("encode", number)))
        plans = [
            plan
            for name, source in self.plan.sources.items()
            for index, split in enumerate(SPLITS)
            for plan in plan_shards(
                name,
                split,
                [(number, counts[index]["tokens"]) for number, counts in chunks[name]],
                stored_dtype(source.stored, tokenizer.vocab_size),
                self.plan.shard_bytes,
            )
        ]
        (work.folder / "shards").mkdir(exist_ok=True)
        for number, plan in enumerate(plans):
            work.write(f"shards/{number:06d}", plan)
        self._phase("assemble", len(plans), "write shards")
        shards: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for number, plan in enumerate(plans):
            shards[plan.source, plan.split].append(number)
        return {
            name: self._source(name, tokenizer, found[name], steps[name], chunks[name], shards)
            for name in self.plan.sources
        }

    def _source(
        self,
        name: str,
        tokenizer: Tokenizer,
        found: Settled,
        steps: tuple[Step, ...],
        chunks: list[tuple[int, Any]],
        shards: dict[tuple[str, str], list[int]],
    ) -> Source:
        source = self.plan.sources[name]
        dtype = stored_dtype(source.stored, tokenizer.vocab_size)
        splits = {
            split: Split(
                **{
                    key: sum(counts[index][key] for _, counts in chunks)
                    for key in ("documents", "bytes", "tokens")
                },
                shards=tuple(shard_of(self.work, number, dtype) for number in shards[name, split]),
            )
            for index, split in enumerate(SPLITS)
        }
        exact = next(step for step in steps if step.name == "exact duplicates")
        return Source(
            kind=source.stored,
            files=len(source.files),
            duplicates=exact.documents_in - exact.documents_out,
            empty=sum(step.reasons.get("empty", 0) for step in steps),
            steps=steps,
            licenses=found.licenses,
            splits=splits,
        )
