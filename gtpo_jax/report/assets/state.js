// What is chosen: filters, tint, group, trajectory. The address keeps it.

const TINTS = ["none", "advantage", "probability", "entropy"];
const DEFAULTS = {
  search: "", source: "", step: "", family: "", outcome: "", stop: "", order: "recorded",
  violations: "", unequal: "", tint: "", group: "", sample: "",
};
const FILTERS = ["search", "source", "step", "family", "outcome", "stop", "violations", "unequal"];
const NO_FILTERS = Object.fromEntries(FILTERS.map((name) => [name, ""]));
const state = { ...DEFAULTS };

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
}

function writeAddress() {
  const kept = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  const text = new URLSearchParams(kept).toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : "#");
}

const filtered = () => FILTERS.some((name) => state[name] !== "");

let haystacks = null; // of problems, in lower case

function searched(problem) {
  haystacks ??= index.problems.id.map((id, i) =>
    `${id}\n${index.problems.question[i]}\n${index.problems.answer[i]}`.toLowerCase());
  return haystacks[problem].includes(state.search.toLowerCase());
}

const unequal = (group) => {
  const verdicts = [...members(group)].map((i) => index.trajectories.verdict[i] === "right");
  return verdicts.some((right) => right !== verdicts[0]);
};

function groupMatches(group) {
  const { source, step, problem } = index.groups;
  return (
    (state.source === "" || index.sources[source[group]] === state.source) &&
    (state.step === "" || String(step[group]) === state.step) &&
    (state.family === "" ||
      index.families[index.problems.family[problem[group]]] === state.family) &&
    (state.search === "" || searched(problem[group])) &&
    (state.unequal === "" || unequal(group))
  );
}

function trajectoryMatches(i) {
  const { verdict, stop, violations } = index.trajectories;
  return (
    (state.outcome === "" || verdict[i] === state.outcome) &&
    (state.stop === "" || index.stops[stop[i]] === state.stop) &&
    (state.violations === "" || violations[i] > 0)
  );
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const meanOf = (group, value) => mean([...members(group)].map(value));
const rightShare = (group) => meanOf(group, (i) => index.trajectories.verdict[i] === "right");

const ORDERS = {
  recorded: { name: "as recorded" },
  hardest: { name: "hardest first", by: rightShare },
  easiest: { name: "easiest first", by: (group) => -rightShare(group) },
  longest: { name: "longest first", by: (g) => -meanOf(g, (i) => index.trajectories.tokens[i]) },
  failed: { name: "failed calls first", by: (g) => -meanOf(g, (i) => index.trajectories.failed[i]) },
};

// Groups with a trajectory that matches, in the order that is chosen, and how many match.
function matching() {
  const groups = [];
  let trajectories = 0;
  for (let group = 0; group < index.groups.first.length; group++) {
    if (!groupMatches(group)) continue;
    let found = 0;
    for (const i of members(group)) found += trajectoryMatches(i);
    if (found) groups.push(group);
    trajectories += found;
  }
  const by = ORDERS[state.order]?.by;
  if (by) {
    const sizes = new Map(groups.map((group) => [group, by(group)]));
    groups.sort((a, b) => sizes.get(a) - sizes.get(b) || a - b);
  }
  return { groups, trajectories };
}
