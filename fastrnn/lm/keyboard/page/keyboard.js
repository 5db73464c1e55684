// The page of `fastrnn keyboard`. The server keeps nothing about the text: each request brings it
// whole, and says from where on its tokens' surprise is not known here yet.
"use strict";

const $ = (id) => document.getElementById(id);
const field = $("text");
const suggestions = [...$("strip").children];

// ---- The server.

async function request(path, body, signal) {
  const response = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
    signal,
  });
  if (response.ok) return response;
  const found = await response.json().catch(() => null);
  throw new Error(found ? found.error.message : `The server answered ${response.status}.`);
}

function complain(error) {
  const gone = error instanceof TypeError;
  $("message").textContent = gone ? "The server does not answer. Has it ended?" : error.message;
  $("message").hidden = false;
}

// ---- The text and what is known of it.

const runs = new Map();
let run = ""; // its name
let proposals = []; // for the text as it is now, or empty
let asked = true; // whether the text, the cursor or the run changed since the last request
let since = 0; // when that was
let pumping = false;
let wake = () => {};

function changed(time) {
  ahead.stopper.abort();
  proposals = [];
  $("strip").classList.add("waiting");
  asked = true;
  since = time || performance.now();
  wake();
  pump();
}

// One request at a time. While a long text is being read, each does a piece of it, so that what is
// typed meanwhile waits for one piece at most.
async function pump() {
  if (pumping || !run) return;
  pumping = true;
  try {
    let more = true;
    while (asked || more) {
      const fresh = asked;
      asked = false;
      more = await exchange(fresh);
    }
  } catch (error) {
    $("strip").classList.remove("waiting");
    complain(error);
  } finally {
    pumping = false;
  }
  if (asked) pump();
  else if (proposed) lookAhead();
}

let proposed = true; // whether the strip shows what belongs to the text

async function exchange(fresh) {
  const [text, cursor, now] = [field.value, field.selectionEnd, run];
  const started = since;
  if (fresh) proposed = false;
  tint.keep(text);
  const body = question(text, cursor, tint.read, proposed ? 0 : suggestions.length);
  const answer =
    ahead.answers.get(JSON.stringify(body)) || (await (await request("api/suggest", body)).json());
  $("message").hidden = true;
  if (now !== run) return true;
  const current = text === field.value && cursor === field.selectionEnd;
  if (!tint.add(answer, text)) return true;
  if (answer.ready && !proposed && current) {
    propose(answer.suggestions);
    colour(answer.keys);
    proposed = true;
    performance.measure("suggestions", { start: started, end: performance.now() });
    performance.clearMeasures("suggestions");
  }
  tint.draw(text, answer.complete || (!proposed && !current));
  // What comes after the cursor is read when the typist pauses.
  if (proposed && !answer.complete && !asked) {
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, Math.max(0, since + 200 - performance.now()));
    });
  }
  return !answer.complete;
}

function question(text, cursor, start, k) {
  return { run, before: text.slice(0, cursor), after: text.slice(cursor), start, k };
}

// Prefetched answers for the likeliest next keys, so that most keystrokes show their suggestions at
// once.
const ahead = { answers: new Map(), stopper: new AbortController() };
const KEYS_AHEAD = 3;
const TOO_UNLIKELY = 0.05;

