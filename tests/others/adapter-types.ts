// Compiled and never run: what examples/adapters/typescript/safeconduct.ts exports is what the transports of both SDKs take.
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { safeconductFetch, safeconductProvider } from '../../examples/adapters/typescript/safeconduct.ts';

const url = new URL('https://mcp.example.com/mcp');
new StreamableHTTPClientTransport(url, { authProvider: safeconductProvider('deploy') });
new StreamableHTTPClientTransport(url, { fetch: safeconductFetch('deploy', { socket: '/run/safeconduct/safeconduct.sock' }) });
new TransportV1(url, { fetch: safeconductFetch('deploy', { http: 'http://127.0.0.1:8700', secretFile: 'http.secret' }) });
