"""Exported chats. All people, numbers and addresses are invented."""

from __future__ import annotations

import json
import time

import pytest
from chat_items import items, left_out, said
from hypothesis import given
from hypothesis import strategies as st

from fastrnn import cli
from fastrnn.lm import InputError, Settings, data
from fastrnn.lm.data import Reading, open_text
from fastrnn.lm.data.chats import FORMATS
from fastrnn.lm.data.chats.message import LeftOut
from fastrnn.lm.data.places import together

ANDROID = """31/12/2020, 23:58 - Messages and calls are end-to-end encrypted.
31/12/2020, 23:58 - Ada Example created group "Trip: sea"
31/12/2020, 23:59 - Ada Example: Are you there?
31/12/2020, 23:59 - Bob Sample: Yes: here
and still here

with a gap
01/01/2021, 00:01 - Ada Example: <Media omitted>
01/01/2021, 00:02 - Ada Example: \u200eIMG-20210101-WA0001.jpg (file attached)
what a view
01/01/2021, 00:03 - Bob Sample: This message was deleted
01/01/2021, 00:04 - Bob Sample: so late <This message was edited>
13/01/2021, 00:05 - +1 555 0100: Who is this?
"""
SAID = [
    ("Ada Example", "Are you there?"),
    ("Bob Sample", "Yes: here and still here with a gap"),
    ("Ada Example", "what a view"),
    ("Bob Sample", "so late"),
    ("+1 555 0100", "Who is this?"),
]
IOS = """\ufeff[12/31/20, 11:58:01\u202fPM] Trip: \u200eMessages and calls are end-to-end encrypted.
[12/31/20, 11:58:59\u202fPM] \u200eAda Example: Are you there?
[12/31/20, 11:59:00\u202fPM] ~\u202fBob Sample: Yes: here
and still here

with a gap
\u200e[1/1/21, 12:01:00\u202fAM] Ada Example: \u200eimage omitted
[1/1/21, 12:02:00\u202fAM] Ada Example: what a view \u200e<attached: 00001-PHOTO.jpg>
[1/1/21, 12:03:00\u202fAM] Bob Sample: \u200eThis message was deleted.
[1/1/21, 12:04:00\u202fAM] Bob Sample: so late \u200e<This message was edited>
[1/1/21, 12:05:00\u202fAM] \u202a+1 555 0100\u202c: Who is this?
"""


