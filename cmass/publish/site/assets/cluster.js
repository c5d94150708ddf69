// A cluster's galaxies in x, y and velocity: a view to turn by dragging, arrow keys or buttons.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const source = document.getElementById("data");
  const view = document.getElementById("view");
  if (!source || !view) return;
  const data = JSON.parse(source.textContent);
  const canvas = document.getElementById("canvas");
  const pen = canvas.getContext("2d");
  const hint = document.getElementById("hint");
  const rest = hint.textContent;
  const n = data.x.length;
  // Cube of side 2: x to the west (east is left, as on the sky), y to the north, v towards the eye.
  const points = Array.from({ length: n }, (_, i) => ({
    at: [-data.x[i] / 1000 / data.half, data.y[i] / 1000 / data.half, data.v[i] / data.v_max],
    speed: Math.abs(data.v[i]),
    radius: Math.hypot(data.x[i], data.y[i]) / 1000,
    i,
  }));
  const looks = { space: [0.62, 0.42], sky: [0, 0], xv: [0, Math.PI / 2] };
  let [yaw, pitch] = looks.space;
  let size = 1;
  let colours = {};
  let drawn = [];
  let turning = null;

  // ------------------------------------------------------------- colours
  const styles = () => {
    const css = getComputedStyle(document.documentElement);
    const get = (name) => css.getPropertyValue(`--${name}`).trim();
    colours = { ink: get("ink"), muted: get("muted"), rule: get("rule"), red: get("red"), paper: get("card") };
    colours.steps = [0, 1, 2, 3, 4, 5].map((k) => get(`v${k}`));
  };
  const colour = document.getElementById("colour");
  const radii = [0, 0.5, 1, 1.5, 2.5, 4];
  const stepOf = (point) => {
    const [value, edges] = colour.value === "speed" ? [point.speed, data.edges] : [point.radius, radii];
    let step = 0;
    while (step + 1 < edges.length && value >= edges[step + 1]) step++;
    return step;
  };
  const legend = () => {
    const [edges, unit] = colour.value === "speed" ? [data.edges, "km/s"] : [radii, "h⁻¹ Mpc"];
    const key = document.getElementById("key");
    key.replaceChildren();
    edges.forEach((edge, k) => {
      const item = document.createElement("span");
      const dot = document.createElement("i");
      dot.className = `v${k}`;
      dot.setAttribute("aria-hidden", "true");
      const high = edges[k + 1];
      item.append(dot, high === undefined ? ` > ${edge} ${unit}` : ` ${edge}–${high}`);
      key.append(item);
    });
  };

  // ------------------------------------------------------------- drawing
  const turned = ([x, y, z]) => {
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const [x1, z1] = [x * cy + z * sy, z * cy - x * sy];
    return [x1, y * cp - z1 * sp, z1 * cp + y * sp];
  };
  const project = (place) => {
    const [x, y, z] = turned(place);
    const near = 5.2 / (5.2 - z);
    const unit = Math.min(canvas.width, canvas.height * 1.15) * 0.25 * size * near;
    return [canvas.width / 2 + x * unit, canvas.height * 0.46 - y * unit, z, near];
  };
  const line = (...places) => {
    pen.beginPath();
    places.forEach((place, k) => {
      const [x, y] = project(place);
      if (k) pen.lineTo(x, y);
      else pen.moveTo(x, y);
    });
    pen.stroke();
  };
  // Words beside an edge of the cube: of its four edges along an axis the one farthest out.
  const axes = [
    [0, [`${data.half} E`, `${data.half} W`], "x [h⁻¹ Mpc]"],
    [1, [`${data.half} S`, `${data.half} N`], "y [h⁻¹ Mpc]"],
    [2, [`−${data.v_max}`, `+${data.v_max}`], "v [km/s]"],
  ];
  const write = (words, place) => {
    const [x, y] = project(place);
    const [cx, cy] = [canvas.width / 2, canvas.height * 0.46];
    const far = Math.hypot(x - cx, y - cy) || 1;
    const away = (20 * canvas.width) / (canvas.clientWidth || canvas.width);
    const [tx, ty] = [x + ((x - cx) / far) * away, y + ((y - cy) / far) * away];
    const width = pen.measureText(words).width / 2;
    pen.fillText(words, Math.max(width + 2, Math.min(canvas.width - width - 2, tx)), Math.max(away * 0.7, Math.min(canvas.height - away * 0.3, ty)));
  };
  const label = ([axis, ends, title]) => {
    const edges = [[-1, -1], [-1, 1], [1, -1], [1, 1]].map(([a, b]) =>
      [-1, 0, 1].map((t) => {
        const place = [a, b];
        place.splice(axis, 0, t);
        return place;
      }),
    );
    const [low, , high] = edges[0].map(project);
    if (Math.hypot(high[0] - low[0], high[1] - low[1]) < canvas.width * 0.12) return; // seen end on
    const out = ([, middle]) => {
      const [x, y] = project(middle);
      // Below and to the left, where axes are looked for.
      return Math.hypot(x - canvas.width / 2, y - canvas.height / 2) + 0.3 * (y - x);
    };
    const edge = edges.reduce((best, one) => (out(one) > out(best) ? one : best));
    write(ends[0], edge[0].map((v, k) => (k === axis ? v * 0.7 : v)));
    write(title, edge[1]);
    write(ends[1], edge[2].map((v, k) => (k === axis ? v * 0.7 : v)));
  };
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
  const ring = (z) => {
    const part = data.r200 / data.half;
    line(...Array.from({ length: 49 }, (_, k) => [part * Math.cos((k * Math.PI) / 24), part * Math.sin((k * Math.PI) / 24), z]));
  };
  const draw = () => {
    const scale = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * scale);
    const height = Math.round(Math.min(width * 0.86, 640 * scale));
    if (width && (canvas.width !== width || canvas.height !== height)) [canvas.width, canvas.height] = [width, height];
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineWidth = scale;
    pen.strokeStyle = colours.rule;
    for (const z of [-1, 1]) line(...corners.map((c) => [...c, z]), [...corners[0], z]);
    for (const c of corners) line([...c, -1], [...c, 1]);
    pen.strokeStyle = colours.muted;
    pen.setLineDash([4 * scale, 4 * scale]);
    line([0, 0, -1], [0, 0, 1]);
    pen.strokeStyle = colours.red;
    if (data.r200) ring(0);
    pen.setLineDash([]);
    drawn = points
      .map((point) => ({ point, on: project(point.at) }))
      .sort((a, b) => a.on[2] - b.on[2]);
    for (const { point, on } of drawn) {
      pen.globalAlpha = 0.55 + 0.4 * ((on[2] + 1.6) / 3.2);
      pen.fillStyle = colours.steps[stepOf(point)];
      pen.beginPath();
      pen.arc(on[0], on[1], (n > 500 ? 2.2 : 3.1) * scale * on[3] * Math.sqrt(size), 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
    pen.font = `${12 * scale}px system-ui, sans-serif`;
    pen.fillStyle = colours.ink;
    pen.textAlign = "center";
    axes.forEach(label);
    canvas.dataset.yaw = yaw.toFixed(3);
    canvas.dataset.pitch = pitch.toFixed(3);
  };
  let asked = false;
  const again = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };

  // ------------------------------------------------------------- turning
  const stop = () => {
    cancelAnimationFrame(turning);
    turning = null;
    document.getElementById("turn").setAttribute("aria-pressed", "false");
  };
  const rotate = (dx, dy) => {
    yaw = (yaw + dx) % (2 * Math.PI);
    pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, pitch + dy));
    for (const button of document.querySelectorAll("[data-look]")) button.setAttribute("aria-pressed", "false");
    again();
  };
  const look = (name) => {
    stop();
    [yaw, pitch] = looks[name];
    size = 1;
    for (const button of document.querySelectorAll("[data-look]")) button.setAttribute("aria-pressed", String(button.dataset.look === name));
    again();
  };
  for (const button of document.querySelectorAll("[data-look]")) button.addEventListener("click", () => look(button.dataset.look));
  document.getElementById("turn").addEventListener("click", (event) => {
    if (turning !== null) return stop();
    event.currentTarget.setAttribute("aria-pressed", "true");
    let before = performance.now();
    const go = (now) => {
      rotate((now - before) * 0.0004, 0);
      before = now;
      turning = requestAnimationFrame(go);
    };
    turning = requestAnimationFrame(go);
  });
  const keys = {
    ArrowLeft: () => rotate(-0.12, 0),
    ArrowRight: () => rotate(0.12, 0),
    ArrowUp: () => rotate(0, -0.12),
    ArrowDown: () => rotate(0, 0.12),
    "+": () => (size = Math.min(6, size * 1.2)),
    "-": () => (size = Math.max(0.5, size / 1.2)),
    0: () => look("space"),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    stop();
    keys[event.key]();
    again();
  });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    stop();
    drag = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      rotate((event.clientX - drag[0]) * 0.008, (event.clientY - drag[1]) * 0.008);
      drag = [event.clientX, event.clientY];
    } else point(event);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drag = null));

  // ------------------------------------------------------------- what is pointed at
  const point = (event) => {
    const frame = canvas.getBoundingClientRect();
    const scale = canvas.width / frame.width;
    const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    let best = null;
    let least = (9 * scale) ** 2;
    for (const { point: one, on } of drawn) {
      const far = (on[0] - x) ** 2 + (on[1] - y) ** 2;
      if (far <= least) [best, least] = [one, far];
    }
    const { i } = best ?? {};
    hint.textContent = best
      ? `Galaxy: x ${(data.x[i] / 1000).toFixed(2)}, y ${(data.y[i] / 1000).toFixed(2)} h⁻¹ Mpc, R ${best.radius.toFixed(2)} h⁻¹ Mpc, v ${data.v[i]} km/s`
      : rest;
  };
  canvas.addEventListener("pointerleave", () => (hint.textContent = rest));

  const fresh = () => {
    styles();
    legend();
    again();
  };
  colour.addEventListener("change", fresh);
  addEventListener("cmass-theme", fresh);
  addEventListener("resize", again);
  view.hidden = false;
  fresh();
});
