// The tinted text: the surprise of each token that has been read.
"use strict";

const TOKENS_OF_LINE = 1000;

const tint = {
  text: "", // to which the tokens belong
  tokens: [], // each with its end, in the text here and in the server's characters, and sums
  lines: [], // elements, each with the number of its first token

  // Byte order marks at the start, which the server takes away.
  get skipped() {
    return this.text.length - this.text.replace(/^\ufeff+/, "").length;
  },

  get last() {
    return this.before(this.tokens.length);
  },

  // The last of the first `count` tokens.
  before(count) {
    return this.tokens[count - 1] || { end: this.skipped, read: 0, bits: 0, size: 0, unknown: 0 };
  },

  get read() {
    return this.last.read;
  },

  // Forget the tokens that are not of the same beginning of `text`, or may still change.
  keep(text) {
    this.cut(this.holding(text));
    this.text = text;
  },

  // The last token that would be kept.
  after(text) {
    return this.before(this.holding(text));
  },

  holding(text) {
    let same = 0;
    const limit = Math.min(text.length, this.text.length);
    if (text.startsWith(this.text)) same = limit;
    else while (same < limit && text[same] === this.text[same]) same += 1;
    const holds = same >= this.last.end && !this.last.typing;
    return holds ? this.tokens.length : this.fixed(text, same);
  },

  // How many tokens hold, whatever comes after the first characters of `text`: words may change as
  // far back as a space.
  fixed(text, same) {
    let end = same;
    if (runs.get(run).level !== "character") {
      while (end && !/[ \t\n]/.test(text[end - 1])) end -= 1;
      while (end && /[ \t\n]/.test(text[end - 1])) end -= 1;
    }
    return this.count((token) => token.end <= end);
  },

  count(fits) {
    let [low, high] = [0, this.tokens.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (fits(this.tokens[middle])) low = middle + 1;
      else high = middle;
    }
    return low;
  },

  cut(count) {
    this.tokens.length = count;
    while (this.lines.length && this.lines[this.lines.length - 1].first >= count) {
      this.lines.pop().element.remove();
    }
    const line = this.lines[this.lines.length - 1];
    if (line) while (line.element.childElementCount > count - line.first) line.element.lastChild.remove();
  },

  // Take over an answer; false if it does not go on where the tokens end.
  add(answer, text) {
    this.cut(this.count((token) => token.read <= answer.start));
    if (this.read !== answer.start) {
      this.cut(0);
      return false;
    }
    const level = runs.get(run).level;
    for (const piece of answer.tokens) {
      const last = this.last;
      const end = last.end + piece.text.length;
      const size = [...piece.text].length;
      const counts = piece.bits !== undefined;
      const token = {
        text: piece.text,
        typing: piece.typing,
        own: piece.bits,
        end,
        read: last.read + size,
        bits: last.bits + (counts ? piece.bits : 0),
        size: last.size + (counts ? size : 0),
        unknown: last.unknown + (piece.unknown ? 1 : 0),
      };
      this.tokens.push(token);
      this.append(token, piece, level);
    }
    return true;
  },

  append(token, piece, level) {
    let line = this.lines[this.lines.length - 1];
    const before = this.tokens[this.tokens.length - 2];
    const full = line && this.tokens.length - 1 - line.first >= TOKENS_OF_LINE;
    if (!line || full || (before && before.text.endsWith("\n"))) {
      line = { element: document.createElement("div"), first: this.tokens.length - 1 };
      this.lines.push(line);
      $("unread").before(line.element);
    }
    const span = document.createElement("span");
    span.textContent = token.text;
    span.title = described(token);
    const scale = level === "character" ? 1 : 2; // a word has the surprise of several characters
    if (token.own !== undefined) span.className = `level${Math.min(8, Math.round(token.own / scale))}`;
    else span.className = piece.unknown ? "unknown" : "typing";
    if (token.text.endsWith("\n")) span.classList.add("newline");
    line.element.append(span);
  },

  // The part that is not read yet, and the sums.
  draw(text, complete) {
    const { end, bits, size, unknown } = this.last;
    const rest = text.slice(end, end + 1000);
    const more = text.length - end - rest.length;
    $("unread").textContent = more ? `${rest} … and ${more.toLocaleString("en")} more` : rest;
    const parts = [];
    if (size) parts.push(`${(bits / size).toFixed(2)} bits per character`);
    if (unknown) parts.push(`${unknown.toLocaleString("en")} unknown, passed over`);
    if (!complete) parts.push(`reading… ${Math.floor((100 * end) / text.length)} %`);
    $("status").textContent = parts.join(" · ");
  },

  // The span of token number n, and the number of a span's token.
  span(n) {
    const line = [...this.lines].reverse().find(({ first }) => first <= n);
    return line && line.element.children[n - line.first];
  },

  number(span) {
    const line = this.lines.find(({ element }) => element === span.parentNode);
    return line ? line.first + [...line.element.children].indexOf(span) : -1;
  },
};

function described(token) {
  const shown = token.text.trim() || { "\n": "line end", " ": "space" }[token.text] || "spaces";
  if (token.typing) return `${shown}: being typed`;
  return token.own === undefined ? `${shown}: unknown` : `${shown}: ${token.own.toFixed(2)} bits`;
}

let active = null;

function point(n) {
  const span = tint.span(n);
  if (!span) return;
  if (active) active.classList.remove("active");
  active = span;
  span.classList.add("active");
  span.scrollIntoView({ block: "nearest" });
  $("detail").textContent = described(tint.tokens[n]);
}

$("tint").addEventListener("click", (event) => {
  const n = tint.number(event.target);
  if (n >= 0) point(n);
});

$("tint").addEventListener("keydown", (event) => {
  const at = active && active.isConnected ? tint.number(active) : tint.tokens.length;
  const targets = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tint.tokens.length - 1 };
  if (!(event.key in targets)) return;
  event.preventDefault();
  point(targets[event.key]);
});
