// oidc-provider (npm) as an authorization server that trusts the workloads of one outside issuer by RFC 7523 section 2.1.
// Environment: TRUSTED_ISSUER, TRUSTED_JWKS (JSON), RESOURCE (the one it issues tokens for).
// Prints {"issuer","jwks"} when ready, then {"token_request"} for every token request; ends when stdin does, or after 120 s.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

// The packages are installed under target/, outside the folders Node would look in from here.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { Provider, errors } = require('oidc-provider');
const { default: Memory } = require('oidc-provider/lib/adapters/memory_adapter.js');
const { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } = require('jose');

const GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const { TRUSTED_ISSUER, TRUSTED_JWKS, RESOURCE } = process.env;
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

setTimeout(() => process.exit(0), 120_000);
process.stdin.on('end', () => process.exit(0)).resume();

const server = createServer();
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const kid = randomUUID();
  const described = { kid, use: 'sig', alg: 'ES256' };
  server.on('request', provider(issuer, { ...(await exportJWK(privateKey)), ...described }).callback());
  say({ issuer, jwks: { keys: [{ ...(await exportJWK(publicKey)), ...described }] } });
});

function provider(issuer, signingKey) {
  const made = new Provider(issuer, {
    // The default, under a name of its own: unnamed it warns that it forgets, which is what is wanted here.
    adapter: class extends Memory {},
    jwks: { keys: [signingKey] },
    // This server asks every token request for a client, so the workload is a public one.
    clients: [{
      client_id: 'workload',
      grant_types: [GRANT],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'none',
      // No ID token is ever issued; the server insists on an algorithm it has a key for.
      id_token_signed_response_alg: 'ES256',
    }],
    features: {
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: true, getResourceServerInfo: (_ctx, resource) => resourceServer(resource) },
    },
    ttl: { ClientCredentials: 600 },
  });
  made.registerGrantType(GRANT, jwtBearer(made, issuer), ['assertion', 'resource', 'scope']);
  made.on('grant.success', () => say({ token_request: 'granted' }));
  made.on('grant.error', (_ctx, error) => say({ token_request: error.error, why: error.error_description }));
  made.on('server_error', (_ctx, error) => process.stderr.write(`${error.stack}\n`));
  return made;
}

function resourceServer(resource) {
  if (resource !== RESOURCE) throw new errors.InvalidTarget();
  return { scope: 'tools:read', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
}

function jwtBearer(made, issuer) {
  const keys = createLocalJWKSet(JSON.parse(TRUSTED_JWKS));
  const seen = new Set();
  return async (ctx) => {
    const { assertion, resource, scope } = ctx.oidc.params;
    const claims = await verified(assertion, keys, issuer);
    if (seen.has(claims.jti)) throw new errors.InvalidGrant('assertion was used before');
    const target = new made.ResourceServer(resource, resourceServer(resource));
    const token = new made.ClientCredentials({ client: ctx.oidc.client, scope });
    token.resourceServer = target;
    ctx.oidc.entity('ClientCredentials', token);
    ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration };
    // Only now: an assertion that bought nothing may be presented again.
    seen.add(claims.jti);
  };
}

async function verified(assertion, keys, issuer) {
  const rules = { issuer: TRUSTED_ISSUER, audience: issuer, algorithms: ['ES256'], requiredClaims: ['sub', 'exp', 'jti'] };
  try {
    const { payload } = await jwtVerify(assertion, keys, rules);
    if (typeof payload.aud !== 'string') throw new Error('aud is not a single value');
    return payload;
  } catch (problem) {
    // grant.error would show the class name only; the words are what the caller is to be shown.
    const refusal = new errors.InvalidGrant(problem.message);
    refusal.error_description = `assertion refused: ${problem.message.replaceAll('"', '')}`;
    throw refusal;
  }
}
