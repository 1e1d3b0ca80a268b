// How a client uses tokens that are bound to a key: it asks the daemon for the headers of each request (RFC 9449), and once
// more when the MCP server wants its nonce in the proof. The key stays in the daemon.
import { request } from 'node:http';
import { json } from 'node:stream/consumers';

export function boundFetch(socketPath, secrets) {
  const proven = async (url, init, nonce) => {
    const headers = new Headers(init?.headers);
    const query = { method: init?.method ?? 'GET', url: String(url), ...(nonce && { dpop_nonce: nonce }) };
    const own = await authorization(socketPath, query);
    for (const [name, values] of Object.entries(own)) headers.set(name, values[0]);
    secrets.add(headers.get('authorization').split(' ')[1]);
    return fetch(url, { ...init, headers });
  };
  return async (url, init) => {
    const answer = await proven(url, init);
    const wantsNonce = answer.status === 401 && /use_dpop_nonce/.test(answer.headers.get('www-authenticate') ?? '');
    return wantsNonce ? proven(url, init, answer.headers.get('dpop-nonce')) : answer;
  };
}

function authorization(socketPath, query) {
  const path = `/v1/headers?${new URLSearchParams({ server: 'target', ...query })}`;
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, headers: { host: 'localhost' } }, async (answer) => {
      const body = await json(answer);
      return answer.statusCode === 200 ? resolve(body.headers) : reject(new Error(`the daemon: ${JSON.stringify(body)}`));
    });
    asked.on('error', reject).end();
  });
}
