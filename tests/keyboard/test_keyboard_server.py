"""The keyboard's API: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import mx

from fastrnn.lm.keyboard import server
from fastrnn.lm.keyboard.engine import Engine
from fastrnn.lm.keyboard.server import host_name, served_names
from fastrnn.lm.keyboard.states import Kept

TEXTS = ["The value of an object is", "If the instance ", "class, which\nis", "a 😀 b", ""]


def suggest(served, **body):
    """The whole answer, however many requests it takes."""
    body = {"run": "letters", **body}
    while True:
        status, answer = served.post("/api/suggest", body)
        assert status == 200, answer
        if answer["complete"]:
            return answer


def test_runs_are_described(served):
    status, headers, content = served.call("GET", "/api/runs")
    letters, words = json.loads(content)["runs"]
    assert (status, headers["content-type"]) == (200, "application/json")
    assert (letters["name"], letters["level"]) == ("letters", "character")
    assert "e" in letters["characters"]
    assert (words["level"], words["characters"]) == ("word", "")
    assert words["vocabulary"] > 100


@pytest.mark.parametrize("run", ["letters", "words"])
def test_ten_at_once_get_what_one_gets(served, run_folders, run):
    alone = Engine.load(run_folders[run], Kept(1 << 26), "alone", mx.cpu())
    clients = [f"{text} {n}" for n in range(2) for text in TEXTS]

    def type_it(text):
        answer = None
        for length in range(len(text) + 1):
            answer = suggest(served, run=run, before=text[:length])
        return answer

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(type_it, clients))
    for text, answer in zip(clients, answers):
        wanted = alone.answer(text)
        assert [t["text"] for t in answer["tokens"]] == [t["text"] for t in wanted["tokens"]]
        assert [t.get("bits") for t in answer["tokens"]] == pytest.approx(
            [t.get("bits") for t in wanted["tokens"]], abs=2e-3
        )
        assert answer["keys"] == pytest.approx(wanted["keys"], abs=1e-4)
        assert [s["text"] for s in answer["suggestions"]] == [
            s["text"] for s in wanted["suggestions"]
        ]


def generate(served, **body):
    _, headers, content = served.call("POST", "/api/generate", {"run": "letters", **body})
    assert headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in content.splitlines()]
    assert lines.pop() == {"end": True}
    return "".join(line["text"] for line in lines)


def test_writing_is_a_stream(served, run_folders):
    alone = Engine.load(run_folders["letters"], Kept(1 << 26), "alone", mx.cpu())
    options = {"length": 50, "temperature": 0.7, "seed": 5}
    wanted = "".join(alone.generate("The ", **options))
    assert generate(served, before="The ", **options) == wanted
    assert generate(served, before="T😀he ", **options) == wanted


def test_a_client_that_goes_ends_its_stream(served):
    with ThreadPoolExecutor(1) as pool:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        body = json.dumps({"run": "letters", "before": "a", "length": 10_000})
        connection.request("POST", "/api/generate", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.readline()
        connection.close()
        answer.close()
        assert pool.submit(suggest, served, before="The v").result()["complete"]


def refused(served, path, body, **headers):
    status, answer = served.post(path, body, **headers)
    assert set(answer["error"]) == {"argument", "message"}
    assert answer["error"]["message"].startswith(answer["error"]["argument"])
    return status, answer["error"]["argument"]


@pytest.mark.parametrize(
    ("path", "changes", "wanted"),
    [
        ("suggest", {"run": "other"}, (404, "run")),
        ("suggest", {"run": 3}, (400, "run")),
        ("suggest", {"before": None}, (400, "before")),
        ("suggest", {"after": 1}, (400, "after")),
        ("suggest", {"k": -1}, (400, "k")),
        ("suggest", {"k": 11}, (400, "k")),
        ("suggest", {"k": True}, (400, "k")),
        ("suggest", {"start": 0.5}, (400, "start")),
        ("suggest", {"start": -1}, (400, "start")),
        ("suggest", {"colour": 1}, (400, "colour")),
        ("suggest", {"before": "a" * 250_001}, (413, "before and after")),
        ("suggest", {"before": "a" * (1 << 20)}, (413, "body")),
        ("generate", {"temperature": -1}, (400, "temperature")),
        ("generate", {"temperature": float("nan")}, (400, "temperature")),
        ("generate", {"temperature": "hot"}, (400, "temperature")),
        ("generate", {"length": 0}, (400, "length")),
        ("generate", {"length": 10_001}, (400, "length")),
        ("generate", {"seed": -1}, (400, "seed")),
        ("generate", {"after": "b"}, (400, "after")),
        ("generate", {"before": "a" * 250_001}, (413, "before")),
    ],
)
def test_what_is_refused(served, path, changes, wanted):
    body = {"run": "letters", "before": "a", **changes}
    assert refused(served, f"/api/{path}", body) == wanted


@pytest.mark.parametrize("body", ["", "{", "[]", "3", b"\xff", "[" * 100_000])
def test_bodies_that_are_no_object(served, body):
    kind = {"Content-Type": "application/json"}
    assert refused(served, "/api/suggest", body, **kind) == (400, "body")


def test_fields_that_are_missing(served):
    assert refused(served, "/api/suggest", {"run": "letters"}) == (400, "before")
    assert refused(served, "/api/generate", {"before": "a"}) == (400, "run")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_types_of_content(served, kind):
    body = json.dumps({"run": "letters", "before": "a"})
    headers = {"Content-Type": kind}
    assert refused(served, "/api/suggest", body, **headers) == (415, "content-type")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "localhost.evil.example", "0.0.0.0", "10.0.0.1", ""],
)
@pytest.mark.parametrize("path", ["/", "/api/runs", "/keyboard.js"])
def test_other_hosts(served, host, path):
    status, _, content = served.call("GET", path, Host=host)
    assert (status, json.loads(content)["error"]["argument"]) == (421, "host")


def test_no_host_and_two_hosts(served):
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), 30) as raw:
            raw.sendall(b"GET /api/runs HTTP/1.0\r\n" + lines + b"\r\n")
            assert raw.recv(100).split()[1] in (b"421", b"400")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:1", "[::1]:8765"])
def test_own_hosts(served, host):
    assert served.call("GET", "/api/runs", Host=host)[0] == 200
    assert served.call("GET", "/api/runs", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", ""])
def test_other_origins(served, origin):
    body = {"run": "letters", "before": "a"}
    headers = {"Origin": origin, "Host": "localhost:2"}
    assert refused(served, "/api/suggest", body, **headers) == (403, "origin")


def test_methods(served):
    assert served.call("GET", "/api/suggest")[0] == 405
    assert served.call("OPTIONS", "/api/suggest")[0] == 405
    assert served.call("POST", "/api/runs", {})[0] == 405
    assert served.call("GET", "/../server.py")[0] == 404
    assert served.call("GET", "/server.py")[0] == 404
    assert refused(served, "/api/other", {}) == (404, "path")
    assert refused(served, "/api/runs", {}) == (405, "method")
    assert served.call("GET", "/api/suggest")[1]["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", *(f"/{name}" for name in server.FILES), "/api/runs", "/x"])
def test_headers_of_all_answers(served, path):
    _, headers, content = served.call("GET", path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in headers
    assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")


def test_the_page_has_nothing_inline():
    page = (server.PAGE / "index.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("<script src=") > 0
    assert "<style" not in page
    assert " style=" not in page
    assert " on" + "click" not in page


def test_names_of_hosts():
    assert host_name("[::1]:80") == "::1"
    assert host_name("Localhost:80") == "localhost"
    assert "example.org" in served_names("example.org")
    assert served_names("127.0.0.1") == {"localhost", "127.0.0.1", "::1"}


def test_addresses_of_any_number(served):
    """A server for the network takes numbers of addresses, which need no DNS, but no names."""
    guard = server._Guard(served.keyboard.app, served_names("0.0.0.0"), any_address=True)
    for host, fits in (("192.0.2.7:80", True), ("[2001:db8::1]", True), ("evil.example", False)):
        scope = {"headers": [(b"host", host.encode())]}
        assert (guard._refused(scope) is None) == fits
