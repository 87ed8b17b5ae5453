import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growlm.data.cleaning.pii import KINDS, redact
from tests.data.cleaning.real import documents

KEY = "ghp_" + "aB3" * 12


def identity(digits: str) -> str:
    """A number of 17 digits with the check digit of ISO 7064 MOD 11-2: the whole is 1 modulo 11."""
    total = sum(int(digit) << (17 - i) for i, digit in enumerate(digits))
    check = (1 - total) % 11
    return digits + ("X" if check == 10 else str(check))


@pytest.mark.parametrize(
    ("text", "expected", "found"),
    [
        ("Write to ann.lee+x@mail.example.org, or not.", "Write to [EMAIL], or not.", {"email": 1}),
        (
            "联系：zhang_san@163.com，电话13812345678。",
            "联系：[EMAIL]，电话[PHONE]。",
            {"email": 1, "phone": 1},
        ),
        ("call +44 20 7946 0958 or (555) 234-5678", "call [PHONE] or [PHONE]", {"phone": 2}),
        ("座机 010-62781234，+86 139 1234 5678", "座机 [PHONE]，[PHONE]", {"phone": 2}),
        (f"身份证号{identity('11010519491231002')}。", "身份证号[ID]。", {"id": 1}),
        ("from 93.184.216.34 and 2606:2800:220:1:248:1893:25c8:1946", "from [IP] and [IP]", {"ip": 2}),
        (f"token={KEY};", "token=[KEY];", {"key": 1}),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/x=\nAB==\n-----END RSA PRIVATE KEY-----\n",
            "[KEY]\n",
            {"key": 1},
        ),
    ],
)
def test_what_is_replaced(text: str, expected: str, found: dict[str, int]) -> None:
    assert redact(text) == (expected, found)


@pytest.mark.parametrize(
    "text",
    [
        "In 1984-1985 about 1 234 567 people, 13.5 % of 8,000,000; pages 123-4567, ISBN 9787111000000.",
        "a git@github.com:x/y.git b, v1.2.3.4, 10.0.0.1, 127.0.0.1, 192.168.1.10, 300.1.1.1 and 12:30:45:10",
        "第1234567890123号，2019年12月31日，￥13800000000.00，订单202401151234567890，13000000000",
        "sha 13812345678abcdef, 138123456789, 0.13812345678, x13812345678, 13812345678+13812345678",
        "eyJustice, sk-learn, AKIA, LTAI, name@, @name, name@localhost",
        "110105194912310020",
    ],
)
def test_what_stays(text: str) -> None:
    assert redact(text) == (text, {})


def test_a_private_key_ends_where_another_begins() -> None:
    begin, end = (f"-----{word} RSA PRIVATE KEY-----" for word in ("BEGIN", "END"))
    whole = f"{begin}\nProc-Type: 4\nMIIE+a/b=\n{end}"
    assert redact(f"{begin}\n" * 20_000 + f"so {whole}.") == (f"{begin}\n" * 20_000 + "so [KEY].", {"key": 1})


def test_of_random_identity_numbers_one_in_eleven_has_the_right_check_digit() -> None:
    """Within five standard deviations; the draw is fixed."""
    draw = random.Random(0)
    numbers = [f"11010519491231{draw.randrange(10_000):04}" for _ in range(4000)]
    found = redact(" ".join(numbers))[1]["id"]
    assert abs(found - 4000 / 11) < 5 * (4000 * 10 / 121) ** 0.5
    assert all(redact(identity(number[:17]))[1] == {"id": 1} for number in numbers[:50])


@given(
    st.lists(st.sampled_from(["a@b.co", "13812345678", "8.8.100.100", KEY, " ", ".", "@", "+", "x", "，"]))
)
def test_redacting_twice_changes_nothing_more(parts: list[str]) -> None:
    once, found = redact("".join(parts))
    assert redact(once) == (once, {})
    assert set(found) <= set(KINDS)


@pytest.mark.slow
def test_books_have_none() -> None:
    assert not [text for text in documents("en-books") if redact(text)[1]]
