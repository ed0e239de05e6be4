// The map of the 125 architectures: squares one can walk over, one cell's facts, and the paths of the searches.
addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const root = document.getElementById("map");
  const { ops, names, accuracy } = data;
  const low = Math.min(...accuracy), high = Math.max(...accuracy);
  // Viridis in five steps, from dark (low) to light (high).
  const viridis = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const color = value => {
    const at = 4 * (value - low) / (high - low), i = Math.min(3, Math.floor(at));
    return viridis[i].map((c, k) => Math.round(c + (at - i) * (viridis[i + 1][k] - c)));
  };
  const make = (tag, parts = {}, ...children) => {
    const one = Object.assign(document.createElement(tag), parts);
    one.append(...children);
    return one;
  };
  const said = i => names[i].join(", ");
  const truth = data.ranks["trained alone (the truth)"];
  root.replaceChildren();
  const blocks = make("div", { className: "map-blocks" }), squares = [];
  ops.forEach((last, c) => {
    const grid = make("div", { className: "map-grid" });
    ops.forEach((_, a) => ops.forEach((_, b) => {
      const i = (a * 5 + b) * 5 + c, rgb = color(accuracy[i]);
      const square = make("button", { type: "button", textContent: Math.round(accuracy[i]), tabIndex: i ? -1 : 0 });
      square.setAttribute("aria-label", `${said(i)}: ${accuracy[i].toFixed(1)} %, rank ${truth[i]}`);
      square.title = square.getAttribute("aria-label");
      square.style.background = `rgb(${rgb})`;
      square.style.color = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 115 ? "#000" : "#fff";
      square.addEventListener("click", () => { halt(); choose(i); });
      squares[i] = square;
      grid.append(square);
    }));
    blocks.append(make("figure", {}, make("figcaption", {}, `1→2: ${last}`), grid));
  });
  const key = make("p", { className: "map-key" },
    `In each block: rows are the operation on 0→1, columns on 0→2, both in the order ${ops.join(", ")}.`);

  // ---- one architecture
  const facts = make("div", { className: "map-facts", id: "map-facts" });
  facts.setAttribute("role", "status");
  let chosen = 0;
  const choose = (i, focus = true) => {
    squares[chosen].tabIndex = -1;
    squares[chosen].removeAttribute("aria-current");
    chosen = i;
    squares[i].tabIndex = 0;
    squares[i].setAttribute("aria-current", "true");
    if (focus) squares[i].focus();
    const edge = (op, path, x, y) =>
      `<path d="${path}" fill="none" stroke="${data.colors[op]}" stroke-width="4"` +
      `${op === "none" ? ' stroke-dasharray="4 6"' : ""} marker-end="url(#map-tip)"/>` +
      `<text x="${x}" y="${y}" text-anchor="middle" fill="currentColor" font-size="15">${op}</text>`;
    const node = (x, y, t) => `<circle cx="${x}" cy="${y}" r="16" fill="none" stroke="currentColor" stroke-width="2"/>` +
      `<text x="${x}" y="${y + 5}" text-anchor="middle" fill="currentColor" font-size="15">${t}</text>`;
    const [a, b, c] = names[i];
    const cell = `<svg viewBox="0 0 400 170" width="400" role="img" aria-label="The cell: 0 to 1 ${a}, 0 to 2 ${b}, 1 to 2 ${c}">` +
      `<defs><marker id="map-tip" markerWidth="4" markerHeight="4" refX="3" refY="2" orient="auto"><path d="M0 0 L4 2 L0 4 z" fill="context-stroke"/></marker></defs>` +
      edge(a, "M42 120 L180 52", 85, 62) + edge(c, "M216 52 L354 120", 315, 62) + edge(b, "M46 132 L350 132", 200, 155) +
      node(28, 132, "0") + node(198, 40, "1") + node(370, 132, "2") + "</svg>";
    const curve = data.curves[i], x = k => 40 + 320 * k / (curve.length - 1), y = v => 130 - 115 * v / 70;
    const line = curve.map((v, k) => `${x(k)},${y(v)}`).join(" ");
    const chart = `<svg viewBox="0 0 400 165" width="400" role="img" aria-label="Validation accuracy by epoch: ${curve.join(", ")} percent">` +
      [0, 35, 70].map(v => `<line x1="40" x2="360" y1="${y(v)}" y2="${y(v)}" stroke="currentColor" opacity=".25"/>` +
        `<text x="34" y="${y(v) + 5}" text-anchor="end" fill="currentColor" font-size="14">${v}</text>`).join("") +
      `<polyline points="${line}" fill="none" stroke="#0072b2" stroke-width="3"/>` +
      curve.map((v, k) => `<circle cx="${x(k)}" cy="${y(v)}" r="4" fill="#0072b2"/>`).join("") +
      `<text x="200" y="158" text-anchor="middle" fill="currentColor" font-size="14">epoch 1 to ${curve.length}: validation accuracy, %</text></svg>`;
    const rows = Object.entries(data.ranks).map(([who, ranks]) => `<tr><th scope="row">${who}</th><td>${ranks[i]}</td></tr>`).join("");
    facts.innerHTML = `<p><strong>${said(i)}</strong>: ${accuracy[i].toFixed(1)} % on the test images ` +
      `(${data.seeds[i].map(v => v.toFixed(1)).join(", ")}), ${data.weights[i].toLocaleString("en")} weights</p>` +
      `<div class="map-two">${cell}${chart}</div>` +
      `<table><caption>Its rank among the 125, judged by</caption><tbody>${rows}</tbody></table>`;
  };
  blocks.addEventListener("keydown", event => {
    const a = Math.floor(chosen / 25), b = Math.floor(chosen / 5) % 5, c = chosen % 5;
    const to = { ArrowUp: [a - 1, b, c], ArrowDown: [a + 1, b, c], ArrowLeft: [a, b - 1, c], ArrowRight: [a, b + 1, c],
      PageUp: [a, b, c - 1], PageDown: [a, b, c + 1] }[event.key];
    if (!to) return;
    event.preventDefault();
    halt();
    choose(to.map(v => (v + 5) % 5).reduce((all, v) => all * 5 + v, 0));
  });

  // ---- the searches
  const select = make("select", { id: "map-search" }, ...Object.keys(data.paths).map(name => make("option", {}, name)));
  const play = make("button", { type: "button", textContent: "Play" });
  const range = make("input", { type: "range", min: 0, value: 0 });
  const epoch = make("span", { className: "map-epoch" });
  range.setAttribute("aria-label", "epoch of the search");
  let timer = null;
  const halt = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const path = () => data.paths[select.value];
  const walk = () => {
    const at = Number(range.value);
    squares.forEach(one => one.classList.remove("been", "here"));
    path().slice(0, at + 1).forEach(i => squares[i].classList.add("been"));
    squares[path()[at]].classList.add("here");
    epoch.textContent = `epoch ${at + 1} of ${path().length}: ${accuracy[path()[at]].toFixed(1)} %`;
    range.setAttribute("aria-valuetext", `${epoch.textContent}, ${said(path()[at])}`);
    choose(path()[at], false);
  };
  select.addEventListener("change", () => { halt(); range.max = path().length - 1; range.value = 0; walk(); });
  range.addEventListener("input", () => { halt(); walk(); });
  play.addEventListener("click", () => {
    if (timer !== null) return halt();
    if (Number(range.value) >= Number(range.max)) range.value = 0;
    walk();
    play.textContent = "Stop";
    timer = setInterval(() => {
      if (Number(range.value) >= Number(range.max)) return halt();
      range.value = Number(range.value) + 1;
      walk();
    }, 400);
  });
  const bar = make("div", { className: "map-bar" }, make("label", { htmlFor: "map-search" }, "A search: "), select, range, play, epoch);
  root.append(key, bar, blocks, facts);
  range.max = path().length - 1;
  choose(accuracy.indexOf(high), false);
});
