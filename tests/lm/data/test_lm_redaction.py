"""Placeholders for names, numbers and addresses. All are invented."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.lm.data.chats import Redacted, Redactor
from fastrnn.lm.data.texts import Text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("call +1 555 010 0199 or (0555) 0100-123!", "call <phone> or <phone>!"),
        ("0049 555 / 01 00 12.", "<phone>."),
        ("write to ada.x+y@mail.example.org, ok?", "write to <email>, ok?"),
        ("see https://example.org/ada?x=1 or www.example.com", "see <url> or <url>"),
        ("example.org, example.org:80/ada, t.me/ada", "<url>, <url>, <url>"),
        ("no space.it is missing... and so.de", "no space.it is missing... and <url>"),
        ("DE00 1234 5678 9012 3456 78 and gb00test12345678901234", "<iban> and <iban>"),
        ("code 4711, 1,234.50, 12 345", "code <number>, <number>, <number>"),
        ("at 10:30, 3 of 999, v1.2", "at 10:30, 3 of 999, v1.2"),
        ("Ada's and ADA, Example; Adam and Li", "<name>'s and <name>, <name>; Adam and <name>"),
        ("ada example, li de xmarie, anne-Marie", "<name>, li de xmarie, <name>-<name>"),
        ("@ada_x and me@home", "<name> and me@home"),
        ("4711 1234ada@example.org", "<number><email>"),
        ("x-" + "a" * 99 + "@example.org", "x-" + "a" * 35 + "<email>"),
        ("我和张三去", "我和<name>去"),
        ("Jose\u0301 e José", "<name> e <name>"),
    ],
)  # fmt: skip
def test_what_is_replaced(text, wanted):
    redactor = Redactor(["Ada Example", "Li de la Anne-Marie", "张三", "José", "Me", "+1 555 0100"])
    counts = {}
    assert redactor(text, counts) == wanted
    assert sum(counts.values()) == wanted.count("<")
    assert redactor(wanted, {}) == wanted


@pytest.mark.parametrize("run", ["a", "-", "+", "%", "a-", "a.", "a-a.", "AB12", "x@", "0 ", "@"])
def test_long_runs_take_linear_time(run):
    redactor = Redactor(["Ada Example"])
    begin = time.process_time()
    redactor(run * (100_000 // len(run)), {})
    assert time.process_time() - begin < 10


@given(st.lists(st.text("A1 .@+-\n", max_size=6)), st.integers(1, 9))
def test_pieces_do_not_change_what_is_replaced(words, size):
    text = "".join(words) + "x"
    pieces = [text[n : n + size].encode() for n in range(0, len(text), size)]
    redacted = Redacted(Text("book", lambda: pieces), Redactor(["A 1"]))
    whole = Redacted(Text.of(text), Redactor(["A 1"]))
    assert "".join(redacted.pieces()) == "".join(whole.pieces())
