// One turn: its tokens, tinted and colored, its credit, what the tool said.

// The parts of a turn's text: prose, and the calls where they stand in it word for word.
function partsOf(text, codes) {
  const parts = [];
  const elsewhere = [];
  let at = 0;
  for (const code of codes) {
    const start = code === "" ? -1 : text.indexOf(code, at);
    if (start < 0) {
      elsewhere.push(code);
      continue;
    }
    if (start > at) parts.push({ start: at, end: start, code: false });
    parts.push({ start, end: start + code.length, code: true });
    at = start + code.length;
  }
  if (at < text.length || !parts.length) parts.push({ start: at, end: text.length, code: false });
  return { parts, elsewhere };
}

// Where kinds of Python begin and end inside the calls of a text.
function kindsOf(text, parts) {
  const kinds = [];
  for (const part of parts.filter((each) => each.code)) {
    highlightPython(text.slice(part.start, part.end), (start, end, kind) =>
      kinds.push({ start: part.start + start, end: part.start + end, kind }));
  }
  return kinds;
}

// A token, or the piece of it in one part, cut where the kind of its characters changes.
function tokenNode(text, start, end, kinds, from) {
  const nodes = [];
  let at = start;
  for (let k = from; k < kinds.length && kinds[k].start < end; k++) {
    const kind = kinds[k];
    if (kind.end <= at) continue;
    const begin = Math.max(kind.start, at);
    const until = Math.min(kind.end, end);
    nodes.push(text.slice(at, begin),
      el("span", { class: `py-${kind.kind}` }, text.slice(begin, until)));
    at = until;
  }
  return el("span", { class: "t" }, ...nodes, text.slice(at, end));
}

const percent = (share) => `${Math.round(100 * Math.min(Math.max(share, 0), 1))}%`;

function tintToken(node, turn, i) {
  const logprob = turn.logprobs[i];
  const entropy = turn.entropies[i];
  if (typeof logprob === "number") {
    node.style.setProperty("--probability", percent(1 - Math.exp(logprob)));
  }
  if (typeof entropy === "number" && index.scales.entropy) {
    node.style.setProperty("--entropy", percent(entropy / index.scales.entropy));
  }
  node.dataset.i = i;
}

// The text of a turn, every token an element that knows its number.
function tokensOf(turn) {
  const text = turn.pieces.join("");
  const { parts, elsewhere } = partsOf(text, turn.codes);
  const kinds = kindsOf(text, parts);
  const markers = new Set(turn.markers);
  const blocks = parts.map((part) =>
    el(part.code ? "code" : "span", { class: part.code ? "code" : "prose" }));
  let at = 0;
  let p = 0;
  let k = 0;
  turn.pieces.forEach((piece, i) => {
    const end = at + piece.length;
    do {
      while (p + 1 < parts.length && parts[p].end <= at) p++;
      while (k < kinds.length && kinds[k].end <= at) k++;
      const until = p + 1 < parts.length ? Math.min(end, parts[p].end) : end;
      const node = tokenNode(text, at, until, kinds, k);
      if (markers.has(i)) node.classList.add("marker");
      if (piece === "") node.classList.add("part");
      tintToken(node, turn, i);
      blocks[p].append(node);
      at = until;
    } while (at < end);
  });
  const run = elsewhere.map((code) => [
    el("p", { class: "said" }, "The call, as it was run"),
    el("code", { class: "code" }, ...highlighted(code)),
  ]);
  return el("div", { class: "text" }, ...blocks, ...run.flat());
}

function tintTurn(node, advantage) {
  if (typeof advantage !== "number" || !index.scales.advantage) return;
  node.style.setProperty("--advantage", percent(Math.abs(advantage) / index.scales.advantage));
  node.classList.add(advantage < 0 ? "negative" : "positive");
}

const NOISE = 1e-6; // of sums in float32

