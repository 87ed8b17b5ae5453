"""A closed world of people, places and things, told sentence by sentence (after bAbI, arXiv:1502.05698)."""

from __future__ import annotations

from dataclasses import dataclass, field

from growlm.evaluate.iq.draws import Draws


@dataclass(frozen=True)
class Wording:
    """A language's names and sentences; `{who}`, `{what}` and `{where}` are filled in."""

    people: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]
    move: tuple[str, ...]
    take: tuple[str, ...]
    drop: tuple[str, ...]
    where: str
    """The question; `{which}` is a person or a thing with its article."""
    thing: str
    space: str
    frame: str
    """Story and question."""


EN = Wording(
    people=("Mary", "John", "Sandra", "Daniel", "Emily", "Peter"),
    places=("kitchen", "bathroom", "bedroom", "garden", "hallway", "office"),
    things=("apple", "football", "milk", "book", "key"),
    move=(
        "{who} went to the {where}.",
        "{who} moved to the {where}.",
        "{who} journeyed to the {where}.",
        "{who} travelled to the {where}.",
    ),
    take=("{who} picked up the {what}.", "{who} took the {what}.", "{who} grabbed the {what}."),
    drop=("{who} dropped the {what}.", "{who} put down the {what}.", "{who} left the {what}."),
    where="Where is {which}?",
    thing="the {what}",
    space=" ",
    frame="Story: {story}\nQuestion: {question}\nAnswer:",
)
ZH = Wording(
    people=("小明", "小红", "小刚", "小丽", "小华", "小芳"),
    places=("厨房", "浴室", "卧室", "花园", "走廊", "办公室"),
    things=("苹果", "足球", "牛奶", "书", "钥匙"),
    move=("{who}去了{where}。", "{who}走到了{where}。", "{who}来到了{where}。"),
    take=("{who}拿起了{what}。", "{who}拿走了{what}。"),
    drop=("{who}放下了{what}。", "{who}丢下了{what}。"),
    where="{which}在哪里？",
    thing="{what}",
    space="",
    frame="故事：{story}\n问题：{question}\n答案：",
)


@dataclass
class World:
    """Who is where and who has what, as far as it has been told."""

    words: Wording
    draws: Draws
    told: list[str] = field(default_factory=list)
    person_at: dict[str, str] = field(default_factory=dict)
    thing_at: dict[str, str | None] = field(default_factory=dict)
    """Of things that were put down; None if that place was not told."""
    holder: dict[str, str] = field(default_factory=dict)

    def move(self) -> None:
        """Somebody goes where he is not."""
        who = self.draws.choice(self.words.people)
        where = self.draws.choice([at for at in self.words.places if at != self.person_at.get(who)])
        self.person_at[who] = where
        self.told.append(self.draws.choice(self.words.move).format(who=who, where=where))

    def handle(self) -> None:
        """Somebody puts down what he holds, or takes what may be where he is; else somebody moves."""
        what = self.draws.choice(self.words.things)
        who = self.holder.get(what)
        if who is not None:
            self.thing_at[what] = self.person_at.get(who)
            del self.holder[what]
            self.told.append(self.draws.choice(self.words.drop).format(who=who, what=what))
            return
        able = [who for who in self.words.people if self._may_take(who, what)]
        if not able:
            self.move()
            return
        who = self.draws.choice(able)
        self.holder[what] = who
        self.told.append(self.draws.choice(self.words.take).format(who=who, what=what))

    def _may_take(self, who: str, what: str) -> bool:
        """What was never told of may be anywhere; what was put down is where it was put down."""
        return what not in self.thing_at or (
            self.thing_at[what] is not None and self.thing_at[what] == self.person_at.get(who)
        )

    def things(self) -> dict[str, str]:
        """The things whose place follows from what was told."""
        held = {what: self.person_at.get(who) for what, who in self.holder.items()}
        lying = {what: at for what, at in self.thing_at.items() if what not in self.holder}
        return {what: at for what, at in {**lying, **held}.items() if at is not None}

    def ask(self, which: str) -> str:
        """The whole story with a question."""
        return self.words.frame.format(
            story=self.words.space.join(self.told), question=self.words.where.format(which=which)
        )
