// The program the MCP conformance suite drives: the official TypeScript client, its tokens from safeconduct.
// Environment: the suite's MCP_CONFORMANCE_*; SAFECONDUCT (the binary); REPORTS (a folder for what safeconduct did, one file a
// scenario); ASSERTION (which of the WIF scenario's to present: valid, if not said; expired; wrong-audience);
// DAEMON (1: through `safeconduct run`; key-bound tokens always are); PROXY (1: the client knows the proxy alone, and no token);
// BRIDGE (1: the client starts `safeconduct stdio` and knows nothing else).
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { boundFetch } from './conformance-bound.mjs';
import { conversation } from './conformance-conversations.mjs';
import { grantsAll, minted, proxied } from './conformance-proxy.mjs';
import { provision, provisionOpen } from './conformance-provision.mjs';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');
const { StdioClientTransport } = require('@modelcontextprotocol/client/stdio');

const url = process.argv.at(-1);
const wire = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION;
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const daemon = process.env.DAEMON === '1';
const proxy = process.env.PROXY === '1';
const bridge = process.env.BRIDGE === '1';
// Only its owner may enter, as safeconduct requires for a socket's directory.
const folder = mkdtempSync(join(tmpdir(), 'conformance-'));
const report = { scenario, runs: [], operator_requests: [] };
const secrets = new Set();
let running;

// Shorter than the suite's patience, so that nothing started here outlives this program.
setTimeout(() => {
  running?.kill('SIGKILL');
  process.stderr.write('the conformance client took too long\n');
  process.exit(1);
}, 50_000).unref();

process.exitCode = await main().catch((error) => {
  report.failed = error.stack;
  process.stderr.write(`${error.stack}\n`);
  return 1;
}).finally(() => {
  rmSync(folder, { recursive: true });
  writeFileSync(join(process.env.REPORTS, `${scenario.replaceAll('/', '.')}.json`), JSON.stringify(report));
});

async function main() {
  // Scenarios without authorization involve safeconduct only as the proxy or the bridge.
  const open = !scenario.startsWith('auth/');
  if (open && !proxy && !bridge) return converse(overHttp(new URL(url), {}));
  const job = { scenario, url, written, report, secrets };
  const { identity, server, bound } = await (open ? provisionOpen(job, await grantsAll()) : provision(job));
  const global = ['--log', 'trace', '--config', written('safeconduct.toml', configuration(server, daemon || proxy || bridge || bound))];
  if (identity) global.push('--identity-file', written('assertion.jwt', identity));
  if (proxy) return throughProxy(global);
  if (bridge) return throughBridge(global);
  if (daemon || bound) return throughDaemon(global, bound);
  const one = await safeconduct([...global, 'token', 'target', '--no-daemon']);
  return one.status === 0 ? converse(overHttp(new URL(url), { authProvider: { token: async () => one.token } })) : 1;
}

async function throughProxy(global) {
  await start([...global, 'run']);
  try {
    const { url: way, options } = await proxied(socket(), url, secrets);
    return await converse(overHttp(way, options));
  } finally {
    await end();
    shown('the daemon', 'daemon.err');
  }
}

async function throughBridge(global) {
  await start([...global, 'run']);
  try {
    for (const token of await minted(socket(), url)) secrets.add(token);
    const args = ['--log', 'trace', '--socket', socket(), 'stdio', 'target', '--daemon-only'];
    const stderr = openSync(written('bridge.err', ''), 'a');
    return await converse(new StdioClientTransport({ command: process.env.SAFECONDUCT, args, env: environment(), stderr }));
  } finally {
    await end();
    shown('the daemon', 'daemon.err');
    shown('the bridge', 'bridge.err');
  }
}

// The suite keeps what a client writes to stderr.
function shown(who, name) {
  const log = readFileSync(join(folder, name), 'utf8');
  process.stderr.write(log);
  unspoken(who, log);
}

async function throughDaemon(global, bound) {
  await start([...global, 'run']);
  try {
    if (bound) return await converse(overHttp(new URL(url), { fetch: boundFetch(socket(), secrets) }));
    // Ask the daemon before every request, as a client does.
    const ask = ['--log', 'trace', '--socket', socket(), 'token', 'target', '--daemon-only'];
    return await converse(overHttp(new URL(url), { authProvider: { token: async () => (await safeconduct(ask)).token } }));
  } finally {
    await end();
    unspoken('the daemon', readFileSync(join(folder, 'daemon.err'), 'utf8'));
  }
}

function overHttp(way, credentials) {
  return new StreamableHTTPClientTransport(way, credentials);
}

async function converse(transport) {
  const mode = wire === '2026-07-28' ? { pin: wire } : 'legacy';
  const { options, prepare, talk } = conversation(scenario);
  const client = new Client({ name: 'conformance', version: '1' }, { versionNegotiation: { mode }, ...options });
  prepare?.(client);
  await client.connect(transport);
  report.said = await talk(client);
  await client.close();
  return 0;
}

function configuration(server, listens) {
  const lines = ['[egress]', 'insecure_loopback = true', '[servers.target]', `url = "${url}"`, ...server];
  if (listens) lines.push('[listen]', `socket = "${socket()}"`, ...(proxy ? ['http = "127.0.0.1:0"'] : []));
  return `${lines.join('\n')}\n`;
}

function written(name, content) {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

function socket() {
  return join(folder, 'safeconduct.sock');
}

// Only the variables that a client passes to its helpers, so that the caller's environment does not choose identity or configuration.
function environment() {
  return { PATH: process.env.PATH, HOME: folder };
}

// It must not block: `fetch` has to see when the suite's server closes a connection that was kept for 5 s, or it sends the next
// request there, and a POST is not sent again.
async function safeconduct(args) {
  const run = await new Promise((resolve, reject) => {
    execFile(process.env.SAFECONDUCT, args, { env: environment(), timeout: 30_000 }, (error, stdout, stderr) => {
      const status = error ? error.code : 0;
      if (typeof status === 'number') resolve({ status, stdout, stderr });
      else reject(error);
    });
  });
  const token = run.stdout.trim();
  secrets.add(token);
  process.stderr.write(run.stderr);
  report.runs.push({ status: run.status, stdout_empty: run.stdout === '', stderr: run.stderr });
  unspoken('safeconduct', run.stderr);
  return { status: run.status, token };
}

async function start(args) {
  const err = openSync(written('daemon.err', ''), 'a');
  running = spawn(process.env.SAFECONDUCT, args, { env: environment(), stdio: ['ignore', 'ignore', err] });
  // The socket's file is there a moment before it can be connected to.
  for (let waited = 0; !(await listens()); waited += 20) {
    if (running.exitCode !== null || waited > 10_000) {
      running.kill('SIGKILL');
      throw new Error(`the daemon did not start: ${readFileSync(join(folder, 'daemon.err'), 'utf8')}`);
    }
    await sleep(20);
  }
}

function listens() {
  return new Promise((resolve) => {
    const connection = connect(socket(), () => resolve(true)).on('error', () => resolve(false));
    connection.on('connect', () => connection.destroy());
  });
}

async function end() {
  if (running.exitCode === null) {
    const gone = new Promise((resolve) => running.once('exit', resolve));
    running.kill('SIGTERM');
    await gone;
  }
  report.daemon_exit = running.exitCode;
}

function unspoken(who, text) {
  for (const secret of [...secrets].filter(Boolean)) {
    // The last part of a JWT is enough to detect it.
    if (text.includes(secret) || text.includes(secret.split('.').at(-1))) {
      report.leak = who;
      throw new Error(`${who} wrote a secret to stderr`);
    }
  }
}
