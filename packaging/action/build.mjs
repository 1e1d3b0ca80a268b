#!/usr/bin/env node
// Makes dist/main.mjs and dist/post.mjs, which the runner runs: each entry of src/ with the files that it imports, as one file. The
// files use Node.js alone, so it is enough to put one after the other without the lines that import and export between them.
// `build.mjs --check` compares and writes nothing.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const IMPORT = /^import \{ ([^}]+) \} from "([^"]+)";\n/gm;

/** The text of a file after those that it imports, each once. */
function linked(name, done, builtin) {
  if (done.has(name)) return "";
  done.add(name);
  const text = readFileSync(join(here, "src", name), "utf8");
  let before = "";
  const own = text.replace(IMPORT, (_, names, from) => {
    if (from.startsWith("./")) before += linked(from.slice(2), done, builtin);
    else for (const one of names.split(", ")) builtin.set(one, from);
    return "";
  });
  if (/^import\b/m.test(own)) throw new Error(`${name}: an import that is not \`import { … } from "…";\` on one line`);
  return `${before}\n// ---- ${name}\n${own.replace(/^export /gm, "")}`;
}

function file(name) {
  const builtin = new Map();
  const text = linked(name, new Set(), builtin);
  const from = [...new Set(builtin.values())].sort();
  const imports = from.map((one) => {
    const names = [...builtin].filter(([, of]) => of === one).map(([name]) => name);
    return `import { ${names.sort().join(", ")} } from "${one}";\n`;
  });
  return `// Made by packaging/action/build.mjs from packaging/action/src. Do not edit.\n${imports.join("")}${text}`;
}

const check = process.argv[2] === "--check";
for (const name of ["main.mjs", "post.mjs"]) {
  const path = join(here, "dist", name);
  const made = file(name);
  if (!check) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, made);
  } else if (readFileSync(path, "utf8") !== made) {
    process.stderr.write(`${path} is not what packaging/action/build.mjs makes: run it\n`);
    process.exitCode = 1;
  }
}
