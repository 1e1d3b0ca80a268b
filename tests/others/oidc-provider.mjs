// oidc-provider (npm) as an authorization server: for workloads of one outside issuer (RFC 7523 section 2.1), for clients
// with a key or a certificate of their own, and as the identity provider that issues ID-JAGs.
// Environment: TRUSTED_ISSUER, TRUSTED_JWKS (JSON), RESOURCE (the one it issues tokens for), CLIENT_JWKS (JSON: the key of
// the clients that have one), CLIENT_CERTIFICATE_JWKS (JSON: the certificate of the one that pins it), TOKENS (jwt or
// opaque), REGISTRATION (guarded: only with a token that nobody has), TLS (JSON: key, cert, ca as PEM; https, and a second
// port that asks for the client's certificate).
// Prints {"issuer","jwks"} when ready, then {"token_request"} for every token request; for a line `{"introspect":TOKEN}` on
// stdin it prints {"introspected"}. Ends when stdin does, or after 120 s.
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setDefaultCACertificates } from 'node:tls';

import { idJag, jwtBearer } from './oidc-grants.mjs';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { Provider, errors } = require('oidc-provider');
const { default: Memory } = require('oidc-provider/lib/adapters/memory_adapter.js');
const { exportJWK, generateKeyPair } = require('jose');

const { RESOURCE, TOKENS = 'jwt', REGISTRATION } = process.env;
const [clientKeys, certificateKeys, tls] = ['CLIENT_JWKS', 'CLIENT_CERTIFICATE_JWKS', 'TLS']
  .map((name) => JSON.parse(process.env[name] ?? 'null'));
const NOBODY = { keys: [] };
const INTROSPECTOR = ['mcp-server', randomUUID()];
const AGENT = 'agent.example.com';
const DOCUMENT = '/agents/machine.json';
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

setTimeout(() => process.exit(0), 120_000);
// For requests to itself.
if (tls) setDefaultCACertificates([tls.ca]);

const server = tls ? https.createServer(tls) : http.createServer();
// A connection without a certificate is accepted: the provider decides whether the client needs one.
const mutual = tls && https.createServer({ ...tls, requestCert: true, rejectUnauthorized: false });
mutual?.listen(0, '127.0.0.1');
if (mutual) await once(mutual, 'listening');
server.listen(0, '127.0.0.1', async () => {
  const issuer = at(server);
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const described = { kid: randomUUID(), use: 'sig', alg: 'ES256' };
  const signingKey = { ...(await exportJWK(privateKey)), ...described };
  const answer = provider(issuer, signingKey).callback();
  mutual?.on('request', answer);
  server.on('request', (request, response) => (
    request.url === DOCUMENT ? document(issuer, response) : answer(request, response)
  ));
  say({ issuer, jwks: { keys: [{ ...(await exportJWK(publicKey)), ...described }] } });
  createInterface({ input: process.stdin }).on('line', (line) => introspect(issuer, JSON.parse(line)))
    .on('close', () => process.exit(0));
});

function at(listening) {
  return `${tls ? 'https' : 'http'}://127.0.0.1:${listening.address().port}`;
}

function provider(issuer, signingKey) {
  const made = new Provider(issuer, {
    // The default adapter under another name, which avoids its warning that it stores nothing permanently.
    adapter: class extends Memory {},
    jwks: { keys: [signingKey] },
    clients: clients(),
    clientAuthMethods: [
      'none', 'private_key_jwt', 'client_secret_basic', ...(tls ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
    ],
    // RFC 8705 section 5.
    discovery: mutual ? { mtls_endpoint_aliases: { token_endpoint: `${at(mutual)}/token` } } : {},
    // No ID token is issued, but the server requires an algorithm for which it has a key.
    clientDefaults: {
      grant_types: ['client_credentials'], redirect_uris: [], response_types: [], id_token_signed_response_alg: 'ES256',
    },
    features: {
      clientCredentials: { enabled: true },
      clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      introspection: { enabled: true, allowedPolicy: () => true },
      registration: { enabled: true, initialAccessToken: REGISTRATION === 'guarded' && randomUUID() },
      mTLS: certificates(),
      resourceIndicators: { enabled: true, getResourceServerInfo: (_ctx, resource) => resourceServer(resource) },
      revocation: { enabled: true },
    },
    // The provider refuses documents on loopback by default; this one is on loopback.
    fetch: (url, { dispatcher: _guard, ...options }) => fetch(url, options),
    ttl: { ClientCredentials: 600 },
  });
  made.registerGrantType(jwtBearer.type, jwtBearer.handler(made, issuer, resourceServer), jwtBearer.parameters);
  made.registerGrantType(idJag.type, idJag.handler(made, issuer, signingKey), idJag.parameters);
  made.on('grant.success', () => say({ token_request: 'granted' }));
  made.on('grant.error', (_ctx, { error, error_detail, error_description }) => (
    say({ token_request: error, why: error_detail ?? error_description })
  ));
  made.on('server_error', (_ctx, error) => process.stderr.write(`${error.stack}\n`));
  return made;
}

function clients() {
  const keyed = { token_endpoint_auth_method: 'private_key_jwt', jwks: clientKeys ?? NOBODY };
  const certified = { tls_client_certificate_bound_access_tokens: true };
  const pinned = certificateKeys ?? NOBODY;
  return [
    // This server requires a client in every token request, so the workload is a public client.
    { client_id: 'workload', grant_types: [jwtBearer.type, idJag.type], token_endpoint_auth_method: 'none' },
    ...(clientKeys ? [
      { client_id: 'machine', ...keyed },
      { client_id: 'bound', dpop_bound_access_tokens: true, ...keyed },
    ] : []),
    ...(tls ? [
      { client_id: 'vouched', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_dns: AGENT, ...certified },
      { client_id: 'pinned', token_endpoint_auth_method: 'self_signed_tls_client_auth', ...certified, jwks: pinned },
    ] : []),
    { client_id: INTROSPECTOR[0], client_secret: INTROSPECTOR[1], token_endpoint_auth_method: 'client_secret_basic' },
  ];
}

function certificates() {
  if (!tls) return { enabled: false };
  return {
    enabled: true,
    certificateBoundAccessTokens: true,
    selfSignedTlsClientAuth: true,
    tlsClientAuth: true,
    getCertificate: (ctx) => ctx.socket.getPeerX509Certificate(),
    certificateAuthorized: (ctx) => ctx.socket.authorized,
    certificateSubjectMatches: (ctx, _property, name) => ctx.socket.getPeerX509Certificate().checkHost(name) === name,
  };
}

function resourceServer(resource) {
  if (resource !== RESOURCE) throw new errors.InvalidTarget();
  return { scope: 'tools:read', audience: resource, accessTokenFormat: TOKENS, jwt: { sign: { alg: 'ES256' } } };
}

// The document of a client that is registered nowhere (draft-ietf-oauth-client-id-metadata-document).
function document(issuer, response) {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({
    client_id: issuer + DOCUMENT,
    client_name: 'machine',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: clientKeys ?? NOBODY,
  }));
}

// As the MCP server does (RFC 7662).
async function introspect(issuer, { introspect: token }) {
  const answer = await fetch(`${issuer}/token/introspection`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(INTROSPECTOR.join(':')).toString('base64')}` },
    body: new URLSearchParams({ token }),
  });
  say({ introspected: await answer.json() });
}
