// The sky map: colours, size, hovering, and arrows from cluster to cluster.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const svg = document.getElementById("sky");
  const tip = document.getElementById("tip");
  const say = document.getElementById("say");
  const links = [...svg.querySelectorAll("a")];
  const frame = svg.parentElement;
  const whole = { x: 0, y: 0, width: 1000, height: 500 };
  let box = { ...whole };

  document.getElementById("tools").hidden = false;
  for (const input of document.querySelectorAll('input[name="colour"]')) {
    const choose = () => {
      if (!input.checked) return;
      svg.dataset.colour = input.value;
      for (const legend of document.querySelectorAll(".legend")) legend.hidden = legend.dataset.for !== input.value;
    };
    input.addEventListener("change", choose);
    choose();
  }

  // ------------------------------------------------------------- size and place
  const dotSize = () => {
    const zoom = whole.width / box.width;
    // On a narrow screen the map is small: dots are kept as large as a finger can tell apart.
    const small = Math.max(1, Math.min(2.2, 700 / (svg.clientWidth || 1000)));
    svg.style.setProperty("--dot", `${(4 * small) / Math.pow(zoom, 0.65)}px`);
  };
  const show = () => {
    box.width = Math.min(whole.width, Math.max(40, box.width));
    box.height = box.width / 2;
    box.x = Math.min(whole.width - box.width, Math.max(0, box.x));
    box.y = Math.min(whole.height - box.height, Math.max(0, box.y));
    svg.setAttribute("viewBox", `${box.x} ${box.y} ${box.width} ${box.height}`);
    for (const text of svg.querySelectorAll("text")) text.style.fontSize = `${(14 * box.width) / whole.width}px`;
    dotSize();
  };
  const zoom = (factor, x = box.x + box.width / 2, y = box.y + box.height / 2) => {
    const width = Math.min(whole.width, Math.max(40, box.width / factor));
    const part = width / box.width;
    box = { x: x - (x - box.x) * part, y: y - (y - box.y) * part, width };
    show();
  };
  const place = (event) => {
    const size = svg.getBoundingClientRect();
    return [
      box.x + ((event.clientX - size.left) / size.width) * box.width,
      box.y + ((event.clientY - size.top) / size.height) * box.height,
    ];
  };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      if (factor === 0) {
        box = { ...whole };
        show();
      } else zoom(factor);
    });
  }
  svg.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.shiftKey) return; // the page scrolls; with Ctrl the map grows
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, ...place(event));
    },
    { passive: false },
  );
  let drag = null;
  let moved = false;
  svg.addEventListener("pointerdown", (event) => {
    drag = { at: place(event), x: event.clientX, y: event.clientY };
    moved = false;
  });
  addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4) moved = true;
    if (!moved) return;
    const [x, y] = place(event);
    box.x += drag.at[0] - x;
    box.y += drag.at[1] - y;
    show();
  });
  addEventListener("pointerup", () => (drag = null));
  addEventListener("pointercancel", () => (drag = null));
  svg.addEventListener("click", (event) => moved && event.preventDefault(), true);
  svg.addEventListener("dragstart", (event) => event.preventDefault());

  // ------------------------------------------------------------- what is pointed at
  const at = (link) => {
    const circle = link.firstElementChild;
    return [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
  };
  const point = (link) => {
    const words = link.getAttribute("aria-label");
    tip.textContent = words;
    tip.hidden = false;
    const [x, y] = at(link);
    const [width, height] = [frame.clientWidth, frame.clientHeight];
    const left = ((x - box.x) / box.width) * width;
    const top = ((y - box.y) / box.height) * height;
    tip.style.left = `${Math.max(0, Math.min(width - tip.offsetWidth, left + 12))}px`;
    tip.style.top = `${Math.max(0, top + 14 + tip.offsetHeight > height ? top - tip.offsetHeight - 12 : top + 14)}px`;
  };
  for (const link of links) {
    link.addEventListener("pointerenter", () => point(link));
    link.addEventListener("pointerleave", () => (tip.hidden = true));
    link.addEventListener("focus", () => {
      const [x, y] = at(link);
      if (x < box.x || x > box.x + box.width || y < box.y || y > box.y + box.height) {
        box.x = x - box.width / 2;
        box.y = y - box.height / 2;
        show();
      }
      point(link);
      say.textContent = link.getAttribute("aria-label");
    });
    link.addEventListener("blur", () => (tip.hidden = true));
  }
  // The nearest cluster in the direction of the arrow; what lies off to the side counts as farther.
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  svg.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "-") {
      const here = links.includes(document.activeElement) ? at(document.activeElement) : [];
      zoom(event.key === "+" ? 1.6 : 0.625, ...here);
      return;
    }
    const way = step[event.key];
    const from = document.activeElement;
    if (!way || !links.includes(from)) return;
    event.preventDefault();
    const [x, y] = at(from);
    let best = null;
    let least = Infinity;
    for (const link of links) {
      if (link === from) continue;
      const [dx, dy] = [at(link)[0] - x, at(link)[1] - y];
      const along = dx * way[0] + dy * way[1];
      const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
      const far = along + 2.5 * aside;
      if (along > 0 && far < least) [best, least] = [link, far];
    }
    if (best === null) return;
    from.tabIndex = -1;
    best.tabIndex = 0;
    best.focus();
  });
  addEventListener("resize", dotSize);
  dotSize();
});
