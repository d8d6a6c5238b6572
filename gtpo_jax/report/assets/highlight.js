// Kinds of the characters of Python code, for coloring.

const WORDS = {
  keyword: new Set(
    ("False None True and as assert async await break class continue def del elif else except " +
      "finally for from global if import in is lambda nonlocal not or pass raise return try " +
      "while with yield match case").split(" ")),
  builtin: new Set(
    ("abs all any bin bool bytes chr dict divmod enumerate filter float format frozenset getattr " +
      "hash hex input int isinstance iter len list map max min next object oct open ord pow print " +
      "range repr reversed round set sorted str sum super tuple type zip").split(" ")),
};

const PYTHON = new RegExp(
  [
    /(?<comment>#[^\n]*)/,
    /(?<string>[rbfuRBFU]{0,2}(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))/,
    /(?<number>\b(?:0[xXoObB][\da-fA-F_]+|\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?j?))/,
    /(?<word>[\p{L}_][\p{L}\p{N}_]*)/,
  ].map((part) => part.source).join("|"), "gu");

// Calls `mark(start, end, kind)` for the colored parts of a text.
function highlightPython(text, mark) {
  for (const match of text.matchAll(PYTHON)) {
    const { comment, string, number, word } = match.groups;
    let kind = null;
    if (comment) kind = "comment";
    else if (string) kind = "string";
    else if (number) kind = "number";
    else if (WORDS.keyword.has(word)) kind = "keyword";
    else if (WORDS.builtin.has(word)) kind = "builtin";
    if (kind) mark(match.index, match.index + match[0].length, kind);
  }
}

// Text with its code colored, as nodes.
function highlighted(text) {
  const nodes = [];
  let at = 0;
  highlightPython(text, (start, end, kind) => {
    nodes.push(text.slice(at, start), el("span", { class: `py-${kind}` }, text.slice(start, end)));
    at = end;
  });
  return [...nodes, text.slice(at)];
}
