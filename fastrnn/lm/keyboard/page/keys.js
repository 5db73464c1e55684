// The keys on the screen, coloured by how likely each comes next.
"use strict";

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
