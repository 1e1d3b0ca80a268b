// An MCP server of the official TypeScript SDK that speaks 2026-07-28 alone, without a token check.
// Prints {"url"} when ready, {"seen"} for each request: {rpc, params, capabilities, fields, session}, and {"fault"} for each that it
// refuses. Lines on stdin: {"changed":"tools"}, {"updated":URI}, {"end":true} (ends every subscription); each is answered with {"done"}.
// Ends when stdin does, or after 600 s.
import { once } from 'node:events';
import http from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';

// The packages are installed under target/, where Node does not look by default.
const require = createRequire(new URL('../../target/others/package.json', import.meta.url));
const { McpServer, createMcpHandler, fromJsonSchema, inputRequired, inputResponse } = require('@modelcontextprotocol/server');
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const text = (value) => ({ content: [{ type: 'text', text: typeof value === 'string' ? value : JSON.stringify(value) }] });
const object = (properties) => fromJsonSchema({ type: 'object', properties });

setTimeout(600_000, undefined, { ref: false }).then(() => process.exit(0));

function factory() {
  const capabilities = { logging: {}, tools: { listChanged: true }, resources: { subscribe: true, listChanged: true } };
  const server = new McpServer({ name: 'modern', version: '1' }, { capabilities });
  // Everything that a client can be asked, in one round.
  server.registerTool('ask', {}, async (ctx) => {
    const answers = ctx.mcpReq.inputResponses;
    if (answers) return text({ answers, state: ctx.mcpReq.requestState() });
    const requestedSchema = { type: 'object', properties: { sure: { type: 'boolean' } }, required: ['sure'] };
    const messages = [{ role: 'user', content: { type: 'text', text: 'why?' } }];
    return inputRequired({
      inputRequests: {
        form: inputRequired.elicit({ message: 'really?', requestedSchema }),
        why: inputRequired.createMessage({ messages, maxTokens: 10 }),
        where: inputRequired.listRoots(),
      },
      requestState: 'ä/"\u0001',
    });
  });
  // One question after another.
  server.registerTool('twice', {}, async (ctx) => {
    const state = ctx.mcpReq.requestState();
    const answer = inputResponse(ctx.mcpReq.inputResponses, 'where');
    if (state === 'second') return text(answer.kind);
    return inputRequired({ inputRequests: { where: inputRequired.listRoots() }, requestState: state ? 'second' : 'first' });
  });
  server.registerTool('page', {}, async () => inputRequired({
    inputRequests: { page: inputRequired.elicitUrl({ message: 'open it', url: 'https://example.com/' }) },
  }));
  server.registerTool('log', {}, async (ctx) => {
    await ctx.mcpReq.log('debug', 'too quiet');
    await ctx.mcpReq.log('warning', 'loud');
    return text('logged');
  });
  const region = { type: 'string', 'x-mcp-header': 'Region' };
  server.registerTool('fields', { inputSchema: object({ region, to: { type: 'object', properties: { dry: { type: 'boolean', 'x-mcp-header': 'Dry' } } } }) },
    async (given) => text(given));
  server.registerTool('progress', {}, async (ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [1, 2]) {
      await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress } });
      // The older client loses progress that it reads together with the result.
      await setTimeout(100);
    }
    return text('moved');
  });
  server.registerResource('memo', 'memo:///1', {}, async (uri) => ({ contents: [{ uri: uri.href, text: 'remember' }] }));
  server.registerPrompt('greet', {}, async () => ({ messages: [{ role: 'user', content: { type: 'text', text: 'hello' } }] }));
  return server;
}

let handler;
const begin = () => {
  handler = createMcpHandler(factory, { legacy: 'reject', onerror: (problem) => say({ fault: problem.message }) });
};
begin();

const server = http.createServer((request, response) => {
  serve(request, response).catch((problem) => response.destroy(problem));
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
say({ url: `http://127.0.0.1:${server.address().port}` });

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { changed, updated, end } = JSON.parse(line);
  if (changed) handler.notify[`${changed}Changed`]();
  if (updated) handler.notify.resourceUpdated(updated);
  if (end) {
    const ended = handler;
    begin();
    await ended.close();
  }
  say({ done: true });
}).on('close', () => process.exit(0));

async function serve(request, response) {
  const body = await buffer(request);
  const message = body.length ? JSON.parse(body) : {};
  const { _meta: meta, ...params } = message.params ?? {};
  const fields = Object.fromEntries(Object.entries(request.headers).filter(([name]) => name.startsWith('mcp-')));
  say({ seen: { verb: request.method, rpc: message.method, id: message.id, params, fields, capabilities: meta?.['io.modelcontextprotocol/clientCapabilities'] } });
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const asked = new Request(`http://localhost${request.url}`, {
    method: request.method, headers: request.headers, signal: gone.signal, ...(body.length && { body }),
  });
  const answer = await handler.fetch(asked);
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.flushHeaders();
  if (!answer.body) return response.end();
  Readable.fromWeb(answer.body).on('error', () => response.destroy()).pipe(response);
}
