// A model of loopback that knows one thing: to call the tool `echo` so and so often, and then to say that it is done. It speaks the
// four protocols of model providers. The token is replaced before each call but the first.
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import { listening } from './world.mjs';

export const CALLS = 6;

// `rotated` waits for another token. `heard` has, at the end, what the client told the model of each call.
export async function model(rotated) {
  const self = { heard: [], asked: 0 };
  const server = createServer(async (asked, answer) => {
    const body = asked.method === 'POST' ? await json(asked).catch(() => ({})) : {};
    const dialect = DIALECTS.find(({ path }) => path.test(asked.url));
    if (asked.method !== 'POST' || !dialect) return answer.writeHead(200, { 'content-type': 'application/json' }).end('{"data":[],"models":[]}');
    const tool = dialect.tool(body);
    const results = dialect.results(body).map((result) => JSON.stringify(result));
    if (tool) self.asked += 1;
    if (tool && results.length >= self.heard.length) self.heard = results;
    const call = tool && results.length < CALLS ? { tool, number: results.length + 1 } : undefined;
    if (call && call.number > 1) await rotated();
    return dialect.say(answer, call, body, asked.url);
  });
  self.url = await listening(server);
  return self;
}

const args = ({ number }) => ({ message: `call ${number}` });
const events = (answer, all) => {
  answer.writeHead(200, { 'content-type': 'text/event-stream' });
  answer.end(all.map(([name, data]) => `${name ? `event: ${name}\n` : ''}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`).join(''));
};
const document = (answer, data) => answer.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(data));
const isEcho = (name) => /(^|_)echo$/.test(name ?? '');

const DIALECTS = [
  {
    path: /^\/v1\/messages(\?|$)/,
    tool: ({ tools = [] }) => tools.find(({ name }) => isEcho(name)),
    results: ({ messages = [] }) => messages.flatMap(({ content }) => (Array.isArray(content) ? content : []))
      .filter(({ type }) => type === 'tool_result').map(({ content }) => content),
    say(answer, call, body) {
      const block = call ? { type: 'tool_use', id: `toolu_${call.number}`, name: call.tool.name, input: {} } : { type: 'text', text: '' };
      const usage = { input_tokens: 1, output_tokens: 1 };
      const message = { id: 'msg_1', type: 'message', role: 'assistant', model: body.model, stop_sequence: null, usage };
      const reason = call ? 'tool_use' : 'end_turn';
      if (!body.stream) {
        const content = call ? { ...block, input: args(call) } : { ...block, text: 'done' };
        return document(answer, { ...message, content: [content], stop_reason: reason });
      }
      const delta = call ? { type: 'input_json_delta', partial_json: JSON.stringify(args(call)) } : { type: 'text_delta', text: 'done' };
      return events(answer, [
        { type: 'message_start', message: { ...message, content: [], stop_reason: null } },
        { type: 'content_block_start', index: 0, content_block: block },
        { type: 'content_block_delta', index: 0, delta },
        { type: 'content_block_stop', index: 0 },
        { type: 'message_delta', delta: { stop_reason: reason, stop_sequence: null }, usage },
        { type: 'message_stop' },
      ].map((event) => [event.type, event]));
    },
  },
  {
    path: /\/responses$/,
    tool: ({ tools }) => (tools ? { namespace: 'mcp__srv', name: 'echo' } : undefined),
    results: ({ input = [] }) => input.filter(({ type }) => type === 'function_call_output').map(({ output }) => output),
    say(answer, call) {
      const item = call
        ? { type: 'function_call', id: `fc_${call.number}`, call_id: `call_${call.number}`, ...call.tool, arguments: JSON.stringify(args(call)) }
        : { type: 'message', id: 'msg_1', role: 'assistant', content: [{ type: 'output_text', text: 'done', annotations: [] }] };
      const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2, input_tokens_details: null, output_tokens_details: null };
      const events_ = [
        { type: 'response.created', response: { id: 'resp_1' } },
        { type: 'response.output_item.done', output_index: 0, item },
        { type: 'response.completed', response: { id: 'resp_1', usage } },
      ];
      return events(answer, events_.map((event) => [event.type, event]));
    },
  },
  {
    path: /\/chat\/completions$/,
    tool: ({ tools = [] }) => tools.map((tool) => tool.function).find(({ name }) => isEcho(name)),
    results: ({ messages = [] }) => messages.filter(({ role }) => role === 'tool').map(({ content }) => content),
    say(answer, call, body) {
      const calls = call && [{
        index: 0, id: `call_${call.number}`, type: 'function', function: { name: call.tool.name, arguments: JSON.stringify(args(call)) },
      }];
      const message = call ? { role: 'assistant', tool_calls: calls } : { role: 'assistant', content: 'done' };
      const chunk = (choice) => ({ id: 'c1', object: 'chat.completion.chunk', created: 1, model: body.model, choices: [{ index: 0, ...choice }] });
      const reason = call ? 'tool_calls' : 'stop';
      if (!body.stream) return document(answer, { ...chunk({ message, finish_reason: reason }), object: 'chat.completion' });
      const all = [chunk({ delta: message, finish_reason: null }), chunk({ delta: {}, finish_reason: reason }), '[DONE]'];
      return events(answer, all.map((data) => [undefined, data]));
    },
  },
  {
    path: /:(stream)?[gG]enerateContent/,
    tool: ({ tools = [] }) => tools.flatMap(({ functionDeclarations = [] }) => functionDeclarations).find(({ name }) => isEcho(name)),
    results: ({ contents = [] }) => contents.flatMap(({ parts = [] }) => parts).filter(({ functionResponse }) => functionResponse)
      .map(({ functionResponse }) => functionResponse.response),
    say(answer, call, body, url) {
      const part = call ? { functionCall: { name: call.tool.name, args: args(call) } } : { text: 'done' };
      const usageMetadata = { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 };
      const data = { candidates: [{ content: { role: 'model', parts: [part] }, finishReason: 'STOP', index: 0 }], usageMetadata };
      return url.includes('stream') ? events(answer, [[undefined, data]]) : document(answer, data);
    },
  },
];
