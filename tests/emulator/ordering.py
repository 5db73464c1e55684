"""Finds what orders memory in the kernels' sources, and makes copies that can leave it out.

What orders memory is not listed here. It is every function of the vocabulary (device.cuh and other
files like it, and the emulator's cuda_names.h) whose body calls what the emulator orders memory
with, is an atomic with an acquire or release order, or calls another such function. A site is a
call of one, outside the vocabulary's own two halves. In an instrumented copy every site asks
`mutant::Chosen(its number)` whether to be left out, so that one build holds all the mutants:

- a barrier, fence or wait becomes nothing, and a vote its own argument;
- an acquire or release becomes a relaxed access, not a plain one: ThreadSanitizer would report a
  plain access for itself, whatever it was to order.

A comment `No mutant: REASON` on the site's line, or in the comment above it, says why no test can
notice that the site is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

# The emulator's functions that order memory begin with one of these verbs; test_mutants.py checks
# that against what they tell ThreadSanitizer.
ORDERING_CALL = re.compile(r"\b(?:Wait|Fence|Arrive|Signal)\w*\s*(?:<[^;(){}]*>\s*)?\(")
ORDERED_ATOMIC = re.compile(r"\b__ATOMIC_(?:ACQUIRE|RELEASE|ACQ_REL|SEQ_CST)\s*\)")
RELAXED = "Relaxed"  # what a relaxed twin is called besides
EXCEPTION = re.compile(r"No mutant: *(.*)")

_IGNORED = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", re.DOTALL)
_HEAD = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_NOT_NAMES = {"if", "for", "while", "switch", "return", "catch", "sizeof", "decltype"}
_VALUE_MAY_FOLLOW = {"return", "else", "do", "case"}


class Function(NamedTuple):
    """A function's definition, by its places in the text."""

    name: str
    start: int  # of the name
    body: Tuple[int, int]  # from the brace to behind its partner


@dataclass(frozen=True)
class Primitive:
    """A function that orders memory."""

    name: str
    method: bool
    void: bool
    atomic: bool  # it has a relaxed twin


@dataclass(frozen=True)
class Site:
    """A call of a primitive: text[begin:end] is the expression, the function's name at `name`."""

    path: str
    line: int
    primitive: Primitive
    begin: int
    name: int
    end: int
    exception: Optional[str]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.primitive.name}"


def blank(text: str) -> str:
    """Return the text with comments and literals as spaces, every place kept."""
    return _IGNORED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def partner(code: str, start: int) -> int:
    """Return the place behind the bracket that closes the one at `start`."""
    opening = code[start]
    closing = {"(": ")", "{": "}", "[": "]"}[opening]
    depth = 0
    for place in range(start, len(code)):
        depth += (code[place] == opening) - (code[place] == closing)
        if depth == 0:
            return place + 1
    raise ValueError(f"'{opening}' on line {_line(code, start)} is never closed")


def functions(code: str) -> Iterator[Function]:
    """Yield the functions that are defined in code without comments."""
    for head in _HEAD.finditer(code):
        if head.group(1) in _NOT_NAMES:
            continue
        behind = code[partner(code, head.end() - 1) :]
        brace = re.match(r"\s*(?:const\b|noexcept\b|\s)*{", behind)
        if brace:
            start = len(code) - len(behind) + brace.end() - 1
            yield Function(head.group(1), head.start(1), (start, partner(code, start)))


def primitives(vocabulary: Sequence[str]) -> Mapping[str, Primitive]:
    """Return the functions in the vocabulary's files that order memory, by name."""
    found: Dict[str, Primitive] = {}
    defined = [(code, f) for code in map(blank, vocabulary) for f in functions(code)]
    while True:
        calls = _calls(found)
        added = {}
        for code, function in defined:
            body = code[slice(*function.body)]
            atomic = ORDERED_ATOMIC.search(body) is not None
            if function.name in found or not (
                atomic or ORDERING_CALL.search(body) or (calls and calls.search(body))
            ):
                continue
            before = code[: function.start]
            void = re.search(r"\bvoid\s+$", before) is not None
            added[function.name] = Primitive(
                function.name, _in_class(code, function.start), void, atomic
            )
        if not added:
            return found
        found.update(added)


def _calls(found: Mapping[str, Primitive]) -> Optional[re.Pattern]:
    return re.compile(rf"\b(?:{'|'.join(found)})\s*(?:<[^;(){{}}]*>\s*)?\(") if found else None


def _in_class(code: str, place: int) -> bool:
    for head in re.finditer(r"\b(?:struct|class)\s+\w+[^;{}()]*{", code[:place]):
        if partner(code, head.end() - 1) > place:
            return True
    return False


