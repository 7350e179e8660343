// The chart: says what stands under the pointer, and narrows the period to what is drawn across.
"use strict";

const figure = document.getElementById("chart");
const drawing = figure && figure.querySelector("svg");

if (drawing) {
  const edges = figure.dataset.edges.split(" ");
  const axis = drawing.querySelector(".axes line, .axes path");
  const frame = drawing.viewBox.baseVal;
  const box = axis.getBBox();
  const band = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const pointed = document.getElementById("pointed");
  const said = new Map();
  let from = null;

  band.setAttribute("class", "band");
  band.setAttribute("y", "0");
  band.setAttribute("height", String(frame.height));
  drawing.prepend(band);
  document.getElementById("brush").hidden = false;

  for (const bar of drawing.querySelectorAll(".series rect")) {
    const middle = bar.x.baseVal.value + bar.width.baseVal.value / 2;
    const place = Math.floor(((middle - box.x) / box.width) * (edges.length - 1));
    const [label, count] = bar.querySelector("title").textContent.split(/: (?=[^:]*$)/);
    said.set(place, said.has(place) ? said.get(place) + ", " + count : label + ": " + count);
  }

  function placeOf(event) {
    const bounds = drawing.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * frame.width;
    const place = Math.floor(((x - box.x) / box.width) * (edges.length - 1));
    return Math.min(edges.length - 2, Math.max(0, place));
  }

  function mark(first, last) {
    const step = box.width / (edges.length - 1);
    band.setAttribute("x", String(box.x + first * step));
    band.setAttribute("width", String((last - first + 1) * step));
  }

  drawing.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    mark(from === null ? place : Math.min(from, place), from === null ? place : Math.max(from, place));
    pointed.textContent = said.get(place) || edges[place].replace("T", " ") + ": nothing";
  });
  drawing.addEventListener("pointerleave", () => {
    band.setAttribute("width", "0");
    pointed.textContent = "";
    from = null;
  });
  drawing.addEventListener("mousedown", (event) => event.preventDefault()); // bars are links: no focus in what is hidden
  drawing.addEventListener("dragstart", (event) => event.preventDefault());
  drawing.addEventListener("pointerdown", (event) => {
    from = event.button === 0 ? placeOf(event) : null;
  });
  drawing.addEventListener("pointerup", (event) => {
    const place = placeOf(event);
    if (from === null || place === from) {
      from = null;
      return;
    }
    const query = new URLSearchParams(location.search);
    query.delete("period");
    query.set("since", edges[Math.min(from, place)]);
    query.set("until", edges[Math.max(from, place) + 1]);
    location.search = query;
  });
  drawing.addEventListener("click", (event) => {
    if (from !== null) {
      event.preventDefault();
    }
    from = null;
  });
}
