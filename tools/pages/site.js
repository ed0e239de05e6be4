// Boxes that scroll sideways can be reached and moved with the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  const mark = () => {
    for (const box of document.querySelectorAll("pre, article table, .table-wrapper, div.math, .builder-drawing")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  const narrow = () => {
    for (const one of document.querySelectorAll("span.math mjx-container")) {
      const room = one.closest("p, li, td, dd, summary");
      if (room && one.scrollWidth > room.clientWidth) { one.classList.add("wide"); one.tabIndex = 0; }
    }
  };
  mark();
  addEventListener("load", () => {
    const done = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
    done.then(() => { narrow(); mark(); });
  });
  addEventListener("resize", mark);
});
