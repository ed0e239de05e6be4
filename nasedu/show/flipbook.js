// Sliders and Play for a book of pictures drawn beforehand; needs nothing else, and may run more than once.
for (const book of document.querySelectorAll(".nasedu-flip:not([data-ready])")) {
  const store = book.querySelector("script[type='application/json']");
  if (!store) continue;
  book.dataset.ready = "1";
  const { controls, frames } = JSON.parse(store.textContent);
  // A frame has a picture or more, one below the other.
  const pictures = [...book.querySelectorAll("img")];
  for (const frame of frames) frame.forEach((part, i) => { part.src = part.src || pictures[i].src; });
  const bar = document.createElement("div");
  bar.style.cssText = "display:flex;flex-wrap:wrap;gap:.3em 1em;align-items:center;margin:0 0 .5em";
  const sliders = [];
  const show = () => {
    let at = 0;
    controls.forEach((control, i) => {
      at = at * control.stops.length + Number(sliders[i].value);
      const value = control.stops[sliders[i].value];
      sliders[i].setAttribute("aria-valuetext", value);
      sliders[i].nextSibling.textContent = value;
    });
    frames[at].forEach((part, i) => { pictures[i].src = part.src; pictures[i].alt = part.words; });
  };
  for (const control of controls) {
    const label = document.createElement("label"), range = document.createElement("input");
    const value = document.createElement("span");
    label.style.cssText = "display:flex;gap:.5em;align-items:center;flex:1 1 16em;max-width:34em";
    range.type = "range";
    range.min = 0;
    range.max = control.stops.length - 1;
    range.value = control.start;
    range.setAttribute("aria-label", control.name);
    range.style.cssText = "flex:1 1 8em;min-width:6em;height:2em;accent-color:#0072b2";
    value.setAttribute("aria-hidden", "true");
    value.style.cssText = "min-width:3em;font-variant-numeric:tabular-nums";
    range.addEventListener("input", () => { stop(); show(); });
    label.append(control.name, range, value);
    sliders.push(range);
    bar.append(label);
  }
  // Play moves the slider with the most stops, once through, and begins anew when it stands at the end.
  const longest = sliders.reduce((a, b) => (Number(b.max) > Number(a.max) ? b : a));
  const button = document.createElement("button");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const step = () => {
    if (Number(longest.value) >= Number(longest.max)) return stop();
    longest.value = Number(longest.value) + 1;
    show();
  };
  button.type = "button";
  button.style.cssText =
    "font:inherit;color:inherit;background:transparent;border:1px solid currentColor;border-radius:4px;" +
    "padding:.2em .8em;min-width:4.5em;min-height:2em;cursor:pointer";
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(longest.value) >= Number(longest.max)) { longest.value = 0; show(); }
    button.textContent = "Stop";
    timer = setInterval(step, Math.max(300, Math.min(1000, 10000 / (Number(longest.max) + 1))));
  });
  stop();
  bar.append(button);
  book.prepend(bar);
  show();
}
