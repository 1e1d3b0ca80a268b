// The token check before an MCP server that has none, as real servers do it: signature, `iss`, `aud` and `exp` of a JWT, by
// jose. What passes is forwarded without the token, and streams both ways.
// Environment: ISSUER and JWKS (JSON) of the authorization server; PATHS (a list, JSON): served, each a resource of its own.
// Prints {"resource"} (of the first path) when ready, and {"seen"} for each request: {method, path, rpc, status, jti}. Lines on stdin:
// {"target":URL} says where to forward to, {"answers":[{status,type,body}…]} what the next requests with a good token get in
// place of the server's answer (status 0: the connection is closed), {"always":…} the same for all of them (null ends it). Each
// line is answered with {"done"}. Ends when stdin does, or after 600 s.
import { once } from 'node:events';
import http from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { buffer } from 'node:stream/consumers';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { createLocalJWKSet, jwtVerify } = require('jose');

const issuer = process.env.ISSUER;
const keys = createLocalJWKSet(JSON.parse(process.env.JWKS));
const paths = JSON.parse(process.env.PATHS ?? '["/mcp"]');
const METADATA = '/.well-known/oauth-protected-resource';
const agent = new http.Agent({ keepAlive: true });
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const order = { target: undefined, answers: [], always: null };

setTimeout(() => process.exit(0), 600_000);

const server = http.createServer((request, response) => {
  serve(request, response).catch((problem) => response.destroy(problem));
});
// Longer than any pause of a test.
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const origin = `http://127.0.0.1:${server.address().port}`;
say({ resource: `${origin}${paths[0]}` });
createInterface({ input: process.stdin }).on('line', (line) => {
  const change = JSON.parse(line);
  Object.assign(order, change);
  // A target that was started again is named again: nothing is kept of the one before.
  if (change.target) agent.destroy();
  say({ done: true });
}).on('close', () => process.exit(0));

async function serve(request, response) {
  const { pathname } = new URL(request.url, origin);
  if (pathname.startsWith(METADATA)) {
    const path = pathname.slice(METADATA.length);
    const known = paths.includes(path);
    const document = known ? { resource: `${origin}${path}`, authorization_servers: [issuer] } : {};
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' }).end(JSON.stringify(document));
    return;
  }
  const body = await buffer(request);
  const seen = { method: request.method, path: pathname, rpc: rpc(body) };
  const claims = await verified(request, `${origin}${pathname}`);
  seen.jti = claims?.jti;
  if (!claims) return refuse(response, seen, pathname);
  const scripted = order.always ?? order.answers.shift();
  if (scripted) return play(scripted, request, response, seen);
  forward(request, response, body, seen);
}

async function verified(request, audience) {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ');
  if (scheme !== 'Bearer' || !token) return null;
  const rules = { issuer, audience, algorithms: ['ES256'], requiredClaims: ['exp', 'aud', 'iss'] };
  // No second of tolerance: a token that is dead is dead.
  return jwtVerify(token, keys, rules).then(({ payload }) => payload, () => null);
}

function refuse(response, seen, path) {
  const challenge = `Bearer error="invalid_token", resource_metadata="${origin}${METADATA}${path}"`;
  say({ seen: { ...seen, status: 401 } });
  response.writeHead(401, { 'www-authenticate': challenge, 'content-type': 'application/json' }).end('{"error":"invalid_token"}');
}

function play({ status, type = 'application/json', body = '', headers = {} }, request, response, seen) {
  say({ seen: { ...seen, status } });
  if (status === 0) return request.socket.destroy();
  response.writeHead(status, { ...(type && { 'content-type': type }), ...headers }).end(body.replaceAll('$ID', JSON.stringify(seen.rpc.id ?? null)));
}

function forward(request, response, body, seen) {
  const { authorization, host, connection, 'transfer-encoding': coding, ...headers } = request.headers;
  const to = new URL(request.url, order.target);
  const asked = http.request(to, { method: request.method, headers: { ...headers, 'content-length': body.length }, agent });
  asked.on('response', (answer) => {
    say({ seen: { ...seen, status: answer.statusCode } });
    const { connection: hop, 'transfer-encoding': framing, ...passed } = answer.headers;
    response.writeHead(answer.statusCode, passed);
    response.flushHeaders();
    answer.on('error', () => response.destroy());
    answer.pipe(response);
  });
  // As a gateway whose server is gone.
  asked.on('error', () => {
    say({ seen: { ...seen, status: 502 } });
    if (response.headersSent) return response.destroy();
    response.writeHead(502, { 'content-type': 'text/plain' }).end('bad gateway');
  });
  response.on('close', () => asked.destroy());
  asked.end(body);
}

function rpc(body) {
  try {
    const { id, method, params } = JSON.parse(body);
    return { id, method, name: params?.name };
  } catch {
    return {};
  }
}
