// The SQL console: DuckDB in a worker, the release's database read over HTTP, answers as text.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const [sql, said, failed, result] = [$("sql"), $("said"), $("failed"), $("result")];
  const base = new URL("assets/duckdb/", document.baseURI);
  const shownMax = 500;
  const plottedMax = 20000;
  let engine = null; // a promise of { db, connection }
  let last = null; // names and columns of the last answer
  let run = 0; // counts queries, so that a stopped one says nothing any more

  // ------------------------------------------------------------- the engine
  const script = (url) =>
    new Promise((done, fail) => {
      const element = document.createElement("script");
      element.src = url;
      element.onload = done;
      element.onerror = () => fail(new Error(`${url} could not be loaded`));
      document.head.append(element);
    });
  // The engine lies compressed; a server that unpacks it on the way is as good.
  const unpacked = async (url) => {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old for the console (no DecompressionStream)");
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    const blob = await answer.blob();
    const head = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
    const packed = head[0] === 0x1f && head[1] === 0x8b;
    const stream = packed ? blob.stream().pipeThrough(new DecompressionStream("gzip")) : blob.stream();
    const bytes = await new Response(stream).arrayBuffer();
    return URL.createObjectURL(new Blob([bytes], { type: "application/wasm" }));
  };
  const start = async () => {
    if (location.protocol === "file:") throw new Error("a page opened as a file may not start the engine: open the site with `cmass serve`");
    said.textContent = "Loading DuckDB …";
    await script(new URL("arrow.js", base).href);
    const [duckdb, wasm] = await Promise.all([import(new URL("duckdb-browser.mjs", base).href), unpacked(new URL("duckdb-eh.wasm.gz", base).href)]);
    const db = new duckdb.AsyncDuckDB(new duckdb.VoidLogger(), new Worker(new URL("duckdb-browser-eh.worker.js", base)));
    await db.instantiate(wasm);
    URL.revokeObjectURL(wasm);
    const file = new URL(data.database, document.baseURI).href;
    await db.registerFileURL("cmass.duckdb", file, duckdb.DuckDBDataProtocol.HTTP, false);
    await db.open({ query: { castBigIntToDouble: true, castDecimalToDouble: true, castTimestampToDate: true } });
    const connection = await db.connect();
    await connection.query("ATTACH 'cmass.duckdb' AS cmass (READ_ONLY); USE cmass;");
    return { db, connection };
  };

  // ------------------------------------------------------------- values
  const plain = (value) => {
    if (value === null || value === undefined) return null;
    if (typeof value === "bigint") return Number(value);
    if (typeof value === "object" && typeof value.toJSON === "function") value = value.toJSON();
    if (ArrayBuffer.isView(value)) value = Array.from(value, plain);
    return value;
  };
  const text = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(8)));
    if (Array.isArray(value) && value.length > 6) return `[${value.slice(0, 4).map(text).join(", ")}, … ${value.length} values]`;
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  };
  const csv = (value) => {
    if (value === null) return "";
    let cell = typeof value === "object" ? JSON.stringify(value) : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(cell)) cell = `'${cell}`; // no formula for a spreadsheet
    return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  };

  // ------------------------------------------------------------- asking
  const busy = (yes) => {
    $("go").disabled = yes;
    $("stop").disabled = !yes;
    $("ask").setAttribute("aria-busy", String(yes));
  };
  const ask = async () => {
    const mine = ++run;
    const query = sql.value.trim();
    if (!query) {
      said.textContent = "There is no query.";
      return;
    }
    failed.hidden = true;
    busy(true);
    try {
      engine ??= start();
      engine.catch(() => (engine = null)); // what could not be loaded is tried again
      const { connection } = await engine;
      if (mine !== run) return;
      said.textContent = "Asking …";
      const begun = performance.now();
      const table = await connection.query(query);
      if (mine !== run) return;
      const names = table.schema.fields.map((field) => field.name);
      last = { names, columns: names.map((_, k) => Array.from(table.getChildAt(k), plain)), rows: table.numRows };
      const seconds = ((performance.now() - begun) / 1000).toFixed(2);
      said.textContent = `${last.rows} row${last.rows === 1 ? "" : "s"} in ${seconds} s${last.rows > shownMax ? `; the first ${shownMax} are shown, the export has all` : ""}.`;
      show();
    } catch (error) {
      if (mine !== run) return;
      failed.textContent = String(error.message ?? error);
      failed.hidden = false;
      said.textContent = "That did not work.";
      $("answer").hidden = true;
      $("export").disabled = true;
    } finally {
      if (mine === run) busy(false);
    }
  };
  const show = () => {
    const { names, columns, rows } = last;
    const head = document.createElement("tr");
    const numeric = columns.map((column) => column.some((v) => v !== null) && column.every((v) => v === null || typeof v === "number"));
    names.forEach((name, k) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      if (numeric[k]) cell.className = "n";
      head.append(cell);
    });
    const body = document.createElement("tbody");
    for (let i = 0; i < Math.min(rows, shownMax); i++) {
      const row = document.createElement("tr");
      columns.forEach((column, k) => {
        const cell = document.createElement("td");
        cell.textContent = text(column[i]);
        if (numeric[k]) cell.className = "n";
        row.append(cell);
      });
      body.append(row);
    }
    const top = document.createElement("thead");
    top.append(head);
    result.replaceChildren(top, body);
    $("answer").hidden = false;
    $("export").disabled = rows === 0;
    offer(names, numeric);
  };

  // ------------------------------------------------------------- plot
  const offer = (names, numeric) => {
    const able = names.filter((_, k) => numeric[k]);
    const sample = data.queries.find((q) => q.sql === sql.value.trim());
    const wanted = [sample?.x, sample?.y];
    [$("px"), $("py")].forEach((select, k) => {
      select.replaceChildren(new Option("nothing", ""), ...able.map((name) => new Option(name, name)));
      select.value = able.includes(wanted[k]) ? wanted[k] : "";
    });
    $("axes").hidden = able.length < 2;
    plot();
  };
  const nice = (low, high) => {
    const raw = (high - low || Math.abs(high) || 1) / 5;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(Number((k * step).toPrecision(12)));
    return ticks;
  };
  const NS = "http://www.w3.org/2000/svg";
  const make = (name, attributes, words) => {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (words !== undefined) element.textContent = words;
    return element;
  };
  const plot = () => {
    const [x, y] = [$("px").value, $("py").value];
    const figure = $("plot");
    figure.hidden = !x || !y;
    if (figure.hidden) return figure.replaceChildren();
    const [xs, ys] = [x, y].map((name) => last.columns[last.names.indexOf(name)]);
    const both = [];
    for (let i = 0; i < xs.length && both.length < plottedMax; i++) if (Number.isFinite(xs[i]) && Number.isFinite(ys[i])) both.push([xs[i], ys[i]]);
    const caption = document.createElement("figcaption");
    if (!both.length) {
      caption.textContent = "No row has both.";
      return figure.replaceChildren(caption);
    }
    const ends = [0, 1].map((k) => {
      const values = both.map((pair) => pair[k]);
      const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
      const margin = (high - low || Math.abs(high) || 1) * 0.04;
      return [low - margin, high + margin];
    });
    const [left, right, top, bottom] = [58, 432, 12, 272];
    const px = (v) => left + ((v - ends[0][0]) / (ends[0][1] - ends[0][0])) * (right - left);
    const py = (v) => bottom - ((v - ends[1][0]) / (ends[1][1] - ends[1][0])) * (bottom - top);
    const svg = make("svg", { viewBox: "0 0 440 320", role: "img", "aria-label": `${both.length} rows: ${y} by ${x}` });
    for (const tick of nice(...ends[0])) {
      svg.append(make("path", { class: "grid", d: `M${px(tick)} ${top}V${bottom}` }), make("text", { class: "mid tick", x: px(tick), y: bottom + 17 }, String(tick)));
    }
    for (const tick of nice(...ends[1])) {
      svg.append(make("path", { class: "grid", d: `M${left} ${py(tick)}H${right}` }), make("text", { class: "end tick", x: left - 6, y: py(tick) + 4 }, String(tick)));
    }
    const radius = both.length > 2000 ? 1.6 : both.length > 200 ? 2.6 : 4;
    for (const [a, b] of both) svg.append(make("circle", { cx: px(a).toFixed(1), cy: py(b).toFixed(1), r: radius }));
    svg.append(make("text", { class: "mid axis", x: (left + right) / 2, y: 312 }, x));
    svg.append(make("text", { class: "mid axis", x: 0, y: 0, transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)` }, y));
    caption.textContent = `${y} by ${x}, ${both.length} of ${xs.length} rows.`;
    figure.replaceChildren(svg, caption);
  };

  // ------------------------------------------------------------- buttons
  const choose = () => {
    const query = data.queries.find((q) => q.name === $("sample").value);
    sql.value = query.sql;
  };
  $("sample").addEventListener("change", choose);
  $("px").addEventListener("change", plot);
  $("py").addEventListener("change", plot);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  sql.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!$("go").disabled) ask();
    }
  });
  $("stop").addEventListener("click", () => {
    run++;
    engine?.then(({ db }) => db.terminate()).catch(() => {});
    engine = null; // the next query starts another
    busy(false);
    said.textContent = "Stopped.";
  });
  $("export").addEventListener("click", () => {
    const lines = [last.names.map(csv).join(",")];
    for (let i = 0; i < last.rows; i++) lines.push(last.columns.map((column) => csv(column[i])).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = `cmass-${data.release}-query.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    said.textContent = `${last.rows} rows exported, with all digits.`;
  });
  $("link").addEventListener("click", async () => {
    const url = new URL(location.pathname, location.href);
    url.searchParams.set("sql", sql.value);
    try {
      history.replaceState(null, "", url);
      await navigator.clipboard.writeText(url.href);
      said.textContent = "A link to this query is in the clipboard.";
    } catch {
      said.textContent = "The address above is a link to this query.";
    }
  });
  // A query in the address is shown, never run: whoever follows a link sees first what it asks.
  const asked = new URLSearchParams(location.search).get("sql");
  if (asked) sql.value = asked;
  else choose();
});