// Credit in hundredths, where that says enough.
function credited(value) {
  if (value === null) return "not finite";
  const size = Math.abs(value);
  if (size < NOISE) return "0";
  const text = size < 0.01 || size >= 1000 ? formatted(value) : value.toFixed(2);
  return (value > 0 ? "+" : "") + text.replace("-", "−");
}

function creditEntry(name, value, kind = "") {
  return el("div", { class: `entry ${kind}` }, el("dt", {}, worded(name)),
    el("dd", {}, credited(value)));
}

// The reward of a turn, the parts of it that are not zero, and its return.
function creditOf({ reward, return: later, advantage, ...parts }) {
  const given = Object.entries(parts).filter(([, value]) =>
    value === null || Math.abs(value) >= NOISE);
  const entries = [
    reward === undefined ? null : creditEntry("reward", reward),
    ...given.map(([name, value]) => creditEntry(name, value, "of-part")),
    later === undefined ? null : creditEntry("return", later),
  ].filter((entry) => entry !== null);
  return entries.length ? el("dl", { class: "credit" }, ...entries) : null;
}

// A fact as it was read: whole numbers with all digits, since ids are compared.
const factual = (value) => (Number.isInteger(value) ? String(value) : formatted(value));

// The facts that the method read, of a turn or of a whole trajectory.
function factsOf(facts) {
  const entries = facts.map(([name, value]) => el("div", { class: "entry" },
    el("dt", {}, worded(name)), el("dd", {}, factual(value))));
  return entries.length ? el("dl", { class: "known" }, ...entries) : null;
}

function turnHeading({ credit }, number) {
  const advantage = credit.advantage === undefined ? null
    : el("p", { class: "advantage" }, "advantage ", el("b", {}, credited(credit.advantage)));
  return el("div", { class: "turn-heading" }, el("h4", {}, `Turn ${number + 1}`), advantage);
}

function resultOf(result) {
  const facts = [`${formatted(1000 * (result.wall_seconds ?? 0))} ms`];
  if (result.truncated_bytes) facts.push(`${counted(result.truncated_bytes, "byte")} cut off`);
  if (result.state_lost) facts.push("variables of earlier calls are gone");
  const streams = ["stdout", "stderr"].filter((name) => result[name] !== "");
  return el("div", { class: `result ${result.status === "ok" ? "ok" : "bad"}` },
    el("p", { class: "said" }, "tool ", el("b", { class: "status" }, worded(result.status)),
      ` ${facts.join(" · ")}`),
    ...streams.map((name) => el("pre", { class: name, tabindex: "0" }, result[name].trimEnd())),
    streams.length ? null : el("p", { class: "nothing" }, "no output"));
}

function observationOf(turn) {
  if (turn.observation === "") return null;
  const dropped = turn.observation_dropped;
  const cut = dropped ? `, ${counted(dropped, "token")} of output left out` : "";
  return el("details", { class: "observation" },
    el("summary", {}, `What the policy was shown${cut}`), el("pre", {}, turn.observation));
}

function turnNode(turn, number, facts) {
  const node = el("section", { class: "turn", "aria-label": `Turn ${number + 1}` },
    turnHeading(turn, number), creditOf(turn.credit), factsOf(facts),
    turn.violation === null ? null : el("p", { class: "violation" }, turn.violation),
    tokensOf(turn),
    ...turn.results.map(resultOf),
    observationOf(turn));
  tintTurn(node, turn.credit.advantage);
  node.turn = turn;
  return node;
}

// What is known of the token under the pointer.
function tokenFacts(turn, i) {
  const facts = [];
  const logprob = turn.logprobs[i];
  if (typeof logprob === "number") {
    facts.push(["probability", formatted(Math.exp(logprob))], ["log-prob", formatted(logprob)]);
  }
  if (typeof turn.entropies[i] === "number") {
    facts.push(["entropy", `${formatted(turn.entropies[i])} nats`]);
  }
  if (typeof turn.credit.advantage === "number") {
    facts.push(["advantage", credited(turn.credit.advantage)]);
  }
  return facts;
}
