// Two grants that oidc-provider leaves to its operator, built from its own parts.
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { errors } = require('oidc-provider');
const { createLocalJWKSet, importJWK, jwtVerify, SignJWT } = require('jose');

const { TRUSTED_ISSUER, TRUSTED_JWKS, RESOURCE, ID_JAG_AUDIENCE, ID_JAG_CLIENT } = process.env;
const ID_JAG = 'urn:ietf:params:oauth:token-type:id-jag';

// RFC 7523 section 2.1: the workload's token for an access token.
export const jwtBearer = {
  type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
  parameters: ['assertion', 'resource', 'scope'],
  handler(made, issuer, resourceServer) {
    const once = firstUse();
    return async (ctx) => {
      const { assertion, resource, scope } = ctx.oidc.params;
      const claims = await verified(assertion, issuer, errors.InvalidGrant);
      const spend = once(claims.jti);
      const target = new made.ResourceServer(resource, resourceServer(resource));
      const token = new made.ClientCredentials({ client: ctx.oidc.client, scope });
      token.resourceServer = target;
      ctx.oidc.entity('ClientCredentials', token);
      ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration };
      spend();
    };
  },
};

// RFC 8693 for an ID-JAG: the workload's token for an assertion that another authorization server accepts.
export const idJag = {
  type: 'urn:ietf:params:oauth:grant-type:token-exchange',
  parameters: ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'resource', 'scope'],
  handler(_made, issuer, signingKey) {
    return async (ctx) => {
      const { subject_token: subject, requested_token_type: wanted, audience, resource, scope } = ctx.oidc.params;
      if (wanted !== ID_JAG) throw new errors.InvalidRequest('only ID-JAGs are issued here');
      const claims = await verified(subject, issuer, errors.InvalidGrant);
      if (audience !== ID_JAG_AUDIENCE || resource !== RESOURCE) throw new errors.InvalidTarget();
      const jag = new SignJWT({ client_id: ID_JAG_CLIENT, resource, ...(scope && { scope }) })
        .setProtectedHeader({ alg: 'ES256', kid: signingKey.kid, typ: 'oauth-id-jag+jwt' })
        .setIssuer(issuer).setSubject(claims.sub).setAudience(audience)
        .setJti(randomUUID()).setIssuedAt().setExpirationTime('2m');
      const signed = await jag.sign(await importJWK(signingKey, 'ES256'));
      ctx.body = { access_token: signed, issued_token_type: ID_JAG, token_type: 'N_A', expires_in: 120 };
    };
  },
};

function firstUse() {
  const seen = new Set();
  return (jti) => {
    if (seen.has(jti)) throw new errors.InvalidGrant('assertion was used before');
    // Only after success: an assertion without success may be presented again.
    return () => seen.add(jti);
  };
}

async function verified(assertion, issuer, Refusal) {
  const keys = createLocalJWKSet(JSON.parse(TRUSTED_JWKS));
  const rules = { issuer: TRUSTED_ISSUER, audience: issuer, algorithms: ['ES256'], requiredClaims: ['sub', 'exp', 'jti'] };
  try {
    const { payload } = await jwtVerify(assertion, keys, rules);
    if (typeof payload.aud !== 'string') throw new Error('aud is not a single value');
    return payload;
  } catch (problem) {
    // grant.error would show only the class name, but the caller needs the message.
    const refusal = new Refusal(problem.message);
    refusal.error_description = `assertion refused: ${problem.message.replaceAll('"', '')}`;
    throw refusal;
  }
}
