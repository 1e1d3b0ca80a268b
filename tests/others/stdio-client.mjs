// The official TypeScript client of the wire until 2025-11-25 (@modelcontextprotocol/sdk), with a command as its server, one step for
// each line on stdin. Arguments: the command. Environment of the command: this one's.
// Lines: {"connect":[capability…]}, {"call":{name,arguments}}, {"progress":…}, {"list":"tools"}, {"read":URI}, {"prompt":name},
// {"subscribe":URI}, {"unsubscribe":URI}, {"level":level}, {"ping":true}, {"rooted":true} (its roots have changed). Each is
// answered with one line: {"done"} and what came of it, or {"failed":{message,code,data}}. {"told"} is a notification, {"asked"} a
// request of the server. Ends when stdin does, or after 600 s.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = require('@modelcontextprotocol/sdk/client/stdio.js');
const types = require('@modelcontextprotocol/sdk/types.js');
const [command, ...args] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
let client;

setTimeout(() => process.exit(0), 600_000);

const CAPABILITIES = { roots: { listChanged: true }, sampling: {}, elicitation: { form: {}, url: {} } };
const ANSWERS = {
  roots: [types.ListRootsRequestSchema, { roots: [{ uri: 'file:///work', name: 'work' }] }],
  sampling: [types.CreateMessageRequestSchema, { role: 'assistant', model: 'm', content: { type: 'text', text: 'because' } }],
  elicitation: [types.ElicitRequestSchema, { action: 'accept', content: { sure: true } }],
};

const STEPS = {
  async connect(names) {
    const capabilities = Object.fromEntries(names.map((name) => [name, CAPABILITIES[name]]));
    client = new Client({ name: 'others-stdio', version: '1' }, { capabilities });
    client.onerror = () => {};
    for (const name of names) {
      const [schema, answer] = ANSWERS[name];
      client.setRequestHandler(schema, ({ method, params }) => {
        say({ asked: { method, params } });
        return answer;
      });
    }
    client.fallbackNotificationHandler = async ({ method, params }) => say({ told: { method, params } });
    const env = Object.fromEntries(Object.entries(process.env));
    await client.connect(new StdioClientTransport({ command, args, env, stderr: 'inherit' }));
    return { server: client.getServerVersion(), capabilities: client.getServerCapabilities() };
  },
  call: async (what) => (await client.callTool(what)).content[0].text,
  async progress(what) {
    let heard = 0;
    await client.callTool(what, undefined, { onprogress: () => { heard += 1; } });
    return heard;
  },
  list: async () => (await client.listTools()).tools.map(({ name }) => name),
  read: async (uri) => (await client.readResource({ uri })).contents[0].text,
  prompt: async (name) => (await client.getPrompt({ name })).messages[0].content.text,
  subscribe: (uri) => client.subscribeResource({ uri }),
  unsubscribe: (uri) => client.unsubscribeResource({ uri }),
  level: (level) => client.setLoggingLevel(level),
  ping: () => client.ping(),
  rooted: () => client.sendRootsListChanged(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [[name, what]] = Object.entries(JSON.parse(line));
  try {
    say({ done: (await STEPS[name](what)) ?? true });
  } catch ({ message, code, data }) {
    say({ failed: { message, code, data } });
  }
}
await client?.close();
process.exit(0);
