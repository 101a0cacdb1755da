// Reads queries as a JSON list and prints, for each, the places where the grammar of LogQL finds an error.
// Usage: node grammar.cjs DIRECTORY < queries    where the grammar is installed in DIRECTORY
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { parser } = createRequire(`${process.argv[2]}/`)("@grafana/lezer-logql");

function errors(query) {
  const places = [];
  parser.parse(query).iterate({ enter: (node) => void (node.type.isError && places.push(node.from)) });
  return places;
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(errors)));
