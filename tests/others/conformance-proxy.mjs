// How a client uses the injecting proxy: it knows the proxy's address and the secret of the loopback listener, and no token. And
// what both the proxy and the bridge need before.
import { createServer, request } from 'node:http';
import { readFileSync } from 'node:fs';
import { json } from 'node:stream/consumers';

// The daemon has its token then, or knows that there is none: the suite starts all clients at once, and a probe waits only four
// seconds for a token. Gives the tokens, which nobody may write to a log.
export async function minted(socketPath, target) {
  const { headers } = await ask(socketPath, `/v1/headers?${new URLSearchParams({ server: 'target', method: 'POST', url: target })}`);
  return (headers?.Authorization ?? []).map((value) => value.split(' ')[1]);
}

// The address of `/mcp/target`, and the fields that a client is configured with.
export async function proxied(socketPath, target, secrets) {
  for (const token of await minted(socketPath, target)) secrets.add(token);
  const { listen } = await ask(socketPath, '/v1/status');
  const secret = readFileSync(listen.http_secret, 'utf8');
  secrets.add(secret);
  const url = new URL(`http://${listen.http[0]}/mcp/target`);
  return { url, options: { requestInit: { headers: { Authorization: `Bearer ${secret}` } } } };
}

function ask(socketPath, path) {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, headers: { host: 'localhost' } }, (answer) => {
      json(answer).then(resolve, reject);
    });
    asked.on('error', reject).end();
  });
}

// An authorization server for scenarios without one: the proxy adds a token in each. It grants every request.
export function grantsAll() {
  const server = createServer((asked, answer) => {
    const issuer = `http://127.0.0.1:${server.address().port}`;
    const documents = {
      '/.well-known/oauth-authorization-server': {
        issuer, token_endpoint: `${issuer}/token`, response_types_supported: [],
        grant_types_supported: ['client_credentials'], token_endpoint_auth_methods_supported: ['client_secret_basic'],
      },
      '/token': { access_token: 'a-token-of-the-issuer-that-grants-all', token_type: 'Bearer', expires_in: 300 },
    };
    asked.resume();
    const document = documents[asked.url];
    answer.writeHead(document ? 200 : 404, { 'content-type': 'application/json' }).end(JSON.stringify(document ?? {}));
  });
  // It must not keep this program alive.
  server.unref();
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`));
  });
}
