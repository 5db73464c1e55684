"""What files contain, and what fits them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn import cli
from fastrnn.lm import data, preset
from fastrnn.lm.command.description import contents, scripts
from fastrnn.lm.command.fit import FEWEST, MOST, epoch_seconds, fit, seconds_of
from fastrnn.lm.command.sizes import SIZES, sizes_for
from fastrnn.lm.data.languages import WORDS
from fastrnn.lm.data.texts import Text, whole_lines
from fastrnn.lm.training import Training
from fastrnn.lm.training.checkpoint import load_checkpoint
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

CHAT = """31/12/2020, 23:58 - Messages and calls are end-to-end encrypted.
31/12/2020, 23:59 - Ada Example: Hello 😀
01/02/2021, 00:00 - Bob Sample: Привет
01/02/2021, 00:01 - Ada Example: <Media omitted>
01/02/2021, 00:02 - Ada Example: call +1 555 0100
"""


@given(st.lists(st.text("ab \n", max_size=9).filter(bool), max_size=5))
def test_whole_lines(pieces):
    found = list(whole_lines(pieces))
    assert "".join(found) == "".join(pieces)
    assert all(piece.endswith("\n") for piece in found[:-1])


@given(st.text("ab é\n", min_size=1), st.integers(1, 4))
def test_contents(text, size):
    content = text.encode()
    pieces = [content[n : n + size] for n in range(0, len(content), size)]
    found = contents(Text("book", lambda: pieces))
    lines = text[:-1].split("\n") if text.endswith("\n") else text.split("\n")
    assert found.words == len(text.split())
    assert (found.lines, found.longest) == (len(lines), max(map(len, lines)))
    assert found.characters == {c: text.count(c) for c in set(text)}


SENTENCES = {
    "English": "I think that this is what you have for the day",
    "German": "ich weiß nicht, ob das der Hund ist, aber wir gehen auch",
    "Dutch": "ik weet niet of dat het huis van jou is, maar je mag ook",
    "French": "Je ne sais pas, mais c’est pour vous et nous",
    "Spanish": "no sé por qué, pero el perro es muy grande y los niños están",
    "Portuguese": "Eu não sei, mas isso é muito bom e você está com um cão",
    "Italian": "non so che cosa è, ma il cane della signora è anche qui",
    "Polish": "Nie wiem czy to jest tak, ale już się na mnie patrzy",
    "Turkish": "ben bir şey bilmiyorum ama bu çok güzel değil",
    "Indonesian": "aku tidak tahu yang ini dan itu, untuk kamu",
    "Russian": "я не знаю, что это, но мы так и есть",
    "Ukrainian": "я не знаю, що це, але ми так і є",
    "Greek": "δεν ξέρω τι είναι, και με το φως θα μου το πεις",
    "Arabic": "هذا ما كل من في البيت مع أن لا يا",
    "Hindi": "यह घर है और मैं नहीं जानता की यह का है",
}


@pytest.mark.parametrize("language", WORDS)
def test_languages(language):
    other = "Greek" if language != "Greek" else "English"
    lines = [SENTENCES[language]] * 4 + [SENTENCES[other]]
    (first, share), (second, rest) = contents(Text.of("\n".join(lines))).languages
    assert (first, second) == (language, other)
    assert share + rest == pytest.approx(1)
    assert share > 0.6


def test_a_text_without_common_words_has_no_language():
    assert contents(Text.of("zzz qqq\nthe\n1 2 3")).languages == []


def test_scripts():
    found = dict(scripts({"a": 4, "é": 1, "я": 2, "你": 1, "Ａ": 1, "😀": 1, " ": 9, "1": 3}))
    shares = {"Latin": 0.6, "Cyrillic": 0.2, "Han": 0.1, "emoji and symbols": 0.1}
    assert found == pytest.approx(shares)
    assert scripts({" ": 2}) == []


def said(capsys, *arguments):
    assert cli.main(["data", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_chat_is_described(tmp_path, capsys):
    path = tmp_path / "a chat.txt"
    path.write_text(CHAT, encoding="utf-8")
    out = said(capsys, path)
    for line in (
        f"{path}\n",
        "  read        WhatsApp, 3 messages of 2 people; left out 1 media, 1 system lines\n",
        "  people      Ada Example 2, Bob Sample 1\n",
        "  dates       2020-12-31 to 2021-02-01\n",
        "  characters  32, 19 different\n",
        "  words       7\n",
        "  lines       3, the longest of 16 characters\n",
        "  scripts     Latin 56.2%, Cyrillic 37.5%, emoji and symbols 6.2%\n",
    ):
        assert line in out
    assert f"  fits        fastrnn train --data '{path}' --hidden 64 --batch 4 " in out
    assert "3 messages of 2 people, 1 of them of Bob Sample; left" in said(
        capsys, path, "--from", "Bob Sample"
    )
    assert "; replaced 1 phone numbers\n" in said(capsys, path, "--redact")
    assert "people" not in said(capsys, path, "--format", "text")


def test_named_texts_and_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTRNN_DATA", str(tmp_path))
    (tmp_path / "nietzsche.txt").write_text("prose")
    out = said(capsys).splitlines()
    assert out[0].startswith("builtin          comes with Python: ")
    assert out[1] == f"nietzsche        {tmp_path}/nietzsche.txt"
    url = data.SOURCES["tinyshakespeare"].url
    place = tmp_path / "cache" / "fastrnn" / "tinyshakespeare.txt"
    assert out[2] == f"tinyshakespeare  would be downloaded from {url} to {place}"
    (tmp_path / "two.txt").write_text("one\ntwo")
    out = said(capsys, tmp_path, "builtin")
    assert f"{tmp_path}/nietzsche.txt\n" in out
    assert f"{tmp_path}/two.txt\n  characters  7, 6 different\n" in out
    assert "\nbuiltin\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "none.txt: no such file, nor a text with a name"),
        (["b.txt"], "b.txt: not UTF-8 text: byte 0xff at position 1"),
        (["a.txt", "--format", "signal"], "a.txt: cannot be read as Signal: line 1 does not"),
        (["a.txt", "--from", "Ada"], "from: got 'Ada', but a.txt is not a chat"),
        (["a.txt", "--encoding", "none"], "encoding: got 'none', wanted"),
    ],
)
def test_what_cannot_be_described(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("prose")
    (tmp_path / "b.txt").write_bytes(b"a\xff")
    assert cli.main(["data", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_files_are_described_without_mxnet():
    program = "import sys; sys.modules['mxnet'] = None; from fastrnn import cli; cli.main(['data'])"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0
    assert found.stdout.startswith("builtin ")


def test_larger_texts_have_larger_models():
    hidden = [size.settings["hidden"] for size in SIZES]
    assert hidden == sorted(set(hidden))
    assert [len(sizes_for(n)) for n in (0, 100_000, 10**6, 10**7, 10**9)] == [1, 2, 3, 4, 5]
    for size in SIZES:
        preset("demo", **size.settings)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "10 m", "1e3s", "infs", "10min"])
def test_what_is_no_time(text, tmp_path, capsys):
    assert cli.main(["train", "--fit", text, "--out", str(tmp_path / "run")]) == 2
    assert "fit: got " in capsys.readouterr().err


TEXT = Text.of("some words to learn, and others\n" * 3000)  # 96,000 characters


def fitted(seconds, seconds_of_epoch, **changes):
    """What is chosen where an epoch takes so many seconds, by the hidden units."""
    asked = []

    def measure(training):
        asked.append(training.settings.hidden)
        return seconds_of_epoch[training.settings.hidden]

    found = fit(preset("demo"), changes, TEXT, [mx.cpu()], seconds, measure)
    return found, asked


def test_a_model_and_epochs_for_the_time():
    found, asked = fitted(100, {128: 10})
    assert (found.settings.hidden, found.settings.epochs, asked) == (128, 10, [128])
    assert found.seconds == 100
    assert found.settings.decay_after == 6
    assert str(found).startswith("1 layer of 128, 8 x 64 tokens in a batch, 10 epochs of 10.0 s: ")


def test_a_smaller_model_where_time_is_short():
    found, asked = fitted(100, {128: 26, 64: 20})
    assert (found.settings.hidden, found.settings.epochs, asked) == (64, 5, [128, 64])
    found, _ = fitted(1, {128: 26, 64: 20})
    assert (found.settings.hidden, found.settings.epochs) == (64, 1)
    assert found.seconds == 20


def test_not_more_epochs_than_help():
    assert fitted(10_000, {128: 1})[0].settings.epochs == MOST
    assert fitted(float("inf"), {128: 1})[0].settings.epochs == MOST
    assert fitted(FEWEST, {128: 1})[0].settings.epochs == FEWEST


def test_what_is_said_explicitly_wins():
    found, _ = fitted(100, {128: 26, 64: 20}, epochs=3, batch=5, decay=0.5)
    chosen = found.settings
    assert (chosen.hidden, chosen.epochs, chosen.batch, chosen.decay) == (128, 3, 5, 0.5)
    assert fitted(1e9, {128: 1}, epochs=9)[0].settings.decay_after == 6
    found, _ = fitted(100, {77: 99}, hidden=77, tie_weights=True)
    assert (found.settings.hidden, found.settings.embed, found.settings.epochs) == (77, 77, 1)


def test_an_epoch_takes_about_what_it_is_said_to():
    training = Training(preset("demo", hidden=16, batch=8, validation=0.2), TEXT, [mx.cpu()])
    said = epoch_seconds(training)
    took = Training(training.settings, TEXT, [mx.cpu()]).run_epoch()["seconds"]
    assert took / 4 < said < took * 4


def test_training_for_a_time(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("some words to learn\n" * 100)
    command = ["train", "--data", str(tmp_path / "book.txt"), "--out", str(tmp_path / "run")]
    options = ["--device", "cpu", "--sample", "0", "--ngram", "0"]
    assert cli.main([*command, *options, "--fit", "2s", "--steps", "20"]) == 0
    out = capsys.readouterr().out
    settings = load_checkpoint(tmp_path / "run" / "last.npz").settings
    line = f"fit     1 layer of 64, 4 x 20 tokens in a batch, {settings.epochs} epochs of "
    assert out.startswith(line)
    assert 1 <= settings.epochs <= MOST
    assert (settings.hidden, settings.decay) == (64, 0.7)
    assert f"epoch {settings.epochs}/{settings.epochs}" in out.replace("epoch  ", "epoch ")
    assert cli.main([*command, *options, "--fit", "2s"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert cli.main([*command, "--resume", "--fit", "2s"]) == 2
    assert "fit and resume: the run keeps its settings" in capsys.readouterr().err
    more = str(settings.epochs + 1)
    assert cli.main([*command, "--resume", "--device", "cpu", "--epochs", more]) == 0


def test_a_pipe_is_read_once(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "fastrnn", "train", "--data", "-", "--fit", "1s", "--epochs", "1",
         "--sample", "0", "--ngram", "0", "--device", "cpu", "--out", str(tmp_path / "run")],
        input="some words to learn\n" * 50, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert "text    standard input: " in found.stdout or "text    <pipe>: " in found.stdout
