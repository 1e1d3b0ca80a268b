// What stands around a client: an authorization server whose tokens live for a few seconds, an official MCP server behind a check of
// these tokens, and safeconduct's daemon. All of it listens on loopback and in a temporary folder.
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const LIFE = 3;
const EVERYTHING = 'target/others/node_modules/@modelcontextprotocol/server-everything/dist/index.js';

export async function world(binary) {
  const folder = mkdtempSync(join(tmpdir(), 'clients-'));
  const running = [];
  const tokens = new Map();
  // The tokens of the answered requests, in order; emptied for each case.
  const seen = [];
  const issuer = await listening(createServer((asked, answer) => issue(asked, answer, tokens)));
  const upstream = await everything(running);
  const server = await listening(createServer((asked, answer) => check({ asked, answer, tokens, seen, upstream })));
  const socket = join(folder, 'safeconduct.sock');
  const secret = written(folder, 'client.secret', 'of-the-machine');
  const configured = (name, path) => [
    `[servers.${name}]`, `url = "${server}${path}"`, `issuer = "${issuer}"`, 'exchange = "client-credentials"',
    'client_id = "machine"', 'client_auth = "secret"', `client_secret_file = "${secret}"`,
  ];
  const config = written(folder, 'safeconduct.toml', [
    '[egress]', 'insecure_loopback = true', '[listen]', `socket = "${socket}"`, 'http = "127.0.0.1:0"', 'oauth_token = true',
    ...configured('srv', '/mcp'),
    // The same for the user of the client, whom the daemon sees by the connection.
    ...configured('open', '/open'), `allow = [{ uid = ${process.getuid()} }]`, '',
  ].join('\n'));
  const log = openSync(join(folder, 'daemon.log'), 'a');
  running.push(spawn(binary, ['--config', config, 'run'], { env: { PATH: process.env.PATH, HOME: folder }, stdio: ['ignore', 'ignore', log] }));
  await until('the daemon', () => dialled({ path: socket }));
  const { listen } = await status(socket);
  return {
    folder, seen,
    // No client gets to see one, but for what its helper hands it.
    isToken: (text) => [...tokens.keys()].some((token) => text.includes(token)),
    proxy: (way) => `http://${listen.http[0]}/mcp/${way === 'url' ? 'open' : 'srv'}`,
    secret: readFileSync(listen.http_secret, 'utf8'),
    // What a user pastes.
    snippet(client, ...more) {
      const run = spawnSync(binary, ['--socket', socket, 'snippet', client, 'srv', ...more], { encoding: 'utf8' });
      if (run.status !== 0) throw new Error(run.stderr);
      return run.stdout;
    },
    // Until the server has refused or outlived the token that it saw last.
    async rotated() {
      const last = seen.at(-1);
      await sleep(Math.max(0, (tokens.get(last) ?? 0) - Date.now()) + 300);
    },
    end() {
      for (const child of running) child.kill('SIGTERM');
    },
  };
}

function issue(asked, answer, tokens) {
  const issuer = `http://${asked.headers.host}`;
  const say = (status, document) => {
    answer.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' }).end(JSON.stringify(document));
  };
  asked.resume();
  if (asked.url === '/.well-known/oauth-authorization-server') {
    return say(200, {
      issuer, token_endpoint: `${issuer}/token`, response_types_supported: [],
      grant_types_supported: ['client_credentials'], token_endpoint_auth_methods_supported: ['client_secret_basic'],
    });
  }
  if (asked.url !== '/token') return say(404, {});
  const token = randomUUID();
  tokens.set(token, Date.now() + LIFE * 1000);
  return say(200, { access_token: token, token_type: 'Bearer', expires_in: LIFE });
}

function check({ asked, answer, tokens, seen, upstream }) {
  const token = /^Bearer (.+)$/.exec(asked.headers.authorization ?? '')?.[1];
  if (!['/mcp', '/open'].includes(asked.url)) return answer.writeHead(404).end();
  if (!(tokens.get(token) > Date.now())) {
    return answer.writeHead(401, { 'www-authenticate': `Bearer${token ? ' error="invalid_token"' : ''}` }).end();
  }
  seen.push(token);
  const { authorization, ...headers } = asked.headers;
  const passed = request(`${upstream}/mcp`, { method: asked.method, headers: { ...headers, host: new URL(upstream).host } }, (got) => {
    answer.writeHead(got.statusCode, got.headers);
    got.pipe(answer);
    got.on('error', () => answer.destroy());
  });
  passed.on('error', () => answer.destroy());
  answer.on('close', () => passed.destroy());
  return asked.pipe(passed);
}

async function everything(running) {
  const server = createServer();
  const port = new URL(await listening(server)).port;
  await new Promise((resolve) => server.close(resolve));
  running.push(spawn(process.execPath, [EVERYTHING, 'streamableHttp'], { env: { ...process.env, PORT: port }, stdio: 'ignore' }));
  await until('the MCP server', () => dialled({ host: '127.0.0.1', port }));
  return `http://127.0.0.1:${port}`;
}

export function listening(server) {
  server.unref();
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`));
  });
}

function written(folder, name, content) {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

function dialled(where) {
  return new Promise((resolve) => {
    const connection = connect(where, () => { connection.destroy(); resolve(true); });
    connection.on('error', () => resolve(false));
  });
}

async function until(what, is) {
  for (let waited = 0; !(await is()); waited += 50) {
    if (waited > 15_000) throw new Error(`${what} did not start`);
    await sleep(50);
  }
}

function status(socketPath) {
  return new Promise((resolve, reject) => {
    request({ socketPath, path: '/v1/status', headers: { host: 'localhost' } }, async (answer) => {
      let text = '';
      for await (const piece of answer) text += piece;
      resolve(JSON.parse(text));
    }).on('error', reject).end();
  });
}
