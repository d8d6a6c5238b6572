// Wiring: the header, the filters, the keyboard, the address.

// Changes what is chosen and draws what depends on it.
function choose(changes, scroll = false) {
  const before = { ...state };
  Object.assign(state, changes);
  writeAddress();
  const changed = (names) => names.some((name) => state[name] !== before[name]);
  const relisted = changed([...FILTERS, "order"]);
  if (relisted) {
    showFilters();
    drawList();
  }
  if (relisted || changed(["group"])) showGroup(relisted);
  if (changed(["tint"]) && shown >= 0) drawLegend();
  if (changed(["sample"])) markSample(scroll);
}

// The group that is chosen, if the list has it, or the first one of the list.
function showGroup(again) {
  const chosen = found.groups.find((group) => keyOf(group) === state.group);
  const group = chosen ?? found.groups[0] ?? -1;
  const same = group === shown;
  if (!same || again) drawGroup(group);
  if (!same) reveal(group);
  drawRows();
}

function showFilters() {
  for (const name of [...FILTERS, "order"]) {
    const input = byId(name);
    if (input.type === "checkbox") input.checked = state[name] !== "";
    else if (input.value !== state[name]) input.value = state[name];
  }
}

function fillSelect(name, values, all) {
  const select = byId(name);
  select.replaceChildren(el("option", { value: "" }, all),
    ...values.map(([value, label]) => el("option", { value }, label)));
  select.closest("label").hidden = values.length < 2;
}

function fillFilters() {
  const same = (values) => values.map((value) => [String(value), worded(String(value))]);
  const steps = [...new Set(index.groups.step)].sort((a, b) => a - b);
  const verdicts = Object.keys(VERDICTS).filter((name) =>
    index.trajectories.verdict.includes(name));
  fillSelect("source", index.sources.map((name) => [name, name]), "all");
  fillSelect("step", same(steps), "all");
  fillSelect("family", index.families.filter(Boolean).sort().map((f) => [f, f]), "all");
  fillSelect("outcome", verdicts.map((name) => [name, VERDICTS[name].name]), "any");
  fillSelect("stop", same([...index.stops].sort()), "anything");
  byId("order").replaceChildren(...Object.entries(ORDERS).map(
    ([value, { name }]) => el("option", { value }, name)));
}

function fillHeader() {
  byId("title").textContent = index.title;
  byId("subtitle").textContent = index.subtitle;
  byId("note").textContent = index.note;
  byId("note").hidden = index.note === "";
  byId("figures").replaceChildren(...index.figures.map(({ label, first, since, last, step }) =>
    el("div", {}, el("dt", {}, label), el("dd", { title: `at step ${step}` }, formatted(last)),
      el("dd", { class: "from" }, since === step ? `at step ${step}`
        : `from ${formatted(first)} at step ${since}`))));
}

const KEYS = {
  j: () => stepGroup(1),
  k: () => stepGroup(-1),
  l: () => stepSample(1),
  h: () => stepSample(-1),
  t: () => {
    const usable = TINTS.filter(available);
    choose({ tint: usable[(usable.indexOf(tint()) + 1) % usable.length] });
  },
  u: () => choose({ unequal: state.unequal ? "" : "1" }),
  c: () => clearFilters(),
  "/": () => byId("search").focus(),
  "?": () => byId("help").showModal(),
};

function clearFilters() {
  choose(NO_FILTERS);
}

function onKey(event) {
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=radio]), select");
  if (event.key === "Escape" && event.target.id === "search") event.target.blur();
  if (event.key === "Escape") byId("chooser").open = false;
  if (event.ctrlKey || event.metaKey || event.altKey || typing || byId("help").open) return;
  const inList = event.target.id === "list";
  const arrow = { ArrowDown: "j", ArrowUp: "k" }[event.key];
  const key = inList && arrow ? arrow : event.key;
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  KEYS[key]();
}

function listen() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address is not for places of the page
    byId("groups").focus();
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", (event) => {
    const { name, type, checked, value } = event.target;
    choose({ [name]: type === "checkbox" ? (checked ? "1" : "") : value });
  });
  byId("clear").addEventListener("click", clearFilters);
  byId("list").addEventListener("scroll", () => requestAnimationFrame(drawRows));
  byId("list").addEventListener("click", (event) => {
    const chosen = event.target.closest(".row");
    if (!chosen) return;
    choose({ group: keyOf(Number(chosen.dataset.group)), sample: "" });
    const view = byId("view");
    if (view.getBoundingClientRect().top > innerHeight / 2) view.scrollIntoView();
  });
  byId("view").addEventListener("pointerover", showTip);
  byId("view").addEventListener("pointerleave", showTip);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  addEventListener("keydown", onKey);
  addEventListener("pointerdown", (event) => {
    if (!event.target.closest?.("#chooser")) byId("chooser").open = false;
  });
  addEventListener("resize", drawRows);
  addEventListener("hashchange", () => {
    readAddress();
    showFilters();
    drawList();
    showGroup(true);
  });
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    byId("title").textContent = "This page needs a browser of 2023 or later.";
    return;
  }
  index = await unpack(byId("index"));
  index.runs = new Set(index.panels.flatMap((panel) => panel.series.map((each) => each.run))).size;
  readAddress();
  byId("more").open = !matchMedia("(max-width: 52rem)").matches;
  fillHeader();
  fillFilters();
  drawCurves();
  drawEvaluations();
  listen();
  showFilters();
  drawList();
  if (state.group === "") {
    const telling = found.groups.find(unequal);
    if (telling !== undefined) state.group = keyOf(telling);
  }
  showGroup(true);
  document.body.dataset.ready = "yes";
}

start();
