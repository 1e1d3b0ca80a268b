// An official TypeScript client of an MCP server that wants tokens, which examples/adapters/typescript/safeconduct.ts gets from the
// daemon; one step for each line on stdin.
// Arguments: the package (client: @modelcontextprotocol/client; sdk: @modelcontextprotocol/sdk), the part of the adapter (provider,
// fetch), the URL. Environment: HTTP and SECRET_FILE of the daemon's loopback listener, or SAFECONDUCT_SOCKET.
// Lines: {"connect"}, {"call":{name,arguments}}, {"shown"}. Each is answered with one line: {"done"} and what came of it ("shown":
// all that a program could print of the adapter), or {"failed"} with the error as a program would print it. Ends when stdin does, or
// after 600 s.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { inspect } from 'node:util';

import { safeconductFetch, safeconductProvider } from '../../examples/adapters/typescript/safeconduct.ts';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const [which, part, url] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

setTimeout(() => process.exit(0), 600_000);

const { Client, StreamableHTTPClientTransport } = which === 'client'
  ? require('@modelcontextprotocol/client')
  : { ...require('@modelcontextprotocol/sdk/client/index.js'), ...require('@modelcontextprotocol/sdk/client/streamableHttp.js') };
const { HTTP: http, SECRET_FILE: secretFile } = process.env;
const daemon = http ? { http, secretFile } : undefined;
const options = part === 'fetch'
  ? { fetch: safeconductFetch('target', daemon) }
  : { authProvider: safeconductProvider('target', daemon) };
let client;

const STEPS = {
  async connect() {
    client = new Client({ name: `others-${which}`, version: '1' });
    client.onerror = () => {};
    await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
    return true;
  },
  async call(what) {
    return (await client.callTool(what)).content[0]?.text;
  },
  async shown() {
    return printed(options);
  },
};

function printed(value) {
  return inspect(value, { depth: null, showHidden: true });
}

for await (const line of createInterface({ input: process.stdin })) {
  const [[step, what]] = Object.entries(JSON.parse(line));
  await STEPS[step](what).then((done) => say({ done }), (error) => say({ failed: printed(error) }));
}
await client?.close().catch(() => {});
process.exit(0);
