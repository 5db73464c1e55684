// The page of `fastrnn keyboard`. The server keeps nothing about the text: each request brings it
// whole, and says from where on its tokens' surprise is not known here yet. The other parts are
// loaded before this one, which starts.
"use strict";

const field = $("text");
const suggestions = [...$("strip").children];

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