def _twins(code: str) -> List[bool]:
    """Tell for each line whether it is in a half that only nvcc or only the emulator sees."""
    stack: List[bool] = []
    lines = []
    for line in code.splitlines():
        if re.match(r"\s*#\s*if", line):
            stack.append("FASTRNN_EMULATE" in line)
        lines.append(any(stack))
        if re.match(r"\s*#\s*endif", line):
            stack.pop()
    return lines


def find_sites(path: str, text: str, known: Mapping[str, Primitive]) -> List[Site]:
    """Return the calls of primitives in a file of kernels."""
    code, lines, calls = blank(text), text.splitlines(), _calls(known)
    twins, definitions = _twins(code), {f.start for f in functions(code)}
    sites = []
    for call in calls.finditer(code) if calls else ():
        name, line = call.start(), _line(code, call.start())
        primitive = known[re.match(r"\w+", call.group()).group()]  # type: ignore[union-attr]
        begin = _start_of_expression(code, name)
        if name in definitions or twins[line - 1] or _declares(code, begin):
            continue
        if primitive.method == (re.search(r"(?:\.|->)\s*$", code[:name]) is not None):
            end = partner(code, call.end() - 1)
            sites.append(Site(path, line, primitive, begin, name, end, _exception(lines, line)))
    return sites


def _line(code: str, place: int) -> int:
    return code.count("\n", 0, place) + 1


def _declares(code: str, begin: int) -> bool:
    """Tell whether what stands before an expression makes it a declaration."""
    word = re.search(r"(\w+|[*&>])\s*$", code[:begin])
    return word is not None and word.group(1) not in _VALUE_MAY_FOLLOW


def _start_of_expression(code: str, place: int) -> int:
    """Walk back from a name over the object or namespace that it is a member of."""
    member = re.compile(r"(?:\.|->|::)\s*$")
    while True:
        match = member.search(code[:place])
        if match is None:
            return place
        place = match.start()
        while place > 0 and code[place - 1] in ")]":
            opening = {")": "(", "]": "["}[code[place - 1]]
            starts = [p for p in range(place) if code[p] == opening]
            place = next(p for p in reversed(starts) if partner(code, p) == place)
        place = re.search(r"\w*$", code[:place]).start()  # type: ignore[union-attr]


def _exception(lines: Sequence[str], line: int) -> Optional[str]:
    """Return the reason that is given beside or above a line (counted from 1), if any."""
    above = line - 2
    while above >= 0 and lines[above].lstrip().startswith("//"):
        above -= 1
    comment = [text.lstrip().lstrip("/").strip() for text in lines[above + 1 : line - 1]]
    beside = EXCEPTION.search(lines[line - 1])
    reason = beside or EXCEPTION.search(" ".join(comment))
    return reason.group(1) if reason else None


def instrument(text: str, sites: Sequence[Site], first: int) -> str:
    """Return a file of kernels whose sites can be left out; they are numbered from `first`."""
    insertions = []
    for number, site in enumerate(sites, first):
        insertions.append((site.begin, f"(::mutant::Chosen({number}) ? {_left_out(text, site)} : "))
        insertions.append((site.end, ")"))
    for place, inserted in sorted(insertions, key=lambda insertion: insertion[0], reverse=True):
        text = text[:place] + inserted + text[place:]
    return text


def _left_out(text: str, site: Site) -> str:
    name, call = site.primitive.name, text[site.name : site.end]
    if site.primitive.atomic:
        return text[site.begin : site.name] + name + RELAXED + call[len(name) :]
    if site.primitive.void:
        return "void()"
    arguments = blank(call)[call.index("(") + 1 : -1]
    depth, first = 0, ""
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            break
        first += character
    return f"({first.strip()})"


def with_relaxed_twins(text: str) -> str:
    """Return a file of the vocabulary with a relaxed twin behind each acquire and release."""
    code = blank(text)
    for function in reversed(list(functions(code))):
        body = code[slice(*function.body)]
        if not ORDERED_ATOMIC.search(body):
            continue
        before = code[: function.start]
        start = max(before.rfind("}"), before.rfind(";"), before.rfind("\n#")) + 1
        start = before.index("\n", start) + 1
        name_end, end = function.start + len(function.name), function.body[1]
        twin = text[start : function.start] + function.name + RELAXED + text[name_end:end]
        twin = ORDERED_ATOMIC.sub("__ATOMIC_RELAXED)", twin)
        text = text[:end] + "\n" + twin + text[end:]
    return text
