// An official TypeScript client of an MCP server behind the injecting proxy or the bridge, one step for each line on stdin.
// Arguments: the package (client: @modelcontextprotocol/client; sdk: @modelcontextprotocol/sdk), and the URL or the bridge's command.
// Environment: SECRET, which is the value of the one field that it is configured with; MODE of the version negotiation (auto,
// legacy).
// Lines: {"connect"}, {"list"}, {"call":{name,arguments}}, {"progress":{name,arguments}}. Each is answered with one line: {"done"} and
// what came of it, or {"failed":{message,code,data}}. Closes the session and ends when stdin does, or after 600 s.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const [which, way, ...args] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

setTimeout(() => process.exit(0), 600_000);

const PARTS = {
  client: ['client', 'client/stdio'],
  sdk: ['sdk/client/index.js', 'sdk/client/streamableHttp.js', 'sdk/client/stdio.js'],
};
const parts = PARTS[which].map((part) => require(`@modelcontextprotocol/${part}`));
const { Client, StdioClientTransport, StreamableHTTPClientTransport } = Object.assign({}, ...parts);
let client;
const changed = [];

const STEPS = {
  async connect() {
    const mode = { versionNegotiation: { mode: process.env.MODE ?? 'auto' } };
    client = new Client({ name: `others-${which}`, version: '1' }, which === 'client' ? mode : {});
    client.onerror = () => {};
    await client.connect(args.length ? new StdioClientTransport({ command: way, args }) : overHttp());
    return client.getServerVersion()?.name ?? true;
  },
  async list() {
    return (await client.listTools()).tools.map(({ name }) => name);
  },
  async call(what) {
    return (await called(what)).content[0]?.text;
  },
  async progress(what) {
    let heard = 0;
    await called(what, { onprogress: () => { heard += 1; } });
    return heard;
  },
};

function overHttp() {
  const headers = { Authorization: `Bearer ${process.env.SECRET}` };
  return new StreamableHTTPClientTransport(new URL(way), { requestInit: { headers } });
}

function called(what, options) {
  return which === 'client' ? client.callTool(what, options) : client.callTool(what, undefined, options);
}

for await (const line of createInterface({ input: process.stdin })) {
  const [[step, what]] = Object.entries(JSON.parse(line));
  await STEPS[step](what).then((done) => say({ done }), ({ message, code, data }) => say({ failed: { message, code, data } }));
}
await client?.close().catch(() => {});
process.exit(0);
