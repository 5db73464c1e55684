"""Which languages a text is in, by the small words that every text of a language is full of."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, List, Tuple

# Frequent, and rare as words of the other languages here.
WORDS: Dict[str, str] = {
    "English": "the and you that is it of this have with what for be was to in a i no he my on me",
    "German": "und ich nicht das ist der die du ein zu auch mit wir aber",
    "Dutch": "het een ik niet van dat je en maar ook wel voor zijn",
    "French": "je pas est les et vous une pour dans qui ça c'est mais nous",
    "Spanish": "el que y los no por una es las pero con lo está muy",
    "Portuguese": "não um uma é você eu com mas isso os muito está ao são",
    "Italian": "il che non di è una per sono ma anche gli questo ho della",
    "Polish": "nie się to jest że na czy jak ale już tak mnie tylko",
    "Turkish": "bir ve bu ne için çok ama değil var ben da mi gibi",
    "Indonesian": "yang dan ini itu tidak aku untuk dengan ada kamu saya sudah",
    "Russian": "и не что я на это ты как но мы так он есть",
    "Ukrainian": "і не що я на це ти як але ми так він є",
    "Greek": "και το να η είναι δεν που με τα για μου θα",
    "Arabic": "في من على لا ما هذا أن انا مع هو يا كل",
    "Hindi": "है में और के की नहीं यह मैं का को से हैं",
}
# One such word in a line, and a few in all, say nothing.
_LEAST_IN_LINE, _LEAST = 1.5, 5
_LEAST_SHARE = 0.05


def _weights() -> Dict[str, Dict[str, float]]:
    """The languages of each word; a word of several counts for each in part."""
    found: Dict[str, Dict[str, float]] = {}
    for language, words in WORDS.items():
        for word in words.split():
            found.setdefault(word, {})[language] = 1.0
    return {
        word: {language: 1 / len(languages) for language in languages}
        for word, languages in found.items()
    }


_WEIGHTS = _weights()


class LanguageCounter:
    """Counts the small words of each language; :meth:`shares` says what they make likely."""

    def __init__(self) -> None:
        self._scores: Dict[str, float] = defaultdict(float)

    def add(self, text: str) -> None:
        """Count the words of whole lines; each line is in the language that it fits best."""
        for line in text.lower().split("\n"):
            scores: Dict[str, float] = defaultdict(float)
            for word in line.replace("’", "'").split():
                for language, weight in _WEIGHTS.get(word.strip('.,;:!?…"()'), {}).items():
                    scores[language] += weight
            best = max(scores, key=lambda language: scores[language], default="")
            if best and scores[best] >= _LEAST_IN_LINE:
                self._scores[best] += scores[best]

    def shares(self) -> List[Tuple[str, float]]:
        """Languages and their shares, the largest first; none where too few words are known."""
        total = sum(self._scores.values())
        if total < _LEAST:
            return []
        shares = sorted(self._scores.items(), key=lambda item: -item[1])
        return [(name, score / total) for name, score in shares if score >= _LEAST_SHARE * total]
