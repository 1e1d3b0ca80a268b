// The program the MCP conformance suite drives: the official TypeScript client, its tokens from wayleave.
// Environment: the suite's MCP_CONFORMANCE_*; WAYLEAVE (the binary); ASSERTION (which one of the suite's to present:
// valid, expired, wrong-audience, or own: one made here); DAEMON (1: through `wayleave run`); REPORT (a file for what wayleave did).
import { spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

// The packages are installed under target/, outside the folders Node would look in from here.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');

const url = process.argv.at(-1);
const wire = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const which = process.env.ASSERTION;
const daemon = process.env.DAEMON === '1';
// Its owner alone may enter, as wayleave demands of a socket's directory.
const folder = mkdtempSync(join(tmpdir(), 'conformance-'));
const report = { runs: [] };
const tokens = new Set();
let running;

// Shorter than the suite's patience, so that nothing started here outlives this program.
setTimeout(() => {
  running?.kill('SIGKILL');
  process.stderr.write('the conformance client took too long\n');
  process.exit(1);
}, 30_000).unref();

process.exitCode = await main().finally(() => {
  rmSync(folder, { recursive: true });
  writeFileSync(process.env.REPORT, JSON.stringify(report));
});

async function main() {
  const jwt = await assertion();
  const config = written('wayleave.toml', configuration());
  const identity = written('assertion.jwt', jwt);
  const global = ['--log', 'trace', '--config', config, '--identity-file', identity];
  if (!daemon) {
    const one = wayleave([...global, 'token', 'target', '--no-daemon'], jwt);
    return one.status === 0 ? converse(async () => one.token) : 1;
  }
  await start([...global, 'run']);
  try {
    // Asked before every request, as a client does; the daemon holds the token.
    const ask = ['--log', 'trace', '--socket', socket(), 'token', 'target', '--daemon-only'];
    return await converse(async () => wayleave(ask, jwt).token);
  } finally {
    await end();
    unspoken('the daemon', readFileSync(join(folder, 'daemon.err'), 'utf8'), jwt, ...tokens);
  }
}

async function converse(token) {
  const mode = wire === '2026-07-28' ? { pin: wire } : 'legacy';
  const client = new Client({ name: 'conformance', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider: { token } }));
  const { tools } = await client.listTools();
  const { content } = await client.callTool({ name: tools[0].name, arguments: {} });
  await client.close();
  report.said = content[0].text;
  return 0;
}

function configuration() {
  const lines = ['[egress]', 'insecure_loopback = true', '[servers.target]', `url = "${url}"`];
  if (which === 'wrong-audience') {
    // wayleave sends a foreign audience only when told so, and that needs a pin.
    lines.push(`issuer = "${audience(context.valid_jwt)}"`, `subject_audience = "${audience(context.wrong_audience_jwt)}"`);
  } else {
    // The suite's tokens are opaque, so the binding to the resource cannot be read from them.
    lines.push('trust_discovered_issuer = true');
  }
  if (daemon) lines.push('[listen]', `socket = "${socket()}"`);
  return `${lines.join('\n')}\n`;
}

async function assertion() {
  if (which === 'own') return ownAssertion();
  return context[{ valid: 'valid_jwt', expired: 'expired_jwt', 'wrong-audience': 'wrong_audience_jwt' }[which]];
}

// For scenarios that hand out no credential: everything about it is right, so that nothing but the scenario's trap can stop wayleave.
async function ownAssertion() {
  const metadata = await fetch(new URL('/.well-known/oauth-protected-resource/mcp', url));
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: 'https://idp.example.com', sub: 'conformance', aud: (await metadata.json()).authorization_servers[0],
    iat: now, exp: now + 300, jti: randomUUID(),
  };
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const head = [{ alg: 'ES256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${head}.${sign('sha256', Buffer.from(head), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

function audience(jwt) {
  return JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url')).aud;
}

function written(name, content) {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

function socket() {
  return join(folder, 'wayleave.sock');
}

// Only what a client leaves to its helpers: nothing of the caller's can decide which identity or configuration is found.
function environment() {
  return { PATH: process.env.PATH, HOME: folder };
}

function wayleave(args, jwt) {
  const run = spawnSync(process.env.WAYLEAVE, args, { encoding: 'utf8', env: environment(), timeout: 20_000 });
  if (run.error) throw run.error;
  const token = run.stdout.trim();
  tokens.add(token);
  process.stderr.write(run.stderr);
  report.runs.push({ status: run.status, stdout_empty: run.stdout === '', stderr: run.stderr });
  unspoken('wayleave', run.stderr, jwt, token);
  return { status: run.status, token };
}

async function start(args) {
  const err = openSync(written('daemon.err', ''), 'a');
  running = spawn(process.env.WAYLEAVE, args, { env: environment(), stdio: ['ignore', 'ignore', err] });
  for (let waited = 0; !existsSync(socket()); waited += 20) {
    if (running.exitCode !== null || waited > 10_000) {
      running.kill('SIGKILL');
      throw new Error(`the daemon did not start: ${readFileSync(join(folder, 'daemon.err'), 'utf8')}`);
    }
    await sleep(20);
  }
}

async function end() {
  if (running.exitCode === null) {
    const gone = new Promise((resolve) => running.once('exit', resolve));
    running.kill('SIGTERM');
    await gone;
  }
  report.daemon_exit = running.exitCode;
}

function unspoken(who, text, ...secrets) {
  for (const secret of secrets.filter(Boolean)) {
    // The last part of a JWT alone is enough to know it was written.
    if (text.includes(secret) || text.includes(secret.split('.').at(-1))) {
      report.leak = who;
      throw new Error(`${who} wrote a token to stderr`);
    }
  }
}
