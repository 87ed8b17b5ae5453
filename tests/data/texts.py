"""Small texts for the tests of the data package."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = ("the", "river", "and", "a", "mountain", "of", "light", "walked", "over", "old", "stones", "sang")
HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


def english(documents: int, words: int = 120, seed: int = 0) -> list[str]:
    """Different English documents of about `words` words, in paragraphs."""
    draw = random.Random(seed)
    return [
        f"Story {i}.\n\n" + "\n\n".join(" ".join(draw.choices(WORDS, k=words // 3)) + "." for _ in range(3))
        for i in range(documents)
    ]


def chinese(documents: int, characters: int = 300, seed: int = 0) -> list[str]:
    """Different Chinese documents of about `characters` characters."""
    draw = random.Random(seed)
    return [f"第{i}章。\n" + "".join(draw.choices(HAN, k=characters)) + "。" for i in range(documents)]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    return path


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
