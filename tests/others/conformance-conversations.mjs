// What the official client says in a scenario of the conformance suite. Most want one tool called; the ones without
// authorization test the client itself, and some of these want a word of their own.
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');

const CONVERSATIONS = {
  tools_call: { talk: (client) => call(client, 'add_numbers', { a: 5, b: 3 }) },
  'http-custom-headers': { talk: (client) => inTurn(client, context.toolCalls) },
  'json-schema-2020-12-preservation': { talk: echoSchema },
  'elicitation-sep1034-client-defaults': { ...asked({ applyDefaults: true }, {}), talk: firstTool },
  'sep-2322-client-request-state': { ...asked({}, { confirmed: true }), talk: everyTool },
};

export function conversation(scenario) {
  return CONVERSATIONS[scenario] ?? { talk: firstTool };
}

// A client whose user agrees to every request of a server.
function asked(form, content) {
  return {
    options: { capabilities: { elicitation: { form } } },
    prepare: (client) => client.setRequestHandler('elicitation/create', async () => ({ action: 'accept', content })),
  };
}

async function firstTool(client) {
  const { tools } = await client.listTools();
  return call(client, tools[0].name, {});
}

// The client refuses one of the results, because it has no type. The suite requires that it does not ask again.
async function everyTool(client) {
  const { tools } = await client.listTools();
  return inTurn(client, tools.map(({ name }) => ({ name, arguments: {} }))).catch(({ code }) => code);
}

async function echoSchema(client) {
  const { tools } = await client.listTools();
  const schema = tools.find(({ name }) => name !== 'json_schema_echo').inputSchema;
  return call(client, 'json_schema_echo', { schema });
}

async function inTurn(client, calls) {
  // List the tools first: their schemas say which arguments become headers.
  await client.listTools();
  let said;
  for (const { name, arguments: args } of calls) said = await call(client, name, args);
  return said;
}

async function call(client, name, args) {
  const { content } = await client.callTool({ name, arguments: args });
  return content[0]?.text;
}