async function lookAhead() {
  const text = field.value;
  ahead.answers.clear();
  if (field.selectionEnd !== text.length || text !== tint.text) return;
  const { signal } = (ahead.stopper = new AbortController());
  const keys = Object.entries(likely).sort(([, one], [, other]) => other - one);
  try {
    for (const [key, probability] of keys.slice(0, KEYS_AHEAD)) {
      if (probability < TOO_UNLIKELY) break;
      const next = text + key;
      const body = question(next, next.length, tint.after(next).read, suggestions.length);
      const answer = await (await request("api/suggest", body, signal)).json();
      if (answer.complete) ahead.answers.set(JSON.stringify(body), answer);
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  }
}

// ---- Suggestions.

function percent(probability) {
  return probability < 0.01 ? "< 1 %" : `${Math.round(100 * probability)} %`;
}

function propose(found) {
  proposals = found;
  $("strip").classList.remove("waiting");
  suggestions.forEach((button, n) => {
    const proposal = found[n];
    const word = document.createElement("b");
    const share = document.createElement("small");
    button.disabled = !proposal;
    word.textContent = proposal ? proposal.text : "";
    share.textContent = proposal ? percent(proposal.probability) : "";
    button.replaceChildren(word, share);
  });
}

function take(n) {
  if (!proposals[n]) return;
  let insert = proposals[n].insert;
  const next = field.value[field.selectionEnd];
  if (insert.endsWith(" ") && next && /\s/.test(next)) insert = insert.slice(0, -1);
  field.setSelectionRange(field.selectionEnd, field.selectionEnd);
  type(insert);
}

// Puts text at the cursor, such that the browser can undo it.
function type(insert, backwards) {
  const focused = document.activeElement;
  field.focus();
  let done;
  if (backwards) done = document.execCommand("delete");
  else done = document.execCommand("insertText", false, insert);
  if (!done && !backwards) {
    field.setRangeText(insert, field.selectionStart, field.selectionEnd, "end");
    changed();
  }
  if (focused !== field && $("keys").contains(focused)) focused.focus();
}

// ---- Surprise.

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

// ---- Keys on the screen.

const LETTERS = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
const SIGNS = ["1234567890", "-/:;()&@\"", "'?!_*=+#%"];
const NAMES = { " ": "space", "\n": "line end" };
let layer = 0;
let shifted = false;
let layers = [LETTERS, SIGNS];
let likely = {};

// A third layer has what the model writes beside these.
function layOut() {
  const others = [...runs.get(run).characters].filter(
    (c) => !/[\s.,A-Z]/.test(c) && ![...LETTERS, ...SIGNS].join("").includes(c)
  );
  const rows = [];
  for (let n = 0; n < others.length; n += 10) rows.push(others.slice(n, n + 10).join(""));
  layers = rows.length ? [LETTERS, SIGNS, rows] : [LETTERS, SIGNS];
  // A model of another script begins with its own letters.
  const known = [...runs.get(run).characters];
  layer = known.length && !known.some((c) => /[a-z]/.test(c)) && rows.length ? 2 : 0;
  drawKeys();
}

function key(label, action, kind) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.tabIndex = -1;
  if (kind) button.className = kind;
  Object.assign(button.dataset, action);
  return button;
}

function drawKeys() {
  const held = $("keys").contains(document.activeElement) ? document.activeElement : null;
  const place = held && [...held.parentNode.children].indexOf(held);
  const line = held && [...$("keys").children].indexOf(held.parentNode);
  const rows = layers[layer].map((row) =>
    [...row].map((c) => (shifted && layer !== 1 ? c.toUpperCase() : c)).map((c) => key(c, { insert: c }))
  );
  const shift = key("⇧", { name: "shift" }, "wide");
  shift.setAttribute("aria-label", "Shift");
  shift.setAttribute("aria-pressed", shifted);
  const back = key("⌫", { name: "delete" }, "wide");
  back.setAttribute("aria-label", "Delete");
  rows[rows.length - 1].unshift(shift);
  rows[rows.length - 1].push(back);
  const next = key(["#1", "…", "abc"][layers.length > 2 ? layer : layer && 2], { name: "layer" }, "wide");
  next.setAttribute("aria-label", "Other keys");
  rows.push([
    next,
    key(",", { insert: "," }),
    key("space", { insert: " " }, "space"),
    key(".", { insert: "." }),
    key("↵", { insert: "\n" }, "wide"),
  ]);
  $("keys").replaceChildren(
    ...rows.map((row) => {
      const element = document.createElement("div");
      element.append(...row);
      return element;
    })
  );
  const now = held && [...$("keys").children].slice(0, line + 1).pop().children;
  const reached = held ? now[Math.min(place, now.length - 1)] : $("keys").querySelector("button");
  reached.tabIndex = 0;
  if (held) reached.focus();
  colour(likely);
}

function colour(found) {
  likely = found;
  for (const button of $("keys").querySelectorAll("[data-insert]")) {
    const { insert } = button.dataset;
    const probability = found[insert] || 0;
    const level = Math.round(8 * Math.sqrt(probability));
    for (const name of [...button.classList]) if (name.startsWith("level")) button.classList.remove(name);
    if (level) button.classList.add(`level${level}`);
    const label = `${NAMES[insert] || insert}, ${percent(probability)}`;
    button.title = label;
    button.setAttribute("aria-label", label);
  }
}

