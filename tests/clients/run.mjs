// Drives each client by each way, prints a table in Markdown, and fails if a row does. See README.md.
// Environment: SAFECONDUCT_BIN. Arguments: words; only rows whose client or way contains one of them.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { CLIENTS } from './clients.mjs';
import { CALLS, model } from './model.mjs';
import { world } from './world.mjs';

const wanted = process.argv.slice(2);
const around = await world(process.env.SAFECONDUCT_BIN);
// Also after an error.
process.on('exit', () => around.end());
let failed = 0;
console.log('| client | version | way | without a model | calls answered | tokens used |\n|---|---|---|---|---|---|');
for (const client of CLIENTS) {
  const { version } = JSON.parse(readFileSync(`target/clients/node_modules/${client.package}/package.json`, 'utf8'));
  for (const way of client.ways) {
    if (wanted.length && !wanted.some((word) => `${client.name} ${way}`.includes(word))) continue;
    const { cells, good, said } = await row(client, way);
    console.log(`| ${[client.name, version, way, ...cells].join(' | ')} |`);
    if (!good) {
      failed += 1;
      console.error(said.slice(-4000).trim());
    }
  }
}
if (failed) console.error(`the daemon says:\n${readFileSync(join(around.folder, 'daemon.log'), 'utf8').slice(-4000)}`);
rmSync(around.folder, { recursive: true });
console.log(failed ? `\n${failed} rows failed` : '\nall rows passed');
process.exit(failed ? 1 : 0);

async function row(client, way) {
  const listed = await client.listed(around, way, home());
  const cells = [listed.ok ? 'yes' : 'FAILED'];
  if (!client.session) return { cells: [...cells, 'no model', ''], good: listed.ok, said: listed.said };
  const scripted = await model(() => around.rotated());
  around.seen.length = 0;
  const { said } = await client.session(around, way, home(), scripted);
  const answered = Array.from({ length: CALLS }, (_, at) => `Echo: call ${at + 1}`);
  const count = answered.filter((echo, at) => scripted.heard[at]?.includes(echo)).length;
  const tokens = new Set(around.seen).size;
  // Each call came with another token.
  const shown = around.isToken([listed.said, said, ...scripted.heard].join());
  const good = listed.ok && count === CALLS && tokens >= CALLS && !shown;
  cells.push(`${count} of ${CALLS}${count === CALLS ? '' : ' FAILED'}`, `${tokens}`);
  return { cells, good, said: `${shown ? 'a token was shown' : ''}${listed.ok ? '' : listed.said}\n${said}\nthe model heard: ${scripted.heard.join('\n')}` };
}

function home() {
  return mkdtempSync(join(around.folder, 'home-'));
}
