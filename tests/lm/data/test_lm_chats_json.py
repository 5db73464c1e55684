"""Chats exported as JSON: Telegram, Signal, lines of JSON. All people are invented."""

from __future__ import annotations

import json

import pytest
from chat_items import items, left_out, said

from fastrnn.lm.data.chats import FORMATS
from fastrnn.lm.data.chats.message import LeftOut, Message


def telegram(**fields):
    usual = {"id": 1, "type": "message", "date": "2020-12-31T23:59:59", "from": "Ada Example"}
    return {**usual, "text": "hello", **fields}


def test_telegram():
    messages = [
        telegram(),
        telegram(text=["see ", {"type": "link", "text": "https://example.org"}, " now"]),
        telegram(text="", photo="photos/1.jpg"),
        telegram(text="a view", photo="photos/2.jpg"),
        telegram(forwarded_from="Bob Sample"),
        telegram(type="service", action="phone_call"),
        telegram(**{"from": None, "from_id": "user1"}),
        telegram(text=""),
    ]
    export = {"name": "Bob Sample", "type": "personal_chat", "id": 2, "messages": messages}
    whole = {"about": "", "chats": {"about": "", "list": [export, {"name": "Empty"}]}}
    for text in (json.dumps(export), json.dumps(whole, indent=1)):
        assert said("telegram", text) == [
            ("Ada Example", "hello"),
            ("Ada Example", "see https://example.org now"),
            ("Ada Example", "a view"),
            ("user1", "hello"),
        ]
        kinds = ["media", "forwarded messages", "service messages", "messages without text"]
        assert left_out("telegram", text) == kinds
        assert FORMATS["telegram"].fits(text)


SIGNAL_CLI = [
    {"envelope": {"source": "+1 555 0101", "sourceName": "Ada Example",
                  "dataMessage": {"timestamp": 1609459140000, "message": "hello"}}},
    {"envelope": {"source": "+1 555 0102", "receiptMessage": {"when": 1}}},
    {"account": "+1 555 0102",
     "envelope": {"syncMessage": {"sentMessage": {"timestamp": 1609459140000, "message": "yes"}}}},
    {"envelope": {"sourceName": "Ada Example", "dataMessage": {"message": None}}},
]  # fmt: skip
SIGNAL_APP = [
    {"version": 1, "backupTimeMs": "1609459140000"},
    {"recipient": {"id": "1", "self": {}}},
    {"recipient": {"id": "2", "contact": {"profileGivenName": "Ada",
                                          "profileFamilyName": "Example"}}},
    {"chat": {"id": "1", "recipientId": "2"}},
    {"chatItem": {"authorId": "2", "dateSent": "1609459140000", "incoming": {},
                  "standardMessage": {"text": {"body": "hello"}}}},
    {"chatItem": {"authorId": "1", "dateSent": "1609459140000",
                  "standardMessage": {"text": {"body": "yes"}}}},
    {"chatItem": {"authorId": "2", "remoteDeletedMessage": {}}},
    {"chatItem": {"authorId": "2", "standardMessage": {"attachments": []}}},
]  # fmt: skip
SIGTOP = [
    {"type": "incoming", "sent_at": 1609459140000, "body": "hello", "source": "Ada Example"},
    {"type": "call-history", "sent_at": 1609459140000, "body": None},
    {"type": "outgoing", "sent_at": 1609459140000, "body": "yes"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "own", "kinds"),
    [
        ("\n".join(map(json.dumps, SIGNAL_CLI)), "+1 555 0102", ["notices", "media"]),
        ("\n".join(map(json.dumps, SIGNAL_APP)), "Me",
         ["notices"] * 4 + ["deleted messages", "media"]),
        (json.dumps(SIGTOP, indent=2), "Me", ["notices"]),
    ],
    ids=["signal-cli", "app", "sigtop"],
)  # fmt: skip
def test_signal(text, own, kinds):
    assert said("signal", text) == [("Ada Example", "hello"), (own, "yes")]
    assert left_out("signal", text) == kinds
    assert FORMATS["signal"].fits(text)
    assert not FORMATS["telegram"].fits(text)
    dates = {item.date for item in items("signal", text) if isinstance(item, Message)}
    assert dates == {"2020-12-31"}


def test_telegrams_fields_without_a_value():
    text = ["one", {"type": "link", "text": None}]
    chat = {"messages": [telegram(date=None, text=text)]}
    assert items("telegram", json.dumps(chat)) == [Message("Ada Example", "one", "")]


@pytest.mark.parametrize(
    "text", ['{"text": null}\n{"text": "one"}\n', '{"text": "one"}\n{"text": 1}\n']
)
def test_json_lines_of_which_some_have_no_text(text):
    assert FORMATS["jsonl"].fits(text)
    assert said("jsonl", text) == [("unknown", "one")]


def test_json_lines():
    rows = [
        {"text": "one\ntwo", "author": "Ada Example", "created_at": "2020-12-31T00:00:00Z"},
        {"text": None},
        {"text": "three \ud83d"},
    ]
    text = "\n".join(map(json.dumps, rows))
    assert items("jsonl", text) == [
        Message("Ada Example", "one two", "2020-12-31"),
        LeftOut("messages without text"),
        Message("unknown", "three \ufffd"),
    ]
