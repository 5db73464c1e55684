"""Tokenizers: words by Unicode's text segmentation, the older rule, and normalized texts."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.lm import InputError, Settings, Vocabulary, data, preset
from fastrnn.lm.data import corpus
from fastrnn.lm.data.corpus import encode_corpus
from fastrnn.lm.generation import Writer
from fastrnn.lm.tokenizers import (
    END_OF_LINE,
    UNKNOWN,
    CharacterTokenizer,
    CodePointTokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    words,
)
from fastrnn.lm.training import Training
from fastrnn.lm.training.checkpoint import load_checkpoint, save_checkpoint
from fastrnn.mxnet import import_mxnet

regex = pytest.importorskip("regex")
mx = import_mxnet()

CHARACTERS, WORDS, CODE_POINTS = CharacterTokenizer(), WordTokenizer(), CodePointTokenizer()
KINDS = [CHARACTERS, WORDS, CODE_POINTS, WhitespaceTokenizer()]
# Letters, marks and signs of many scripts, what joins them, spaces of several kinds.
MIXED = (
    "aé 1'’-_.<>()\u00a0\u3000\u0301\u200d\u200c\u200b\u200f\u00ad\ufe0f\u0600"
    "हिन्दीกำ่เ你カｶﾞ가가שָׁ״ؤمُ👩🚀👍🏽🇩🇪♥«»“”„।،·־"
)
UNICODE = st.one_of(
    st.text(MIXED),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n")),
).map(lambda line: line.replace(END_OF_LINE, ""))  # it reads as the end of a line
HINDI = "हिन्दी भाषा है। हिन्दी की किताब है।\n" * 40


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("हिन्दी भाषा है।", ["हिन्दी", "भाषा", "है", "।"]),
        ("cafe\u0301 naïve co\u00adop", ["cafe\u0301", "naïve", "co\u00adop"]),
        ("مَرْحَبًا بك", ["مَرْحَبًا", "بك"]),
        ('שָׁלוֹם צה״ל צה"ל כל־יום', ["שָׁלוֹם", "צה״ל", 'צה"ל', "כל־יום"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👩‍🚀👍🏽 🇩🇪🇫🇷❤️", ["👩‍🚀", "👍🏽", " ", "🇩🇪", "🇫🇷", "❤️"]),
        ("press 1️⃣ now", ["press", "1️⃣", "now"]),
        ("สวัสดี ครับ", ["ส", "วั", "ส", "ดี", " ", "ค", "รั", "บ"]),
        ("你好，3个", ["你", "好", "，", "3", "个"]),
        ("ガギ ｶﾞ ｷ", ["ガ", "ギ", " ", "ｶﾞ", " ", "ｷ"]),
        ("한국어 글", ["한국어", "글"]),
        ("l’été l·lusió bien‐être", ["l’été", "l·lusió", "bien‐être"]),
        ("\u200fשלום", ["\u200f", "שלום"]),
        ("dogs’ can’t", ["dogs", "’", " ", "can’t"]),
        ("1½ <é> café's", ["1½", "<é>", "café's"]),
    ],
)
def test_words_are_not_torn(line, tokens):
    assert WORDS.tokenize(line) == tokens
    assert WORDS.detokenize(tokens) == line


@pytest.mark.parametrize(
    "line",
    [
        "„Wort“, sagte er – «mot» et « mot » — ¿Qué? ¡Sí!",
        "“It’s the dogs’ bowl…” she said—then “no”.",
        "هذا كتاب، أليس كذلك؟ نعم؛ هو كتاب.",
        "זה ספר, לא? כן: ספר.",
        "यह एक किताब है। क्या? हाँ!",
        "　这是一本书。“是吗？”他问：是，Python 3 的书。",
        "これは本です。「ほんとう？」",
        "นี่คือหนังสือ ใช่ไหม  ครับ",
        "ბავშვი, ხე. Ещё одна книга: «да». ቃል፡ቃል። བོད་སྐད།",
        "good 👍🏽👍🏽 morning 😀!",
    ],
)
def test_text_with_the_usual_spaces_comes_back(line):
    vocabulary = Vocabulary.build(WORDS.tokenize(line), WORDS)
    assert vocabulary.decode(vocabulary.encode(line)) == line
    numbers = vocabulary.encode(line)
    writer = Writer(None, vocabulary, preset("zaremba-small"), None)
    pieces = [writer._piece(int(a), int(b)) for a, b in zip(numbers, numbers[1:])]
    assert vocabulary.tokens[numbers[0]] + "".join(pieces) == line


def boundaries(pieces):
    return set(np.cumsum([len(piece) for piece in pieces]).tolist())


def without_spaces(line):
    return "".join(line.split())


@given(UNICODE)
def test_no_token_ends_inside_a_grapheme(line):
    # Some versions of \X bind a letter to a virama that stands on no letter.
    line = regex.sub(r"\p{InSC=Virama}", "", without_spaces(line))
    pieces = WORDS.cut(line)
    assert "".join(pieces) == line
    assert boundaries(pieces) <= boundaries(regex.findall(r"\X", line))


@given(UNICODE)
def test_nothing_but_spaces_is_lost(line):
    assert without_spaces("".join(WORDS.cut(line))) == without_spaces(line)


@given(UNICODE)
def test_what_is_written_reads_as_it_was_written(line):
    written = WORDS.detokenize(WORDS.cut(line))
    assert WORDS.detokenize(WORDS.cut(written)) == written
    assert without_spaces(written) == without_spaces(line)


@given(st.text("你好ガกำ\u0301\u200f\u200d👩👍🏽🇩。，“”’—«€  \u3000\u00a0\n"))
def test_beside_other_signs_every_space_comes_back(whole):
    lines = "\n".join(line and "你" + line + "你" for line in whole.split("\n"))
    assert WORDS.detokenize(WORDS.tokenize(lines)) == lines


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_cut_and_joined_as_ever(line):
    line = line.replace(END_OF_LINE, "")
    tokens = WORDS.tokenize(line)
    assert tokens == CODE_POINTS.tokenize(line)
    assert WORDS.detokenize(tokens) == CODE_POINTS.detokenize(tokens)


def test_a_long_english_text_is_cut_and_joined_as_ever():
    whole = data.load_text("builtin")
    tokens = WORDS.tokenize(whole)
    assert tokens == CODE_POINTS.tokenize(whole)
    assert WORDS.detokenize(tokens) == CODE_POINTS.detokenize(tokens)


@given(UNICODE)
def test_a_word_being_typed_is_the_last_token_so_far(line):
    begun = WORDS.begun(line)
    assert line.endswith(begun)
    if begun:
        # An ending such as 's would be no token of its own with a letter more.
        assert begun + "b" == WORDS.cut(line + "b")[-1] or begun == WORDS.cut(line)[-1]


@pytest.mark.parametrize(
    ("line", "characters", "words"),
    [
        ("यह हि", "हि", "हि"),
        ("cafe\u0301", "cafe\u0301", "cafe\u0301"),
        ("את שָׁ", "שָׁ", "שָׁ"),
        ("می\u200c", "می\u200c", "می\u200c"),
        ("क्षत्रि-", "क्षत्रि-", "क्षत्रि-"),
        ("ab\u200bcd", "cd", "cd"),
        ("กินข้", "กินข้", ""),
    ],
)
def test_word_being_typed(line, characters, words):
    assert CHARACTERS.begun(line) == characters
    assert WORDS.begun(line) == words


class Dictionary(Writer):
    """Knows how often each word is meant, and nothing else."""

    def __init__(self):
        self.words = {"हिन्दी": 0.5, "हित": 0.3, "हाथ": 0.2}
        vocabulary = Vocabulary.build(" ".join(self.words), CHARACTERS)
        super().__init__(None, vocabulary, preset("demo"), None)

    def read(self, numbers, state=None):
        begun = (state or "") + self.vocabulary.decode(numbers)
        weight = dict.fromkeys(self.vocabulary.tokens, 1e-12)
        for word, probability in self.words.items():
            if word.startswith(begun):
                weight[(word + " ")[len(begun)]] += probability
        values = np.array([weight[token] for token in self.vocabulary.tokens])
        return np.log(values / values.sum()), begun

    def step(self, numbers, states):
        found = [self.read([number], state) for number, state in zip(numbers, states)]
        return np.stack([scores for scores, _ in found]), [state for _, state in found]


def test_words_are_suggested_after_a_vowel_sign():
    found = Dictionary().suggest("हि", k=2).completions
    assert [item.text for item in found] == ["हिन्दी", "हित"]
    assert [item.probability for item in found] == pytest.approx([5 / 8, 3 / 8], rel=1e-6)


def small(**changes):
    return preset("zaremba-small", hidden=8, embed=8, batch=4, steps=10, min_count=1, **changes)


def test_a_run_from_before_keeps_its_rule_and_its_numbers(tmp_path, monkeypatch):
    settings = small(validation=0.2)
    with monkeypatch.context() as before:
        before.setattr(corpus, "tokenizer_for", lambda level: CODE_POINTS)
        old = Training(settings, HINDI, [mx.cpu()])
        row = old.run_epoch()
    content = json.loads(old.corpus.vocabulary.to_json())
    assert content.pop("version") == 1
    monkeypatch.setattr(Vocabulary, "to_json", lambda self: json.dumps(content))
    save_checkpoint(tmp_path / "best.npz", old.checkpoint())

    kept = load_checkpoint(tmp_path / "best.npz")
    assert kept.vocabulary.tokenizer == CODE_POINTS
    tokenize = kept.vocabulary.tokenizer.tokenize
    assert tokenize("हिन्दी है।") == [
        "ह",
        "ि",
        "न",
        "्",
        "द",
        "ी",
        "ह",
        "ै",
        "।",
    ]
    assert tokenize("cafe\u0301 🇩🇪 ’s") == [
        "cafe",
        "\u0301",
        "🇩",
        "🇪",
        "’s",
    ]
    assert CODE_POINTS.detokenize(["“", "a", "”", ",", "(", "b", ")"]) == "“ a ”, (b)"
    resumed = Training(settings, HINDI, [mx.cpu()], kept)
    assert resumed.validate() == row["validation"]
    assert Writer.from_checkpoint(kept).suggest("ह").next


def test_new_runs_keep_the_new_rule(tmp_path):
    new = Training(small(), HINDI, [mx.cpu()])
    assert "हिन्दी" in new.corpus.vocabulary
    new.run_epoch()
    save_checkpoint(tmp_path / "best.npz", new.checkpoint())
    kept = load_checkpoint(tmp_path / "best.npz").vocabulary
    assert kept == new.corpus.vocabulary
    assert kept != Vocabulary(kept.tokens, CODE_POINTS)
    assert "version" in json.loads(kept.to_json())


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("3", "version 3 of level 'word'"),
        ('"2"', "wanted JSON"),
        ("true", "wanted"),
    ],
)
def test_a_version_from_the_future(version, message):
    content = f'{{"level": "word", "version": {version}, "tokens": ["<unk>", "<eos>"]}}'
    with pytest.raises(InputError, match=message):
        Vocabulary.from_json(content)


def test_without_regex_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "regex", None)
    words._rules.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'fastrnn\[lm\]'") as caught:
        Training(small(), HINDI, [mx.cpu()])
    assert "\n" not in str(caught.value)
    assert CODE_POINTS.tokenize("a b") == ["a", "b"]
    assert Dictionary().suggest("हि", k=2).completions
    monkeypatch.undo()
    words._rules.cache_clear()


def seconds(kind, line):
    begun = time.process_time()
    kind.detokenize(kind.tokenize(line))
    kind.begun(line)
    return time.process_time() - begun


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "unit",
    [
        *["a", "a-", "a'", "'s", "<", "<a", "-", " ", "\u00a0", "\u0301", "\u200f", "\u200d", "हि"],
        *["🇩", "👩\u200d", "👍🏽", "가", "ᄀ", "กำ", "你", "你 ", "\u0600", 'ה"', "’", "\u200b"],
    ],
)
def test_no_text_takes_quadratic_time(kind, unit):
    """Eight times the text takes about eight times the processor's time, not 64 times."""
    for end in ("!", "a", ""):
        short, long = (seconds(kind, unit * (n // len(unit)) + end) for n in (10_000, 80_000))
        assert long < 16 * short + 0.5


FILE = "\ufeffone\r\ntwo three\rfour\r\n"
CLEAN = "one\ntwo three\nfour\n"


@pytest.mark.parametrize("level", ["character", "word", "whitespace"])
def test_texts_and_prompts_are_normalized_alike(level, tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(FILE.encode())
    assert data.load_text(str(path)) == CLEAN
    settings = Settings(level=level, validation=0)
    corpus = encode_corpus(FILE, settings)
    assert corpus.vocabulary == encode_corpus(CLEAN, settings).vocabulary
    assert corpus.vocabulary.encode(FILE).tolist() == corpus.train.tolist()
    assert corpus.vocabulary.decode(corpus.train) == CLEAN


def test_a_prompt_from_the_file_of_the_text(tmp_path):
    changes = {"embed": 8, "hidden": 8, "batch": 4, "steps": 10, "validation": 0}
    run = Training(preset("demo", **changes), "\ufeff" + FILE[1:] * 20, [mx.cpu()])
    same = Training(preset("demo", **changes), CLEAN * 20, [mx.cpu()])
    assert run.text_sha256 == same.text_sha256
    save_checkpoint(tmp_path / "best.npz", run.checkpoint())
    writer = Writer.from_checkpoint(tmp_path)
    prompts = FILE[:9], CLEAN[:7]
    one, other = ("".join(writer.generate(prompt, length=9, seed=1)) for prompt in prompts)
    assert one == other
    for prefixes in (prompts, ("\ufeffon", "on")):
        one, other = (writer.suggest(prefix) for prefix in prefixes)
        assert one == other
        assert one.completions


def test_marks_within_a_text_keep_no_prompt_from_being_normalized():
    """Such as between files that were put together."""
    vocabulary = encode_corpus(FILE * 2, Settings()).vocabulary
    assert "\ufeff" in vocabulary
    assert vocabulary.encode(FILE).tolist() == vocabulary.encode(CLEAN).tolist()


def test_markers_of_unknown_words_are_not_torn():
    assert WORDS.tokenize(f"a {UNKNOWN} b") == ["a", UNKNOWN, "b"]
