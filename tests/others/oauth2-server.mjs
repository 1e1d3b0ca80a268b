// @jmondi/oauth2-server (npm) as a security token service: its own RFC 8693 grant, for one client.
// Environment: TRUSTED_ISSUER, TRUSTED_JWKS (JSON), RESOURCE (the one it issues tokens for), CLIENT_SECRET (of the client
// "gateway"; without one it is a public client), AS_SHIPPED (1: its answers as the library makes them).
// Prints {"issuer","jwks"} when ready, then {"token_request"} for every token request; ends when stdin does, or after 120 s.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { AuthorizationServer, DateInterval, OAuthException } = require('@jmondi/oauth2-server');
const { handleVanillaError, requestFromVanilla, responseToVanilla } = require('@jmondi/oauth2-server/vanilla');
const { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify, SignJWT } = require('jose');

const GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
const TYPE = 'urn:ietf:params:oauth:token-type:';
const { TRUSTED_ISSUER, TRUSTED_JWKS, RESOURCE, CLIENT_SECRET, AS_SHIPPED } = process.env;
const CLIENT = {
  id: 'gateway', name: 'gateway', secret: CLIENT_SECRET, redirectUris: [], allowedGrants: [GRANT], scopes: [],
};
const JSON_TYPE = { 'content-type': 'application/json' };
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

setTimeout(() => process.exit(0), 120_000);
process.stdin.on('end', () => process.exit(0)).resume();

const server = createServer();
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const { publicKey, privateKey } = await generateKeyPair('ES256');
  const authorization = authorizationServer(issuer, privateKey);
  server.on('request', async (request, response) => {
    const { status, headers, body } = request.url === '/token'
      ? await token(authorization, issuer, request)
      : { status: 200, headers: JSON_TYPE, body: metadata(issuer) };
    response.writeHead(status, headers).end(JSON.stringify(body));
  });
  say({ issuer, jwks: { keys: [{ ...(await exportJWK(publicKey)), use: 'sig', alg: 'ES256' }] } });
});

function metadata(issuer) {
  return {
    issuer, token_endpoint: `${issuer}/token`, response_types_supported: [], grant_types_supported: [GRANT],
    token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
  };
}

function authorizationServer(issuer, key) {
  const made = new AuthorizationServer(clients, tokens, scopes, signer(key), { issuer });
  const grant = { grant: GRANT, processTokenExchange: (args) => subject(args, issuer) };
  made.enableGrantTypes([grant, new DateInterval('10m')]);
  return made;
}

const clients = {
  getByIdentifier: async (id) => (id === CLIENT.id ? CLIENT : undefined),
  isClientValid: async (grant, client, secret) => client.allowedGrants.includes(grant) && secret === client.secret,
};

// The access token is a JWT, so nothing is stored.
const tokens = {
  issueToken: async (client, scopes, user) => (
    { accessToken: randomUUID(), accessTokenExpiresAt: new Date(), client, user, scopes }
  ),
  persist: async () => {},
};

const scopes = {
  getAllByIdentifiers: async (names) => names.filter((name) => name === 'tools:read').map((name) => ({ name })),
  finalize: async (wanted) => wanted,
};

// By default the library signs with a shared secret; a resource server needs a public key.
function signer(key) {
  return {
    // By JSON, which removes claims without a value.
    sign: (claims) => new SignJWT(JSON.parse(JSON.stringify(claims)))
      .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' }).sign(key),
    extraTokenFields: () => ({ aud: RESOURCE }),
  };
}

// The part that the library leaves to its operator: which tokens are exchanged, and for which target.
async function subject({ subjectToken, subjectTokenType, requestedTokenType, resource }, issuer) {
  if (subjectTokenType !== `${TYPE}jwt`) throw OAuthException.badRequest('only JWTs are exchanged here');
  if (requestedTokenType && requestedTokenType !== `${TYPE}access_token`) {
    throw OAuthException.badRequest('only access tokens are issued here');
  }
  const keys = createLocalJWKSet(JSON.parse(TRUSTED_JWKS));
  const rules = { issuer: TRUSTED_ISSUER, audience: issuer, algorithms: ['ES256'], requiredClaims: ['sub', 'exp', 'jti'] };
  // RFC 8693 section 2.2.2: a bad subject token is an invalid_request.
  const { payload } = await jwtVerify(subjectToken, keys, rules).catch((problem) => {
    throw OAuthException.badRequest(`subject token refused: ${problem.message.replaceAll('"', '')}`);
  });
  if (resource !== RESOURCE) throw new OAuthException('no such resource here', 'invalid_target', undefined, undefined, 400);
  return { id: payload.sub };
}

async function token(authorization, issuer, request) {
  const chunks = await request.toArray();
  const asked = new Request(`${issuer}/token`, { method: 'POST', headers: request.headers, body: Buffer.concat(chunks) });
  const answer = await authorization.respondToAccessTokenRequest(await requestFromVanilla(asked))
    .then(responseToVanilla, (problem) => responseToVanilla(handleVanillaError(problem)));
  const body = await answer.json();
  say({ token_request: body.error ?? 'granted', why: body.error_description });
  // RFC 8693 section 2.2.1 requires the field; the library leaves it to its operator too.
  if (!body.error && AS_SHIPPED !== '1') body.issued_token_type = `${TYPE}access_token`;
  return { status: answer.status, headers: { ...JSON_TYPE, 'cache-control': 'no-store' }, body };
}
