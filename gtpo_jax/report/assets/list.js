// The list of groups. Only the rows in sight exist, so that thousands cost as little as ten.

let found = { groups: [], trajectories: 0 };
let places = new Map(); // group → its place in the list

function rowHeight() {
  return parseFloat(getComputedStyle(byId("list")).getPropertyValue("--row")) || 56;
}

function outcomeDots(group) {
  const verdicts = [...members(group)].map((i) => index.trajectories.verdict[i]);
  const right = verdicts.filter((verdict) => verdict === "right").length;
  const dots = el("span", { class: "dots", role: "img",
    "aria-label": `${right} of ${verdicts.length} right` });
  for (const verdict of verdicts.slice(0, 16)) dots.append(el("i", { class: verdict }));
  if (verdicts.length > 16) dots.append(` ${right}/${verdicts.length}`);
  return dots;
}

function row(place) {
  const group = found.groups[place];
  const { source, step, problem } = index.groups;
  const { question, family } = index.problems;
  const rewards = [...members(group)].map((i) => index.trajectories.reward[i]);
  const where = [
    index.sources.length > 1 ? index.sources[source[group]] : null, `step ${step[group]}`,
    index.families[family[problem[group]]] || null,
  ].filter((part) => part !== null);
  const known = rewards.every((reward) => reward !== null);
  const node = el("div", {
    class: "row", role: "option", id: `group-${group}`, "data-group": group,
    "aria-selected": String(group === shown), "aria-posinset": place + 1,
    "aria-setsize": found.groups.length,
  },
  el("span", { class: "asked" }, question[problem[group]]), outcomeDots(group),
  el("span", { class: "where" }, where.join(" · ")),
  el("span", { class: "mean" }, known ? credited(mean(rewards)) : ""));
  node.style.top = `${place * rowHeight()}px`;
  return node;
}

function drawRows() {
  const list = byId("list");
  const height = rowHeight();
  const first = Math.max(Math.floor(list.scrollTop / height) - 4, 0);
  const last = Math.min(Math.ceil((list.scrollTop + list.clientHeight) / height) + 4,
    found.groups.length);
  const sheet = el("div", { class: "sheet", role: "presentation" });
  sheet.style.height = `${found.groups.length * height}px`;
  for (let place = first; place < last; place++) sheet.append(row(place));
  const kept = list.scrollTop;
  list.replaceChildren(sheet);
  list.scrollTop = kept;
  const active = places.has(shown) ? `group-${shown}` : null;
  if (active && byId(active)) list.setAttribute("aria-activedescendant", active);
  else list.removeAttribute("aria-activedescendant");
}

function drawList() {
  found = matching();
  places = new Map(found.groups.map((group, place) => [group, place]));
  const all = index.trajectories.sample.length;
  const some = found.trajectories === all ? "" : ` of ${all.toLocaleString("en")}`;
  byId("count").value = `${counted(found.groups.length, "group")}, ` +
    `${found.trajectories.toLocaleString("en")}${some} ` +
    (all === 1 ? "trajectory" : "trajectories");
  byId("clear").hidden = !filtered();
  drawRows();
}

function reveal(group) {
  const list = byId("list");
  const top = (places.get(group) ?? 0) * rowHeight();
  if (top < list.scrollTop) list.scrollTop = top;
  const bottom = top + rowHeight() - list.clientHeight;
  if (bottom > list.scrollTop) list.scrollTop = bottom;
}

function stepGroup(by) {
  if (!found.groups.length) return;
  const at = places.get(shown);
  const next = at === undefined ? 0 : at + by;
  const place = Math.min(Math.max(next, 0), found.groups.length - 1);
  choose({ group: keyOf(found.groups[place]), sample: "" });
  reveal(found.groups[place]);
  drawRows();
}
