// What an operator gives safeconduct for a scenario of the conformance suite: the identity token of the workload, if it has
// one, and the lines of its server's table.
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';

const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');

export async function provision(job) {
  const known = SCENARIOS[job.scenario] ?? confidentialClient;
  return known(job);
}

// For scenarios without authorization: a client of an authorization server that is not the scenario's.
export function provisionOpen(job, issuer) {
  const lines = [`issuer = "${issuer}"`, 'exchange = "client-credentials"', 'client_id = "machine"'];
  return { server: [...lines, ...secret(job, 'of-the-machine')] };
}

// Nobody fetches this document: only the suite's authorization-code checks read the client's identifier.
const DOCUMENT = 'https://conformance-test.local/client-metadata.json';

const SCENARIOS = {
  'auth/wif-jwt-bearer': workload,
  'auth/resource-mismatch': trappedWorkload,
  'auth/metadata-issuer-mismatch': trappedWorkload,
  'auth/client-credentials-jwt': keyedClient,
  'auth/basic-cimd': documentedClient,
  'auth/offline-access-scope': documentedClient,
  'auth/token-endpoint-auth-none': publicClient,
  'auth/dpop': boundClient,
  'auth/dpop-nonce': boundClient,
  'auth/enterprise-managed-authorization': enterprise,
};

// A workload that is not an OAuth client: its platform's token is the grant.
async function workload({ secrets }) {
  const which = process.env.ASSERTION ?? 'valid';
  const identity = context[{ valid: 'valid_jwt', expired: 'expired_jwt', 'wrong-audience': 'wrong_audience_jwt' }[which]];
  secrets.add(identity);
  // The suite's tokens are opaque, so the binding to the resource cannot be read from them.
  if (which !== 'wrong-audience') return { identity, server: ['trust_discovered_issuer = true'] };
  // safeconduct sends another audience only if it is configured, and that needs a pinned issuer.
  const pin = [`issuer = "${audience(context.valid_jwt)}"`, `subject_audience = "${audience(identity)}"`];
  return { identity, server: pin };
}

// For scenarios that hand out no credential and set a trap: everything about the workload is right, so that nothing but
// the trap can stop safeconduct.
async function trappedWorkload(job) {
  const identity = assertion(await issuer(job));
  job.secrets.add(identity);
  return { identity, server: ['trust_discovered_issuer = true'] };
}

async function keyedClient(job) {
  const lines = await client(job, 'client-credentials', `client_id = "${context.client_id}"`);
  return { server: [...lines, ...key(job, context.private_key_pem)] };
}

async function documentedClient(job) {
  const lines = await client(job, 'client-credentials', `client_metadata = "${DOCUMENT}"`);
  return { server: [...lines, ...key(job, ownKey().export({ type: 'pkcs8', format: 'pem' }))] };
}

// A public client has no proof: the workload's token is the grant.
async function publicClient(job) {
  const identity = assertion(await issuer(job));
  job.secrets.add(identity);
  return { identity, server: await client(job, 'jwt-bearer', 'client_id = "machine"') };
}

// The client that the scenario hands out, or else one that registers itself.
async function confidentialClient(job) {
  const known = context.client_secret;
  const lines = await client(job, 'client-credentials', known ? `client_id = "${context.client_id}"` : 'register = true');
  return { server: [...lines, ...(known ? secret(job, known) : ['client_auth = "secret"'])] };
}

async function boundClient(job) {
  const { server } = await confidentialClient(job);
  return { server: [...server, 'dpop = true'], bound: true };
}

// The enterprise's identity provider accepts the person's ID token and issues an assertion for the MCP server's authorization server.
async function enterprise(job) {
  const identity = context.idp_id_token;
  job.secrets.add(identity);
  const idp = {
    issuer: context.idp_issuer, token_endpoint: context.idp_token_endpoint, client_id: context.idp_client_id,
    subject_token_type: 'id_token', subject_audience: context.idp_client_id,
  };
  const table = Object.entries(idp).map(([key, value]) => `${key} = "${value}"`).join(', ');
  const lines = await client(job, 'id-jag', `client_id = "${context.client_id}"`);
  return { identity, server: [...lines, ...secret(job, context.client_secret), `idp = { ${table} }`] };
}

async function client(job, exchange, identifier) {
  return [`issuer = "${await issuer(job)}"`, `exchange = "${exchange}"`, identifier];
}

function key({ written }, pem) {
  return ['client_auth = "private-key-jwt"', `client_key_file = "${written('client.pem', pem)}"`];
}

function secret({ written, secrets }, value) {
  secrets.add(value);
  return ['client_auth = "secret"', `client_secret_file = "${written('client.secret', value)}"`];
}

// An operator pins the issuer. It is read here as a person would: follow the server's own challenge, else look in the two
// known places. Every request is reported, so that it is not taken for safeconduct's.
async function issuer({ url, report }) {
  const ask = (where, how) => {
    report.operator_requests.push(new URL(where).pathname);
    return fetch(where, how);
  };
  const challenge = await ask(url, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
  });
  const named = /resource_metadata="([^"]+)"/.exec(challenge.headers.get('www-authenticate') ?? '')?.[1];
  const known = ['/.well-known/oauth-protected-resource/mcp', '/.well-known/oauth-protected-resource'];
  for (const place of named ? [named] : known.map((path) => new URL(path, url))) {
    const answer = await ask(place);
    if (answer.ok) return (await answer.json()).authorization_servers[0];
  }
  throw new Error(`${url} names no authorization server`);
}

function assertion(aud) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: 'https://idp.example.com', sub: 'conformance', aud, iat: now, exp: now + 300, jti: randomUUID() };
  const head = [{ alg: 'ES256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${head}.${sign('sha256', Buffer.from(head), { key: ownKey(), dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

function ownKey() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
}

function audience(jwt) {
  return JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url')).aud;
}
