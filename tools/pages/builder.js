// The cell builder: a drawing, its matrix row by row, and its Python, which always say the same.
addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("builder-data").textContent);
  const root = document.getElementById("builder");
  const { ops, edges, colors } = data;
  const matrix = data.start.map(row => [...row]);
  const make = (tag, parts = {}, ...children) => {
    const one = Object.assign(document.createElement(tag), parts);
    one.append(...children);
    return one;
  };
  const drawing = make("div", { className: "builder-drawing" });
  const status = make("p");
  status.setAttribute("role", "status");
  const code = make("pre", { tabIndex: 0 });
  code.setAttribute("aria-label", "The cell as Python");
  const table = make("table", { className: "builder-matrix" }), squares = [];
  table.append(make("caption", {}, "The matrix: a row for each edge, a column for each operation"));
  const head = make("tr", {}, make("td"), ...ops.map(op => Object.assign(make("th", { scope: "col" }, op))));
  table.append(make("thead", {}, head));
  const body = make("tbody");
  edges.forEach(([from, to], row) => {
    squares[row] = ops.map((op, column) => {
      const one = make("button", { type: "button" });
      one.setAttribute("aria-label", `edge ${from} to ${to}, ${op}`);
      one.addEventListener("click", () => set(row, matrix[row][column] ? null : column));
      return one;
    });
    body.append(make("tr", {}, make("th", { scope: "row" }, `${from}→${to}`), ...squares[row].map(one => make("td", {}, one))));
  });
  table.append(body);
  const clear = make("button", { type: "button", textContent: "Empty the cell" });
  clear.addEventListener("click", () => { matrix.forEach(row => row.fill(0)); show(); });
  const again = make("button", { type: "button", textContent: "The cell DARTS found" });
  again.addEventListener("click", () => { data.start.forEach((row, i) => matrix[i].splice(0, row.length, ...row)); show(); });

  const set = (row, column) => {
    matrix[row].fill(0);
    if (column !== null) matrix[row][column] = 1;
    show();
  };
  const next = row => {
    // Through the operations that are one, and back to no edge.
    const at = matrix[row].findIndex(v => v > 0);
    const real = ops.map((_, i) => i).filter(i => ops[i] !== "none");
    const step = at < 0 ? 0 : real.indexOf(at) + 1;
    set(row, step < real.length ? real[step] : null);
  };
  const pairs = node => edges.flatMap(([from, to], row) => to !== node ? [] :
    matrix[row].flatMap((v, column) => v && ops[column] !== "none" ? [[ops[column], from, v]] : [])
      .flatMap(([op, source, count]) => Array(count).fill([op, source])));

  const show = () => {
    squares.forEach((row, r) => row.forEach((one, c) => {
      one.setAttribute("aria-pressed", String(matrix[r][c] > 0));
      one.textContent = matrix[r][c];
      one.style.background = matrix[r][c] ? colors[ops[c]] : "";
      one.style.color = matrix[r][c] ? "#000" : "";
    }));
    const x = i => 45 + 142 * i, label = ["c(k-2)", "c(k-1)", "2", "3", "4", "5"];
    const arcs = edges.map(([from, to], row) => {
      const column = matrix[row].findIndex(v => v > 0), on = column >= 0 && ops[column] !== "none";
      const up = row % 2 ? 1 : -1, high = 60 + 42 * (to - from) + 5 * row, mid = (x(from) + x(to)) / 2;
      const y0 = 280 + 24 * up, y1 = 280 + up * high;
      const d = `M${x(from)} ${y0} Q${mid} ${y1} ${x(to)} ${y0}`;
      // Labels stand at different parts of their curves, so that those of parallel edges do not meet.
      const t = 0.3 + 0.4 * ((row * 3) % 5) / 4, u = 1 - t;
      const lx = u * u * x(from) + 2 * u * t * mid + t * t * x(to), ly = u * u * y0 + 2 * u * t * y1 + t * t * y0;
      return `<g data-row="${row}" class="builder-edge"><title>edge ${from} to ${to}: ${on ? ops[column] : "nothing"}</title>` +
        `<path d="${d}" fill="none" stroke="transparent" stroke-width="16"/>` +
        `<path d="${d}" fill="none" stroke="${on ? colors[ops[column]] : "currentColor"}" ` +
        `stroke-width="${on ? 5 : 1.5}" opacity="${on ? 1 : .3}"${on ? ' marker-end="url(#builder-tip)"' : ' stroke-dasharray="3 5"'}/>` +
        (on ? `<text x="${lx}" y="${ly + 5}" text-anchor="middle" font-size="16" class="builder-label">${ops[column].replace("_connect", "").replace(/_(?=\d)/, " ")}</text>` : "") + "</g>";
    }).join("");
    const nodes = label.map((t, i) => `<g><rect x="${x(i) - 34}" y="258" width="68" height="44" rx="8" class="builder-node"/>` +
      `<text x="${x(i)}" y="286" text-anchor="middle" font-size="18" fill="currentColor">${t}</text></g>`).join("");
    const words = [2, 3, 4, 5].map(n => `node ${n}: ${pairs(n).map(([op, i]) => `${op} of ${i}`).join(" plus ") || "nothing"}`).join("; ");
    drawing.innerHTML = `<svg viewBox="0 90 800 380" role="img" aria-label="The cell. ${words}"><defs>` +
      `<marker id="builder-tip" markerWidth="4" markerHeight="4" refX="3" refY="2" orient="auto"><path d="M0 0 L4 2 L0 4 z" fill="context-stroke"/></marker></defs>` +
      arcs + nodes + "</svg>";
    drawing.querySelectorAll(".builder-edge").forEach(one => one.addEventListener("click", () => next(Number(one.dataset.row))));
    const wrong = [2, 3, 4, 5].filter(n => pairs(n).length !== 2).map(n => `node ${n} has ${pairs(n).length}`);
    status.textContent = wrong.length ? `Not yet a cell: every node takes two inputs; ${wrong.join(", ")}.`
      : "A cell: every node takes two inputs.";
    code.textContent = wrong.length ? `# ${status.textContent}` : "from nasedu.space import Genotype\n\ncell = (\n" +
      [2, 3, 4, 5].map(n => `    (${pairs(n).map(([op, i]) => `("${op}", ${i})`).join(", ")}),  # node ${n}\n`).join("") +
      ")\ngenotype = Genotype(normal=cell, reduce=cell)\nmatrix = genotype.arch()[\"normal\"]  # (14, 8)";
  };
  const scroll = make("div", { className: "builder-scroll", tabIndex: 0 }, table);
  scroll.setAttribute("role", "group");
  scroll.setAttribute("aria-label", "The cell's matrix");
  root.replaceChildren(drawing, status, make("p", { className: "map-bar" }, again, clear), scroll, code);
  show();
});
