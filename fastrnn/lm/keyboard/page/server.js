// What all parts of the page use: elements by their names, and requests to the server.
"use strict";

const $ = (id) => document.getElementById(id);

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