function press(button) {
  const { insert, name } = button.dataset;
  if (insert) {
    type(insert);
    if (shifted) {
      shifted = false;
      drawKeys();
    }
  } else if (name === "delete") {
    type("", true);
  } else {
    if (name === "shift") shifted = !shifted;
    else layer = (layer + 1) % layers.length;
    drawKeys();
  }
}

// The text field keeps the focus while keys and suggestions are tapped.
for (const part of [$("keys"), $("strip")]) {
  part.addEventListener("mousedown", (event) => event.preventDefault());
}

$("keys").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) press(button);
});

$("keys").addEventListener("keydown", (event) => {
  const row = document.activeElement.parentNode;
  const place = [...row.children].indexOf(document.activeElement);
  const beside = { ArrowLeft: row.children[place - 1], ArrowRight: row.children[place + 1] };
  const near = (other) => other && other.children[Math.min(place, other.children.length - 1)];
  beside.ArrowUp = near(row.previousElementSibling);
  beside.ArrowDown = near(row.nextElementSibling);
  if (!(event.key in beside)) return;
  event.preventDefault();
  if (!beside[event.key]) return;
  document.activeElement.tabIndex = -1;
  beside[event.key].tabIndex = 0;
  beside[event.key].focus();
});

$("strip").addEventListener("click", (event) => {
  const n = suggestions.indexOf(event.target.closest("button"));
  if (n >= 0) take(n);
});

// ---- The text field.

let pressed = 0; // when the last key went down
let leaving = false; // whether Tab leaves the field

document.addEventListener("keydown", (event) => {
  pressed = event.timeStamp;
  const digit = event.altKey && /^Digit[1-3]$/.test(event.code);
  if (digit) {
    event.preventDefault();
    take(Number(event.code[5]) - 1);
  }
});

field.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    leaving = true;
    $("detail").textContent = "Tab now leaves the text field.";
  }
  if (event.key !== "Tab" || event.shiftKey || event.altKey || event.ctrlKey || leaving) return;
  const waits = $("strip").classList.contains("waiting");
  if (!waits && !proposals.length) return;
  event.preventDefault();
  take(0);
});

field.addEventListener("blur", () => (leaving = false));

let selected = 0; // where the cursor was when it was last looked at

field.addEventListener("input", (event) => {
  leaving = false;
  selected = field.selectionEnd;
  stop();
  changed(event.timeStamp - pressed < 50 ? pressed : event.timeStamp);
});

document.addEventListener("selectionchange", () => {
  if (document.activeElement !== field || field.selectionEnd === selected) return;
  selected = field.selectionEnd;
  changed();
});

if (matchMedia("(pointer: coarse)").matches) field.inputMode = "none"; // the keys are in the page

// ---- Writing on.

const writing = { stopper: null };

function stop() {
  if (writing.stopper) writing.stopper.abort();
}

const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

// Some tokens at a time, so that the server is never far ahead of what is shown.
async function write() {
  const stopper = new AbortController();
  writing.stopper = stopper;
  $("write").textContent = "Stop";
  let at = field.selectionEnd;
  try {
    while (!stopper.signal.aborted) {
      const temperature = Number($("temperature").value);
      const body = { run, before: field.value.slice(0, at), length: 50, temperature };
      const response = await request("api/generate", body, stopper.signal);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", part; !(part = await reader.read()).done; ) {
        const lines = (rest + part.value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          const { text } = JSON.parse(line);
          if (!text) continue;
          await nextFrame();
          if (stopper.signal.aborted) return;
          field.setRangeText(text, at, at, "end");
          at += text.length;
          field.scrollTop = field.scrollHeight;
          changed();
        }
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  } finally {
    if (writing.stopper === stopper) writing.stopper = null;
    $("write").textContent = "Write on";
  }
}

$("write").addEventListener("click", () => (writing.stopper ? stop() : write()));
$("temperature").addEventListener("input", () => ($("degree").textContent = Number($("temperature").value).toFixed(1)));

// ---- The models.

$("run").addEventListener("change", () => {
  stop();
  run = $("run").value;
  tint.cut(0);
  layOut();
  changed();
});

async function start() {
  const unread = document.createElement("span");
  unread.id = "unread";
  $("tint").replaceChildren(unread);
  try {
    const found = await (await request("api/runs")).json();
    for (const one of found.runs) {
      runs.set(one.name, one);
      $("run").append(new Option(one.name, one.name));
    }
    $("picker").hidden = runs.size < 2;
    run = found.runs[0].name;
    layOut();
    changed();
  } catch (error) {
    complain(error);
  }
}

start();
