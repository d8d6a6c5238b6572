// The worst contrast of text to what lies behind it, by class: [[class, ratio], …], worst first.
const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function parts(color) {
  probe.clearRect(0, 0, 1, 1);
  probe.fillStyle = color;
  probe.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = probe.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

const over = (below, above) =>
  [0, 1, 2].map((i) => above[i] * above[3] + below[i] * (1 - above[3]));

function behind(element) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    layers.unshift(parts(getComputedStyle(e).backgroundColor));
  }
  return layers.reduce(over, [255, 255, 255]);
}

// WCAG 2.2, relative luminance.
function luminance(color) {
  const linear = color.map((x) => x / 255).map((x) =>
    x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

const worst = {};
for (const e of document.querySelectorAll("body *")) {
  const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!text || !e.offsetParent || e.closest("option, .unmatched, :disabled + span")) continue;
  const back = behind(e);
  const [low, high] = [back, over(back, parts(getComputedStyle(e).color))]
    .map(luminance).sort((a, b) => a - b);
  const kind = e.className || e.tagName;
  worst[kind] = Math.min(worst[kind] ?? Infinity, (high + 0.05) / (low + 0.05));
}
return Object.entries(worst).sort((a, b) => a[1] - b[1]);
