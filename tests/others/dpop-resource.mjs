// oauth4webapi (npm) in the place of an MCP server that takes key-bound tokens (RFC 9449 section 7): it looks at one request
// that was never sent. Reads {"issuer","audience","method","url","headers"} from stdin; prints {"claims"} or {"refused"}.
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const oauth = await import(require.resolve('oauth4webapi'));

const { issuer, audience, method, url, headers } = JSON.parse(await text(process.stdin));
const loopback = { [oauth.allowInsecureRequests]: true };
const discovered = await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...loopback });
const server = await oauth.processDiscoveryResponse(new URL(issuer), discovered);
const request = new Request(url, { method, headers });
const verdict = await oauth.validateJwtAccessToken(server, request, audience, { requireDPoP: true, ...loopback })
  .then((claims) => ({ claims }), (problem) => ({ refused: problem.cause?.message ?? problem.message }));
process.stdout.write(`${JSON.stringify(verdict)}\n`);
