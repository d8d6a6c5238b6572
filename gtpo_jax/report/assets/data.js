// Elements, numbers and the data of the page. Text goes in as text: nothing here parses markup.

const byId = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A number with three digits that count, and a real minus sign.
function formatted(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text;
  if (value === 0) text = "0";
  else if (size >= 1e6 || size < 1e-3) text = value.toExponential(1);
  else if (Number.isInteger(value)) text = value.toLocaleString("en");
  else if (size >= 100) text = Math.round(value).toLocaleString("en");
  else if (size >= 10) text = value.toFixed(1);
  else if (size >= 0.1) text = value.toFixed(2);
  else text = value.toPrecision(2);
  return text.replaceAll("-", "−");
}

const counted = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;

const worded = (name) => name.replaceAll("_", " ");

// Inflates a block of the page: base64 of gzip of JSON.
async function unpack(element) {
  const binary = atob(element.textContent.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

let index = null;
const CHUNKS_KEPT = 12;
const chunks = new Map(); // number → promise of bodies, the latest used last
const blocks = document.getElementsByClassName("chunk");

// The bodies of a group's trajectories.
async function bodiesOf(group) {
  const { chunk, first, count } = index.groups;
  const number = chunk[group];
  const found = chunks.get(number) ?? unpack(blocks[number]);
  chunks.delete(number);
  chunks.set(number, found);
  if (chunks.size > CHUNKS_KEPT) chunks.delete(chunks.keys().next().value);
  const start = first[group] - first[chunk.indexOf(number)];
  return (await found).slice(start, start + count[group]);
}

// An address of a group that outlives a rebuilt page.
function keyOf(group) {
  const { source, step, group: number, problem } = index.groups;
  const key = [index.sources[source[group]], step[group], number[group]];
  return [...key, index.problems.id[problem[group]]].join("|");
}

function* members(group) {
  const first = index.groups.first[group];
  for (let i = first; i < first + index.groups.count[group]; i++) yield i;
}

const VERDICTS = {
  right: { name: "right", sign: "✓" },
  wrong: { name: "wrong", sign: "×" },
  no_answer: { name: "no answer", sign: "–" },
  unverifiable: { name: "could not verify", sign: "?" },
};
