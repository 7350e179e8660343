// What every page has besides its text: panels that close, buttons that copy, and views saved in this browser.
"use strict";

const STORE = "tokgate-views";
const pops = [...document.querySelectorAll("details.pop")];

document.addEventListener("click", (event) => {
  for (const pop of pops) {
    if (!pop.contains(event.target)) {
      pop.open = false;
    }
  }
});
document.addEventListener("keydown", (event) => {
  const pop = event.key === "Escape" && pops.find((each) => each.open);
  if (pop) {
    pop.open = false;
    pop.querySelector("summary").focus();
  }
});

for (const button of document.querySelectorAll("button[data-copies]")) {
  const said = button.textContent;
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent.trim());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = said), 2000);
  });
}

const views = document.getElementById("views");

function saved() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) || "[]");
    return kept.filter((view) => typeof view.name === "string" && /^\/(lines|live|table)?(\?|$)/.test(view.url));
  } catch {
    return [];
  }
}

function keep(kept) {
  localStorage.setItem(STORE, JSON.stringify(kept));
  list();
}

function list() {
  const kept = saved();
  document.getElementById("none-saved").hidden = kept.length > 0;
  document.getElementById("saved").replaceChildren(
    ...kept.map((view) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      const drop = document.createElement("button");
      link.href = view.url;
      link.textContent = view.name;
      drop.type = "button";
      drop.textContent = "×";
      drop.setAttribute("aria-label", "Forget " + view.name);
      drop.addEventListener("click", (event) => {
        event.stopPropagation();
        keep(saved().filter((each) => each.name !== view.name));
      });
      item.append(link, " ", drop);
      return item;
    }),
  );
}

if (views) {
  views.hidden = false;
  list();
  document.getElementById("save").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = document.getElementById("view-name");
    const said = new URLSearchParams(location.search);
    said.delete("page");
    said.delete("upto");
    const url = location.pathname + (said.size ? "?" + said : "");
    keep([...saved().filter((view) => view.name !== field.value), { name: field.value, url }]);
    field.value = "";
  });
}
