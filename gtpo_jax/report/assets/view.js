// The chosen group: its problem, and its trajectories side by side.

let shown = -1; // the group on show
let drawing = 0; // the latest drawing; an older one stops
const pause = () => new Promise((resolve) => setTimeout(resolve));

const tint = () => (TINTS.includes(state.tint) ? state.tint : firstTint());

// Advantage where the group has credit, as in training; probability elsewhere.
function firstTint() {
  const credited = shown >= 0 && index.trajectories.reward[index.groups.first[shown]] !== null;
  return credited && index.scales.advantage ? "advantage" : "probability";
}

function available(name) {
  return name === "none" || name === "probability" || Boolean(index.scales[name]);
}

const LEGENDS = {
  none: () => [],
  advantage: () => [`−${formatted(index.scales.advantage)}`, "advantage of the turn",
    `+${formatted(index.scales.advantage)}`],
  probability: () => ["1", "probability of the token", "0"],
  entropy: () => ["0", "entropy in nats", `${formatted(index.scales.entropy)}`],
};

function drawLegend() {
  const labels = LEGENDS[tint()]();
  const legend = byId("legend");
  legend.replaceChildren(...labels.map((label) => el("span", {}, label)));
  legend.hidden = !labels.length;
  byId("view").dataset.tint = tint();
  for (const input of document.querySelectorAll("input[name=tint]")) {
    input.checked = input.value === tint();
  }
}

function tintChooser() {
  const choice = (name) => el("label", { title: available(name) ? null : "nothing was recorded" },
    el("input", { type: "radio", name: "tint", value: name, disabled: !available(name) }),
    el("span", {}, name));
  const made = el("fieldset", { class: "tints" }, el("legend", {}, "Tint tokens by"),
    ...TINTS.map(choice));
  made.addEventListener("change", (event) => choose({ tint: event.target.value }));
  return made;
}

function chip(verdict) {
  const { name, sign } = VERDICTS[verdict];
  return el("span", { class: `chip ${verdict}` },
    el("span", { class: "sign", "aria-hidden": "true" }, sign), name);
}

function groupHeading(group) {
  const { source, step, group: number, problem } = index.groups;
  const { id, question, answer, family } = index.problems;
  const p = problem[group];
  const all = [...members(group)];
  const right = all.filter((i) => index.trajectories.verdict[i] === "right").length;
  const facts = [
    index.sources.length > 1 ? index.sources[source[group]] : null,
    `step ${step[group]}`, `group ${number[group]}`, index.families[family[p]] || null,
    id[p] === question[p] ? null : id[p],
  ].filter((fact) => fact !== null);
  const move = (label, sign, by) => {
    const button = el("button", { type: "button", "aria-label": label, title: label }, sign);
    button.addEventListener("click", () => stepGroup(by));
    return button;
  };
  return el("header", { class: "group-heading" },
    el("div", { class: "facts" }, el("p", {}, facts.join(" · ")),
      el("div", { class: "moves" }, move("Previous group (k)", "↑", -1),
        move("Next group (j)", "↓", 1))),
    el("h2", { id: "question" }, question[p]),
    el("p", { class: "truth" }, "Answer ", el("b", {}, answer[p]),
      el("span", {}, all.length === 1 ? "" : ` · ${right} of ${all.length} right`)));
}

function trajectoryHeading(i, body) {
  const { sample, verdict, stop, included, tokens, reward } = index.trajectories;
  const said = body.answer === null
    ? el("span", {}, "no answer") : el("span", {}, "answer ", el("b", {}, body.answer));
  return el("header", {},
    el("div", { class: "line" }, el("h3", {}, `Sample ${sample[i]}`), chip(verdict[i]),
      reward[i] === null ? null : el("span", { class: "reward" }, `reward ${credited(reward[i])}`)),
    el("p", { class: "line" }, said,
      el("span", { class: "ended" }, `${worded(index.stops[stop[i]])} · ` +
        counted(tokens[i], "token"))),
    included[i] ? null : el("p", { class: "violation" }, "the outcome is unknown: not trained on"));
}

function trajectoryNode(i, body) {
  const facts = Object.entries(body.facts);
  const ofTurns = facts.filter(([, value]) => Array.isArray(value));
  const ofAll = facts.filter(([, value]) => !Array.isArray(value));
  const turns = body.turns.map((turn, number) =>
    turnNode(turn, number, ofTurns.map(([name, values]) => [name, values[number]])));
  const node = el("article", {
    class: `trajectory${filtered() && !trajectoryMatches(i) ? " unmatched" : ""}`,
    "aria-label": `Sample ${index.trajectories.sample[i]}`, tabindex: "-1",
    "data-sample": index.trajectories.sample[i],
  }, trajectoryHeading(i, body), factsOf(ofAll), ...turns);
  node.addEventListener("click", () => choose({ sample: node.dataset.sample }));
  return node;
}

function promptNode(body) {
  return el("details", { class: "observation prompt" },
    el("summary", {}, "Prompt, as the policy read it"), el("pre", {}, body.prompt));
}

// Draws a group; long ones trajectory by trajectory, so that the page stays responsive.
async function drawGroup(group) {
  const mine = ++drawing;
  shown = group;
  const view = byId("view");
  if (group < 0) {
    view.replaceChildren(el("p", { class: "empty" }, "No group matches these filters."));
    return;
  }
  let bodies;
  try {
    bodies = await bodiesOf(group);
  } catch (error) {
    view.replaceChildren(el("p", { class: "empty" }, `This group cannot be unpacked: ${error}`));
    return;
  }
  if (mine !== drawing) return;
  const row = el("div", { class: "trajectories", "data-count": bodies.length });
  view.replaceChildren(groupHeading(group),
    el("div", { class: "reading" }, tintChooser(), el("div", { id: "legend" })), row,
    promptNode(bodies[0]));
  drawLegend();
  let began = performance.now();
  for (const [number, i] of [...members(group)].entries()) {
    if (performance.now() - began > 30) {
      await pause();
      if (mine !== drawing) return;
      began = performance.now();
    }
    row.append(trajectoryNode(i, bodies[number]));
  }
  markSample(false);
}

// Marks the chosen trajectory, and brings it into sight.
function markSample(scroll) {
  for (const node of document.querySelectorAll(".trajectory")) {
    const chosen = node.dataset.sample === state.sample;
    node.classList.toggle("chosen", chosen);
    if (chosen && scroll) {
      node.scrollIntoView({ block: "nearest", inline: "center" });
      node.focus({ preventScroll: true });
    }
  }
}

function stepSample(by) {
  const nodes = [...document.querySelectorAll(".trajectory")];
  if (!nodes.length) return;
  const at = nodes.findIndex((node) => node.dataset.sample === state.sample);
  const next = at < 0 ? (by > 0 ? 0 : nodes.length - 1) : at + by;
  choose({ sample: nodes[Math.min(Math.max(next, 0), nodes.length - 1)].dataset.sample }, true);
}

function showTip(event) {
  const token = event.target.closest?.(".t");
  const turn = token?.closest(".turn")?.turn;
  const tip = byId("tip");
  const facts = turn ? tokenFacts(turn, Number(token.dataset.i)) : [];
  tip.hidden = !facts.length;
  if (tip.hidden) return;
  tip.replaceChildren(...facts.map(([name, value]) =>
    el("div", {}, el("span", {}, name), el("b", {}, value))));
  const box = token.getBoundingClientRect();
  const left = Math.min(Math.max(box.left, 8), innerWidth - tip.offsetWidth - 8);
  const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? box.bottom + 6 : box.top - 6 - tip.offsetHeight}px`;
}