@pytest.fixture
def chat(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text(ANDROID, encoding="utf-8")
    return path


def test_whatsapp_of_android():
    assert said("whatsapp", ANDROID) == SAID
    kinds = ["system lines", "system lines", "media", "media", "deleted messages"]
    assert left_out("whatsapp", ANDROID) == kinds


def test_whatsapp_of_ios():
    assert said("whatsapp", IOS) == SAID
    assert left_out("whatsapp", IOS) == ["system lines", "media", "deleted messages"]


@pytest.mark.parametrize(
    "header",
    [
        "31/12/2020, 23:59 - ", "31.12.20, 23:59 - ", "12/31/20, 11:59 PM - ",
        "12/31/20, 11:59\u202fPM - ", "2020-12-31, 11:59 p.m. - ", "31/12/20 11:59 p. m. - ",
        "31/12/2020 23:59 - ", "31/12/2020 à 23:59 - ", "2020-12-31 23:59 - ",
        "31.12.2020 klo 23.59 - ", "2020/12/31 下午11:59 - ", "31/12/2020، 11:59 م - ",
        "\u200f٣١/١٢/٢٠٢٠, ١١:٥٩ م - ", "\u200f31\u200f/12\u200f/2020\u200f، 11:59 م - ",
        "31. 12. 2020, 23:59 - ", "[31/12/2020, 23:59:59] ",
        "[31.12.20, 23:59:59] ", "[12/31/20, 11:59:59\u202fPM] ", "\u200e[2020-12-31, 23:59:59] ",
        "[31.12.2020 klo 23.59.59] ", "[23:59, 31/12/2020] ", "[11:59 PM, 12/31/2020] ",
        "[2020/12/31 下午11:59:59] ",
    ],
)  # fmt: skip
def test_clocks_and_dates(header):
    text = f"{header}Ada Example: one\nmore\n{header}Bob Sample: two: 10:30 - late\n"
    wanted = [("Ada Example", "one more"), ("Bob Sample", "two: 10:30 - late")]
    assert said("whatsapp", text) == wanted
    assert FORMATS["whatsapp"].fits(text)
    dates = {item.date for item in items("whatsapp", text)}
    assert FORMATS["whatsapp"].span(dates) == ("2020-12-31", "2020-12-31")


@pytest.mark.parametrize(
    "text",
    [
        "<Media omitted>", "<Medien ausgeschlossen>", "<Multimedia omitido>", "<Médias omis>",
        "<Media omessi>", "<Mídia oculta>", "<Media weggelaten>", "<Без медиафайлов>",
        "<Medya dahil edilmedi>", "<pominięto multimedia>", "<तस्वीर छोड़ी गई>", "<媒體已略去>",
        "<メディアなし>", "<사진 생략>", "<تم استبعاد الوسائط>", "\u200eimage omitted",
        "GIF omitted", "Bild weggelassen", "\u200e<attached: 00012-AUDIO.opus>",
        "IMG-20201231-WA0000.jpg (file attached)", "\u200eplan.pdf (Datei angehängt)",
        "location: https://maps.google.com/?q=0.0,0.0",
    ],
)  # fmt: skip
def test_media(text):
    assert items("whatsapp", f"31/12/2020, 23:59 - Ada Example: {text}") == [LeftOut("media")]


@pytest.mark.parametrize(
    "text", ["<3", "<b>bold</b>", "a < b > c", "see readme.txt (the new one)", "the image omitted"]
)
def test_what_is_no_media(text):
    line = f"31/12/2020, 23:59 - Ada Example: {text}"
    assert said("whatsapp", line) == [("Ada Example", text)]


@pytest.mark.parametrize(
    ("dates", "wanted"),
    [
        ({"31/12/20", "01/02/21"}, ("2020-12-31", "2021-02-01")),
        ({"12/31/20", "1/2/21"}, ("2020-12-31", "2021-01-02")),
        ({"2020-12-31", "2021-02-01"}, ("2020-12-31", "2021-02-01")),
        ({"1.2.2021"}, ("2021-02-01", "2021-02-01")),
    ],
)
def test_the_order_of_day_and_month(dates, wanted):
    assert FORMATS["whatsapp"].span(dates) == wanted


WORDS = st.text("ab\u00e9\U0001f600", min_size=1, max_size=5)
TALK = st.lists(
    st.tuples(st.sampled_from(["Ada Example", "Bob Sample"]), st.lists(WORDS, min_size=1)),
    min_size=1,
)


@given(TALK, st.sampled_from(["whatsapp", "telegram", "signal", "jsonl"]))
def test_what_was_written_is_read(talk, name):
    """Messages of several lines come back, each as one line."""
    if name == "whatsapp":
        text = "".join(f"1/2/20, 12:00 - {who}: " + "\n".join(lines) + "\n" for who, lines in talk)
    elif name == "telegram":
        text = json.dumps(
            {
                "name": "Trip",
                "type": "private_group",
                "id": 1,
                "messages": [
                    {"type": "message", "date": "2020-01-02T12:00:00", "from": who,
                     "text": ["\n".join(lines[:1]), {"type": "bold", "text": ""},
                              "".join("\n" + line for line in lines[1:])]}
                    for who, lines in talk
                ],
            },
            indent=1,
        )  # fmt: skip
    else:
        key = "body" if name == "signal" else "text"
        text = "".join(
            json.dumps({"sender": who, "date": "2020-01-02 12:00", key: "\n".join(lines)}) + "\n"
            for who, lines in talk
        )
    assert FORMATS[name].fits(text)
    assert said(name, text) == [(who, " ".join(lines)) for who, lines in talk]
    assert {item.date for item in items(name, text)} <= {"1/2/20", "2020-01-02"}
    found = next(name for name, form in FORMATS.items() if form.fits(text))
    assert found == name


@pytest.mark.parametrize(
    "text",
    [
        "Some prose.\n\n31/12/2020, 23:59 - Ada Example: one\n",
        "31/12/2020 was a day.\n",
        "31/12/2020, 23:59 - nobody wrote anything\n",
        "{ a brace }\n",
        '{"title": "text"}\n{"title": "other"}\n',
        '{"text": "one"}\nno JSON\n',
        "[1, 2]",
        "",
    ],
)
def test_what_is_no_chat_is_text(tmp_path, text):
    assert not any(form.fits(text) for form in FORMATS.values())
    path = tmp_path / "chat.txt"
    path.write_text(text or "x")
    assert data.load_text(str(path)) == (text or "x")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("whatsapp", "\n\nHello\n", "cannot be read as WhatsApp: line 3 does not fit: 'Hello'$"),
        ("whatsapp", "\n\n", "cannot be read as WhatsApp: line 1 does not fit: ''$"),
        ("telegram", '{\n "messages": [\n  {]\n', r"Telegram: line 3 does not fit: '  {\]'$"),
        ("telegram", '{"a": 1}', r"""Telegram: line 1 does not fit: '{"a": 1}'$"""),
        ("telegram", "[" * 100_000, "Telegram: line 1 does not fit: "),
        ("telegram", "3", "Telegram: line 1 does not fit: '3'$"),
        ("signal", '{"body": "one"}\n{"text": "two"}', 'Signal: line 2 does not fit: \'{"text"'),
        ("signal", "[\n{,\n", "Signal: line 2 does not fit"),
        ("signal", "[3]", "Signal: line 1 does not fit: '3'$"),
        ("jsonl", '{"text": "one"}\n\n{"text": "two"', "JSON lines: line 3 does not fit: '{\"text"),
        ("jsonl", '{"text": "one"}\n{"body": 1}', "JSON lines: line 2 does not fit: '{\"body"),
        ("jsonl", "x" * 99, "line 1 does not fit: 'x{59}…'$"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, name, text, message):
    path = tmp_path / "chat.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        "".join(open_text(str(path), Reading(format=name)).pieces())
    out = tmp_path / "run"
    arguments = ["train", "--data", str(path), "--format", name, "--out", str(out)]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: cannot be read as" in line
    assert not out.exists()


def test_what_was_recognized_and_does_not_fit_says_how_it_is_read_as_text(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text('{"text": "one"}\n' * 30 + "two\n")
    with pytest.raises(InputError, match="line 31 does not fit: 'two'; --format text reads it"):
        data.load_text(str(path))
    assert open_text(str(path), Reading(format="text")).size == 30 * 16 + 4


def test_a_chat_as_text(chat):
    text = open_text(str(chat))
    assert "".join(text.pieces()) == "".join(line + "\n" for _, line in SAID)
    assert text.reports() == [
        f"{chat}: WhatsApp, 5 messages of 3 people; left out 1 deleted messages, 2 media, "
        f"2 system lines"
    ]


def test_one_persons_messages(chat, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("1/2/2020, 12:00 - Cleo Sample: another chat\n")
    names = together([str(other), str(chat)])
    text = open_text(names, Reading(sender="ada example"))
    assert "".join(text.pieces()) == "Are you there?\nwhat a view\n"
    assert "5 messages of 3 people, 2 of them of Ada Example; left out" in text.reports()[1]
    assert text.reports()[0].endswith("1 message of 1 person, 0 of them of Ada Example")
    with pytest.raises(InputError) as caught:
        open_text(names, Reading(sender="Eve"))
    assert str(caught.value) == (
        "from: got 'Eve', wanted one of: +1 555 0100, Ada Example, Bob Sample, Cleo Sample"
    )
    other.write_text("prose")
    with pytest.raises(InputError, match=r"from: got 'Ada', but .*other\.txt is not a chat"):
        open_text(names, Reading(sender="Ada"))


def test_a_chat_without_messages(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("1/2/2020, 12:00 - Ada Example: <Media omitted>\n")
    with pytest.raises(InputError, match=r"chat\.txt: there is no message with text"):
        data.load_text(str(path))


@pytest.mark.parametrize("blank", [" ", "\n", "\t\n"])
def test_long_gaps_take_linear_time(blank):
    begin = time.process_time()
    gap = blank * 100_000
    assert len(said("whatsapp", f"31/12/2020, 23:59 - Ada Example: one{gap}two")) == 1
    assert time.process_time() - begin < 10


def test_a_chat_with_placeholders(chat):
    text = open_text(str(chat), Reading(redact=True))
    chat.write_text(ANDROID + "1/2/2021, 00:06 - Bob Sample: Ada, +1 555 0100 is bob@example.org\n")
    text = open_text(str(chat), Reading(redact=True))
    assert "".join(text.pieces()).endswith("\n<name>, <phone> is <email>\n")
    (line,) = text.reports()
    assert line.endswith("; replaced 1 e-mail addresses, 1 names, 1 phone numbers")


TINY = ["--hidden", "16", "--embed", "8", "--batch", "2", "--steps", "20", "--epochs", "2"]
TINY += ["--sample", "30", "--device", "cpu"]


def test_from_an_export_to_suggestions(tmp_path, capsys):
    """A person's way: export, train on one's own messages, type."""
    path, out = tmp_path / "WhatsApp Chat with Bob Sample.txt", tmp_path / "run"
    path.write_text(ANDROID + "".join(
        f"1/2/2021, 00:{minute:02} - Ada Example: see you at the sea, Bob\n"
        f"1/2/2021, 00:{minute:02} - Bob Sample: zzz\n"
        for minute in range(60)
    ))  # fmt: skip
    command = ["train", "--data", str(path), "--from", "Ada Example", "--redact"]
    assert cli.main([*command, "--out", str(out), *TINY]) == 0
    said = capsys.readouterr().out
    assert "read    " in said
    assert ": WhatsApp, 125 messages of 3 people, 62 of them of Ada Example; left out" in said
    assert "; replaced 60 names\n" in said
    assert "z" not in said.partition("kept in")[0].rpartition("epoch 2")[2].replace("<", "")
    assert cli.main(["train", "--out", str(out), "--resume", "--epochs", "3"]) == 0
    assert cli.main(["evaluate", str(out), "--ngram", "2"]) == 0
    assert cli.main(["evaluate", str(out), "--data", str(path), "--from", "Ada Example"]) == 0
    capsys.readouterr()
    assert cli.main(["suggest", str(out), "see you at the s"]) == 0
    assert "next\n" in capsys.readouterr().out
    assert cli.main(["train", "--out", str(out), "--resume", "--from", "Bob Sample"]) == 2
    assert "from: the run to resume has 'Ada Example', got 'Bob Sample'" in capsys.readouterr().err


def test_runs_from_before_chats_were_recognized_keep_their_text():
    old = Settings().as_dict()
    for name in ("format", "sender", "redact", "encoding"):
        del old[name]
    assert Settings.from_dict(old) == Settings(format="text")
