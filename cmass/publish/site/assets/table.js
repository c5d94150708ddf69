// The table of clusters: search, filters, order, pages, export. The page's address holds the choice.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns;
  const names = Object.keys(columns);
  const total = data.pages.length;
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.getElementById("filters");
  const said = document.getElementById("said");
  const pager = document.getElementById("pager");
  const size = 50;
  const fields = ["q", "r", "mmin", "mmax", "zmin", "zmax", "flag"];
  let order = { column: null, down: false };
  let shown = rows.map((_, i) => i);
  let first = 0;

  // ------------------------------------------------------------- positions
  const angle = (ra1, dec1, ra2, dec2) => {
    const rad = Math.PI / 180;
    const a =
      Math.sin(((dec2 - dec1) * rad) / 2) ** 2 +
      Math.cos(dec1 * rad) * Math.cos(dec2 * rad) * Math.sin(((ra2 - ra1) * rad) / 2) ** 2;
    return (2 * Math.asin(Math.min(1, Math.sqrt(a)))) / rad;
  };
  const number = "[-+−]?[0-9]+(?:\\.[0-9]*)?";
  const position = (text) => {
    const found = new RegExp(`^(${number})(?:\\s*,\\s*|\\s+)(${number})$`).exec(text.trim());
    if (!found) return null;
    const [ra, dec] = [found[1], found[2]].map((part) => Number(part.replace("−", "-")));
    return ra >= 0 && ra <= 360 && Math.abs(dec) <= 90 ? [ra, dec] : null;
  };

  // ------------------------------------------------------------- what is shown
  const limit = (name) => (form.elements[name].value.trim() === "" ? null : Number(form.elements[name].value));
  const within = (value, low, high) => (low === null && high === null) || (value !== null && (low === null || value >= low) && (high === null || value <= high));
  const choose = () => {
    const text = form.elements.q.value.trim();
    const centre = position(text);
    const radius = limit("r") ?? 1;
    const flag = form.elements.flag.value;
    const [mmin, mmax, zmin, zmax] = ["mmin", "mmax", "zmin", "zmax"].map(limit);
    const away = centre ? columns.ra.map((ra, i) => angle(ra, columns.dec[i], ...centre)) : null;
    shown = [];
    for (let i = 0; i < total; i++) {
      if (centre ? away[i] > radius : !columns.cluster_id[i].toLowerCase().includes(text.toLowerCase())) continue;
      if (!within(columns.log10_m200c_p50[i], mmin, mmax) || !within(columns.z[i], zmin, zmax)) continue;
      if (flag === "0" ? columns.flag[i] !== 0 : flag !== "" && (columns.flag[i] & Number(flag)) === 0) continue;
      shown.push(i);
    }
    const values = order.column === null ? away : columns[order.column];
    if (values) {
      const way = order.column !== null && order.down ? -1 : 1;
      shown.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b; // missing last, always
        return way * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) || a - b;
      });
    }
    first = 0;
    const where = centre ? ` within ${radius}° of RA ${centre[0]}, Dec ${centre[1]}${order.column === null ? ", nearest first" : ""}` : "";
    said.textContent = shown.length === total ? `All ${total} clusters.` : `${shown.length} of ${total} clusters${where}.`;
    paint();
    remember();
  };
  const paint = () => {
    body.replaceChildren(...shown.slice(first, first + size).map((i) => rows[i]));
    pager.hidden = shown.length <= size;
    document.getElementById("where").textContent = `${first + 1} to ${Math.min(first + size, shown.length)} of ${shown.length}`;
    document.getElementById("back").disabled = first === 0;
    document.getElementById("on").disabled = first + size >= shown.length;
  };

  // ------------------------------------------------------------- the page's address
  const remember = () => {
    const asked = new URLSearchParams();
    for (const name of fields) if (form.elements[name].value !== "") asked.set(name, form.elements[name].value);
    if (order.column !== null) asked.set("sort", (order.down ? "-" : "") + order.column);
    const text = asked.toString();
    try {
      history.replaceState(null, "", text ? `?${text}` : location.pathname);
    } catch {
      // a page opened as a file may have no address of its own
    }
  };
  const recall = () => {
    const asked = new URLSearchParams(location.search);
    for (const name of fields) if (asked.has(name)) form.elements[name].value = asked.get(name);
    const sort = asked.get("sort") ?? "";
    const column = sort.replace(/^-/, "");
    if (names.includes(column)) order = { column, down: sort.startsWith("-") };
  };

  // ------------------------------------------------------------- heads that sort
  const heads = [...table.tHead.rows[0].cells];
  const showOrder = () => {
    for (const head of heads) {
      const mine = head.dataset.column === order.column;
      head.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
    }
  };
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const column = head.dataset.column;
      const text = typeof columns[column].find((value) => value !== null) === "string";
      order = { column, down: order.column === column ? !order.down : !text };
      showOrder();
      choose();
    });
  }

  // ------------------------------------------------------------- export
  const cell = (value) => {
    if (value === null) return "";
    let text = String(value);
    // A spreadsheet takes text that begins so for a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  document.getElementById("export").addEventListener("click", () => {
    const lines = [names, ...shown.map((i) => names.map((name) => columns[name][i]))];
    const blob = new Blob([lines.map((line) => line.map(cell).join(",") + "\n").join("")], { type: "text/csv" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `cmass-${data.release}-clusters.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    said.textContent = `${shown.length} clusters exported, with all digits.`;
  });

  form.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () =>
    setTimeout(() => {
      order = { column: null, down: false };
      showOrder();
      choose();
    }),
  );
  for (const [id, by] of [["back", -size], ["on", size]]) {
    document.getElementById(id).addEventListener("click", () => {
      first += by;
      paint();
      table.scrollIntoView({ block: "start" });
    });
  }
  form.hidden = false;
  recall();
  showOrder();
  choose();
});
