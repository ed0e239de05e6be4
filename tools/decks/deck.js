// Start reveal.js; then make what is a little too tall smaller, down to 20 pixels, before anybody sees it.
"use strict";
const FULL = 28, LEAST = 20, BESIDE = 810;

function fit(section) {
  const body = section.querySelector(".body");
  if (!body) return;
  const room = 720 - 28 - (section.querySelector("h2").offsetHeight + 46);
  body.style.height = room + "px";
  const figure = body.querySelector("figure");
  if (figure) {
    // Words stand above and below a figure, or, where it is narrow, at its left.
    const beside = figure.parentElement !== body;
    const others = beside ? [] : [...body.children].filter((part) => part !== figure);
    const taken = others.reduce((sum, part) => sum + part.getBoundingClientRect().height + 14, 0);
    figure.style.height = room - taken + "px";
    for (const image of figure.querySelectorAll("img")) {
      const book = image.closest(".nasedu-flip");
      const bar = book ? book.firstElementChild.offsetHeight + 12 : 0;
      const high = room - taken - bar;
      image.style.height = image.style.maxHeight = high + "px";
      if (beside) {
        const wide = Math.min(BESIDE, Math.floor((high * image.naturalWidth) / image.naturalHeight));
        figure.style.width = image.style.width = image.style.maxWidth = wide + "px";
      }
    }
  }
  for (let size = FULL; size >= LEAST; size--) {
    body.style.fontSize = size + "px";
    for (const part of body.querySelectorAll("pre, table")) {
      part.style.fontSize = Math.max(LEAST, size - 6) + "px";
      if (part.tagName === "PRE") part.style.lineHeight = Math.round(1.3 * Math.max(LEAST, size - 6)) + "px";
    }
    if (body.scrollHeight <= room && body.scrollWidth <= body.clientWidth) break;
  }
}

Reveal.initialize({
  width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t", transition: "none",
  pdfMaxPagesPerSlide: 1, pdfSeparateFragments: false, controls: false, plugins: [RevealNotes],
});

async function fitAll() {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const section of document.querySelectorAll(".slides section")) {
    const style = section.getAttribute("style"), hidden = section.hidden;
    section.hidden = false;
    section.style.display = "block";
    fit(section);
    section.setAttribute("style", style || "");
    section.hidden = hidden;
  }
  document.documentElement.dataset.fitted = "yes";
}

Reveal.on("ready", fitAll);
