// Adds lines to the live page as they come. Everything from the log is set as text, never as markup.
"use strict";

const MOST = 500;
const WORDS = { block: "blocked", warn: "warned", monitor: "would block", allow: "exempt" };
const table = document.getElementById("lines");
const blank = document.getElementById("line").content.querySelector("tbody");
const state = document.getElementById("follow-state");
const pause = document.getElementById("pause");
const waiting = [];
let paused = false;
let came = 0;

function text(line, name) {
  switch (name) {
    case "time":
      return line.local || "";
    case "verdict":
      return line.verdict ? WORDS[line.verdict] || line.verdict : "–";
    case "name":
      return line.name || line.destination_ip || line.message || "–";
    case "client":
      return [line.client || "–", line.user].filter(Boolean).join(" ");
    case "events":
      return String(line.events);
    default:
      return line.words[name] || line[name] || "–";
  }
}

function add(line) {
  const row = blank.cloneNode(true);
  for (const cell of row.querySelectorAll("[data-of]")) {
    cell.textContent = text(line, cell.dataset.of);
  }
  if (line.event_id) {
    row.querySelector("a").href = "/event/" + encodeURIComponent(line.event_id);
  }
  row.querySelector(".verdict").classList.add(line.verdict in WORDS ? line.verdict : "other");
  row.classList.add("new");
  table.tHead.after(row);
  while (table.tBodies.length > MOST) {
    table.lastElementChild.remove();
  }
}

function tell(words) {
  state.textContent = words;
}

function show() {
  came += waiting.length;
  waiting.splice(0).forEach(add);
}

// Said at most every few seconds, so that a screen reader is not drowned.
setInterval(() => {
  if (came) {
    tell(came === 1 ? "1 new line" : came + " new lines");
    came = 0;
  } else if (paused && waiting.length) {
    tell("Paused; " + waiting.length + " lines wait");
  }
}, 3000);

const stream = new EventSource(table.dataset.stream);
stream.onopen = () => tell("Following");
stream.onerror = () => tell(stream.readyState === EventSource.CLOSED ? "No longer following: look again" : "Connecting again");
stream.onmessage = (message) => {
  waiting.push(JSON.parse(message.data));
  if (waiting.length > MOST) {
    waiting.shift();
  }
  if (!paused) {
    show();
  }
};

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  tell(paused ? "Paused" : "Following");
  if (!paused) {
    show();
  }
});
