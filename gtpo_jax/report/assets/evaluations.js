// Evaluations on held-out problems: a bar of shares each, and where a gain comes from.

const shared = (value) => (value === 0 ? "0" : value.toFixed(3));

// With its sign, a real minus; what rounds to nothing is nothing.
function signed(value) {
  const size = Math.abs(value).toFixed(3);
  if (Number(size) === 0) return "0";
  return `${value > 0 ? "+" : "−"}${size}`;
}

const swatch = (way) => el("i", { class: "swatch", "data-way": way, "aria-hidden": "true" });

function shareBar(ways, shares) {
  const parts = ways.map((way, i) => {
    const part = el("i", { "data-way": way, title: `${way} ${shared(shares[i])}` });
    part.style.flexGrow = shares[i];
    return part;
  });
  // What it shows stands in the cells beside it.
  return el("div", { class: "shares", "aria-hidden": "true" },
    ...parts.filter((_, i) => shares[i] > 0));
}

// The mode of an evaluation; where the page holds its trajectories, a button that filters them.
function modeNode(run, { name, mode }) {
  const own = `evaluation/${name}/${mode}`;
  const source = [own, `${run}: ${own}`].find((each) => index.sources.includes(each));
  if (source === undefined) return mode;
  const button = el("button", { type: "button", title: "show its trajectories" }, mode);
  button.addEventListener("click", () => {
    choose({ ...NO_FILTERS, source });
    byId("groups").scrollIntoView();
    byId("groups").focus({ preventScroll: true });
  });
  return button;
}

function barRow(run, bar) {
  const left = bar.excluded ? `, ${bar.excluded.toLocaleString("en")} unknown` : "";
  const size = `${counted(bar.problems, "problem")}, ${counted(bar.samples, "sample")}${left}`;
  return el("tr", { role: "row" },
    el("th", { scope: "row", role: "rowheader" }, el("b", {}, bar.name), " ", modeNode(run, bar),
      el("span", { class: "size" }, size)),
    el("td", { role: "cell" }, shareBar(index.evaluations.ways, bar.shares)),
    ...bar.shares.map((share) => el("td", { role: "cell", class: "number" }, shared(share))));
}

// The roles are said since rows are grids on a narrow screen, which are no tables by themselves.
function barTable({ run, bars }) {
  const head = (...inside) => el("th", { scope: "col", role: "columnheader" }, ...inside);
  return el("table", { class: "bars", role: "table", "aria-label": `Evaluations of ${run}` },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
      head("Evaluation"), head("Share of samples"),
      ...index.evaluations.ways.map((way) => head(swatch(way), way)))),
    el("tbody", { role: "rowgroup" }, ...bars.map((bar) => barRow(run, bar))));
}

function gainTable(caption, first, rows) {
  const heads = [first, "before", "after", "gain"];
  return el("table", { class: "gain" }, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map(([label, ...numbers]) => el("tr", {},
      el("th", { scope: "row" }, ...label),
      ...numbers.map((number) => el("td", {}, number))))));
}

const numbersOf = ({ before, after, gain }) => [shared(before), shared(after), signed(gain)];

function allOf({ before, after, gain }) {
  const right = index.evaluations.ways.indexOf("right");
  return numbersOf({ before: before[right], after: after[right], gain });
}

// What a way to fail had before and has no more is gained.
function failureTable(comparison) {
  const { before, after } = comparison;
  const rows = index.evaluations.ways.map((way, i) => [[swatch(way), way],
    ...numbersOf({ before: before[i], after: after[i], gain: before[i] - after[i] })]);
  const failures = rows.filter((_, i) => index.evaluations.ways[i] !== "right");
  return gainTable("By how samples fail", "failure",
    [...failures, [[swatch("right"), "right"], ...allOf(comparison)]]);
}

function partTable(comparison) {
  const number = (count) => el("b", {}, count.toLocaleString("en"));
  const rows = comparison.parts.map((part) => [
    [number(part.problems), part.solved ? " solved greedily before" : " not solved greedily before"],
    ...numbersOf(part)]);
  return gainTable("By problem", "problems",
    [...rows, [[number(comparison.problems), " in all"], ...allOf(comparison)]]);
}

const MEANINGS = {
  solved: { "1": "surer of what it knew", "-1": "less sure of what it knew", "0": "as before" },
  others: { "1": "learned", "-1": "unlearned", "0": "as before" },
};

// The failure that fell most, and the one that rose most.
function changes({ before, after }) {
  const found = index.evaluations.ways.map((way, i) => ({ way, by: before[i] - after[i] }))
    .filter(({ way, by }) => way !== "right" && Number(by.toFixed(3)) !== 0)
    .sort((a, b) => b.by - a.by);
  const told = (each, verb) => each && `“${each.way}” ${verb} most, by ${shared(Math.abs(each.by))}`;
  return [
    told(found.find(({ by }) => by > 0), "falls"),
    told(found.findLast(({ by }) => by < 0), "rises"),
  ].filter(Boolean);
}

function sourceOf({ solved, problems, gain }, name) {
  const which = solved ? `${counted(problems, "problem")} that ${name} solves greedily`
    : `${problems.toLocaleString("en")} that it does not`;
  const meaning = MEANINGS[solved ? "solved" : "others"][Math.sign(Number(gain.toFixed(3)))];
  return `${signed(gain)} on ${which} (${meaning})`;
}

function words(comparison) {
  const { names, gain, error, problems, left_out: left, parts } = comparison;
  const told = [
    `The share of right samples ${gain < 0 ? "falls" : "rises"} by ${shared(Math.abs(gain))}` +
      ` (standard error ${shared(error)}) over ${counted(problems, "problem")}: ` +
      `${parts.map((part) => sourceOf(part, names[0])).join(", ")}.`,
  ];
  const failures = changes(comparison);
  if (failures.length) told.push(`Among failures, ${failures.join(", and ")}.`);
  if (left) told.push(`Left out: ${counted(left, "problem")} without an outcome in both.`);
  return told.join(" ");
}

function comparisonNode(comparison, open) {
  const { names, problems, gain } = comparison;
  const heading = el("summary", {}, `From ${names[0]} to ${names[1]}`,
    problems ? `: ${signed(gain)}` : null);
  const inside = problems
    ? [el("p", {}, words(comparison)),
      el("div", { class: "tables" }, failureTable(comparison), partTable(comparison))]
    : [el("p", {}, "They have no problem in common.")];
  return el("details", { class: "comparison", open }, heading, ...inside);
}

function drawEvaluations() {
  const { runs, several } = index.evaluations;
  byId("evaluations").hidden = !runs.length;
  for (const each of runs) {
    byId("evaluations").append(
      ...(several ? [el("h3", {}, each.run)] : []), barTable(each),
      ...each.comparisons.map((comparison, i) =>
        comparisonNode(comparison, i === each.comparisons.length - 1)));
  }
}
