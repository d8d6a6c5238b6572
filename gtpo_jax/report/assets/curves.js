// Small multiples of the metrics. The pointer reads all panels of a phase at one step.

const WIDE = 240;
const HIGH = 84;
const EDGE = 3;

function rangeOf(panel) {
  const values = panel.series.flatMap((series) => series.values);
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (low >= 0 && low < 0.5 * high) low = 0;
  if (high <= 1 && high > 0.6 && low === 0) high = 1; // a share
  if (low === high) high = low + (Math.abs(low) || 1);
  const steps = panel.series.flatMap((series) => series.steps);
  const first = Math.min(...steps);
  return { low, high, first, last: Math.max(...steps, first + 1) };
}

function placer({ low, high, first, last }) {
  return {
    x: (step) => EDGE + ((step - first) / (last - first)) * (WIDE - 2 * EDGE),
    y: (value) => HIGH - EDGE - ((value - low) / (high - low)) * (HIGH - 2 * EDGE),
  };
}

function line(series, place) {
  const points = series.steps.map(
    (step, i) => `${place.x(step).toFixed(1)},${place.y(series.values[i]).toFixed(1)}`);
  const kind = `line color-${series.color % 6}${series.heldOut ? " held-out" : ""}`;
  const made = svg("g", { class: kind }, svg("polyline", { points: points.join(" ") }));
  if (series.heldOut && points.length <= 40) {
    for (const point of points) {
      const [cx, cy] = point.split(",");
      made.append(svg("circle", { cx, cy, r: 2.4 }));
    }
  }
  return made;
}

function nearest(steps, step) {
  let best = 0;
  for (let i = 1; i < steps.length; i++) {
    if (Math.abs(steps[i] - step) <= Math.abs(steps[best] - step)) best = i;
  }
  return best;
}

// The values of a panel at a step, or the last ones.
function readings(panel, step) {
  const several = panel.series.length > 1;
  return panel.series.map((series) => {
    const i = step === null ? series.steps.length - 1 : nearest(series.steps, step);
    const label = [index.runs > 1 ? series.run : null,
      panel.title === series.name ? null : series.name].filter(Boolean).join(" ");
    return el("span", { class: `reading color-${series.color % 6}${
      series.heldOut ? " held-out" : ""}` },
    several ? el("i", { "aria-hidden": "true" }) : "",
    el("b", {}, formatted(series.values[i])), several ? ` ${label}` : "");
  });
}

function summary(panel) {
  return panel.series.map((series) => {
    const last = series.steps.length - 1;
    return `${series.run} ${series.name}: ${formatted(series.values[0])} at step ` +
      `${series.steps[0]}, ${formatted(series.values[last])} at step ${series.steps[last]}`;
  }).join("; ");
}

function panelNode(panel) {
  const range = rangeOf(panel);
  const place = placer(range);
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HIGH, visibility: "hidden" });
  const graph = svg("svg", {
    viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${panel.title}. ${summary(panel)}`,
  },
  svg("line", { class: "axis", x1: 0, x2: WIDE, y1: HIGH - 0.5, y2: HIGH - 0.5 }),
  ...recordedSteps(panel, range).map((step) => svg("line", {
    class: "recorded", x1: place.x(step), x2: place.x(step), y1: HIGH - 5, y2: HIGH })),
  ...panel.series.map((series) => line(series, place)), cursor);
  const values = el("p", { class: "readings" }, ...readings(panel, null));
  const at = el("span", { class: "at" }, `step ${range.last}`);
  const [last, prefix] = worded(panel.title).split("/").reverse();
  const node = el("figure", { class: "panel" },
    el("figcaption", {}, el("h3", { title: panel.title }, el("span", {}, last), prefix), values),
    el("div", { class: "plot" }, el("span", { class: "high" }, formatted(range.high)),
      el("span", { class: "low" }, formatted(range.low)), graph,
      el("span", { class: "first" }, `${range.first}`), at));
  node.panel = panel;
  node.read = (step) => {
    values.replaceChildren(...readings(panel, step));
    at.textContent = `step ${step ?? range.last}`;
    cursor.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step !== null) {
      cursor.setAttribute("x1", place.x(step));
      cursor.setAttribute("x2", place.x(step));
    }
  };
  const stepAt = (event) => {
    const box = graph.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDE - EDGE) / (WIDE - 2 * EDGE);
    const { steps } = panel.series[0];
    return steps[nearest(steps, range.first + share * (range.last - range.first))];
  };
  graph.addEventListener("pointermove", (event) => readAll(panel.phase, stepAt(event)));
  graph.addEventListener("pointerleave", () => readAll(panel.phase, null));
  graph.addEventListener("click", (event) => {
    const steps = recordedSteps(panel, range);
    if (steps.length) choose({ step: String(steps[nearest(steps, stepAt(event))]) });
  });
  return node;
}

function readAll(phase, step) {
  for (const node of byId("panels").children) if (node.panel.phase === phase) node.read(step);
}

// Steps of rollouts that the page holds trajectories of; evaluations have steps of their own.
function recordedSteps(panel, { first, last }) {
  if (panel.phase !== "train") return [];
  const { source, step } = index.groups;
  const steps = step.filter((_, i) => !index.sources[source[i]].includes("evaluation"));
  return [...new Set(steps)].filter((each) => each >= first && each <= last);
}

function drawPanels() {
  byId("panels").replaceChildren(
    ...index.panels.filter((panel) => panel.shown).map(panelNode));
}

function drawCurves() {
  byId("curves").hidden = !index.panels.length;
  const choices = index.panels.map((panel, i) => el("label", {},
    el("input", { type: "checkbox", value: i }),
    panel.title.includes("/") ? panel.title : `${panel.phase}: ${panel.title}`));
  byId("choices").replaceChildren(...choices);
  choices.forEach((choice, i) => {
    choice.firstChild.checked = index.panels[i].shown;
  });
  byId("choices").addEventListener("change", (event) => {
    index.panels[Number(event.target.value)].shown = event.target.checked;
    drawPanels();
  });
  drawPanels();
}
