// Gives each request of an MCP client a fresh access token from the safeconduct daemon.
//
// Copy this file into your program. It needs Node.js 18 or later and no package. Node 22.18 and later run it as it is; for older ones
// compile it with your program.
//
//   // @modelcontextprotocol/client 2.x and @modelcontextprotocol/sdk 1.x
//   new StreamableHTTPClientTransport(new URL(url), { fetch: safeconductFetch('deploy') })
//   // @modelcontextprotocol/client 2.x alone, for servers that take a bearer token
//   new StreamableHTTPClientTransport(new URL(url), { authProvider: safeconductProvider('deploy') })
//
// The first argument is the server's name or URL in the daemon's configuration. The daemon is found as `safeconduct token` finds it;
// `socket` names another path, and `http` with `secretFile` its loopback listener. The daemon holds the tokens and renews them, so
// each request asks it again. If the server answers 401, the token is reported to the daemon once and the request is sent once more.
// A failure that can pass (the daemon is restarted, the authorization server is down) is waited for, up to `patience` milliseconds.
//
// `safeconductFetch` also works where the server binds tokens to a key (DPoP) or wants signed requests (AWS): it reads the body into
// memory to have it signed. The daemon gives it headers only for the server's own URL and what lies under it; for another URL it
// fails. It follows no redirect. `safeconductProvider` is not told which token the server refused, and reports the last one.
//
// This file reads the environment, connects to the daemon and reads the secret's file. It writes nothing and puts no token into an
// error or a log.
import { createHash } from 'node:crypto';
import { lstat, readFile, stat } from 'node:fs/promises';
import { request as exchange } from 'node:http';
import { dirname, isAbsolute, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where the daemon is. Without any of these: where `safeconduct token` looks for it. */
export interface Daemon {
  /** The path of its socket. */
  socket?: string;
  /** Its loopback listener, as `http://127.0.0.1:PORT`, */
  http?: string;
  /** and the file with the listener's secret. */
  secretFile?: string;
  /**
   * How long a request waits for the end of a failure that can pass, in milliseconds. Default: 15 000. After a long outage the
   * daemon asks the authorization server less often, so its end may be met later.
   */
  patience?: number;
}

/** What a transport of `@modelcontextprotocol/client` takes as `authProvider`. */
export interface Provider {
  token(): Promise<string>;
  onUnauthorized(): Promise<void>;
}

/** What a transport of both SDKs takes as `fetch`. */
export type Fetch = (url: string | URL, init?: RequestInit) => Promise<Response>;

/**
 * The daemon gave no token. The message says why, in the daemon's words; `code` and `kind` are its `error` and `class`. `kind` is
 * "temporary" too if no daemon answers.
 */
export class SafeconductError extends Error {
  readonly code: string | undefined;
  readonly kind: string | undefined;

  constructor(text: string, code?: string, kind?: string) {
    super(`safeconduct: ${text}`);
    this.name = 'SafeconductError';
    this.code = code;
    this.kind = kind;
  }
}

/** The longest wait for the daemon, which may have to ask the authorization server first, in milliseconds. */
const LIMIT = 60_000;
/** Between two questions while a failure may pass, in milliseconds. */
const PAUSE = 500;
/** Larger than any answer of the daemon. */
const ANSWER_CAP = 256 * 1024;

export function safeconductProvider(server: string, daemon: Daemon = {}): Provider {
  const ask = asker(daemon);
  let given: string | undefined;
  return {
    async token() {
      const { access_token: token } = await ask('GET', `/v1/token?${new URLSearchParams({ server })}`);
      given = hash(token);
      return token;
    },
    async onUnauthorized() {
      if (given !== undefined) await ask('POST', '/v1/reject', { server, access_token_sha256: given });
    },
  };
}

/** `inner` sends the requests. */
export function safeconductFetch(server: string, daemon: Daemon = {}, inner: Fetch = fetch): Fetch {
  const ask = asker(daemon);

  async function fields(request: Request, body: Uint8Array, more = {}): Promise<Record<string, string>> {
    const { method, url } = request;
    const asked = { server, method, url, body_sha256: hash(body), ...more };
    const { headers } = await ask('GET', `/v1/headers?${new URLSearchParams(asked)}`, undefined, request.signal);
    return Object.fromEntries(Object.entries<string[]>(headers).map(([name, values]) => [name, values.join(', ')]));
  }

  /** What to send after a 401, or nothing if the daemon has nothing else to offer. */
  async function others(request: Request, body: Uint8Array, response: Response, sent: Record<string, string>) {
    const nonce = response.headers.get('dpop-nonce');
    if (nonce && /error="?use_dpop_nonce\b/.test(response.headers.get('www-authenticate') ?? '')) {
      // Not the token is refused but its proof, which needs this nonce (RFC 9449 section 9).
      return fields(request, body, { dpop_nonce: nonce });
    }
    const [scheme = '', token = ''] = (sent.Authorization ?? '').split(' ');
    if (!['bearer', 'dpop'].includes(scheme.toLowerCase())) return undefined;
    await ask('POST', '/v1/reject', { server, access_token_sha256: hash(token) }, request.signal);
    const found = await fields(request, body);
    // The daemon keeps a token that it has only just got: then another reason than its age made the server refuse.
    return found.Authorization === sent.Authorization ? undefined : found;
  }

  return async (url, init) => {
    const request = new Request(url, init);
    const body = request.body ? new Uint8Array(await request.arrayBuffer()) : undefined;
    const send = (added: Record<string, string>) => {
      const headers = new Headers(request.headers);
      for (const [name, value] of Object.entries(added)) headers.set(name, value);
      return inner(url, { ...init, headers, redirect: 'manual', ...(body && { body }) });
    };
    const signed = body ?? new Uint8Array();
    const sent = await fields(request, signed);
    const response = await send(sent);
    if (response.status !== 401) return response;
    const found = await others(request, signed, response, sent);
    if (!found) return response;
    await response.body?.cancel();
    return send(found);
  };
}

function hash(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

type Ask = (method: string, path: string, body?: object, signal?: AbortSignal) => Promise<any>;

function asker({ patience = 15_000, ...daemon }: Daemon): Ask {
  const once = impatient(daemon);
  return async (...asked) => {
    const [, , , signal] = asked;
    const end = performance.now() + patience;
    for (;;) {
      try {
        return await once(...asked);
      } catch (error) {
        if (!(error instanceof SafeconductError) || error.kind !== 'temporary' || performance.now() > end) throw error;
      }
      await sleep(PAUSE, undefined, signal && { signal });
    }
  };
}

function impatient({ socket, http, secretFile }: Daemon): Ask {
  if ((http === undefined) !== (secretFile === undefined) || (http !== undefined && socket !== undefined)) {
    throw new TypeError('give `socket`, or `http` together with `secretFile`, or nothing');
  }
  if (http === undefined || secretFile === undefined) {
    return async (...asked) => read(await onSocket(socket, (socketPath) => answer({ socketPath }, {}, asked)));
  }
  const { protocol, hostname, port } = new URL(http);
  if (protocol !== 'http:' || !['127.0.0.1', '[::1]', 'localhost'].includes(hostname) || !port) {
    throw new TypeError('`http` must be http://127.0.0.1:PORT');
  }
  return async (...asked) => {
    // The secret is new at each start of the daemon.
    const secret = (await readFile(secretFile, 'ascii').catch(inOurWords)).trim();
    const place = { hostname: hostname.replace(/^\[|\]$/g, ''), port };
    return read(await answer(place, { Authorization: `Bearer ${secret}` }, asked).catch(inOurWords));
  };
}

interface Answer {
  status: number;
  text: string;
}

/** One exchange with the daemon, on a connection of its own: to find out whether an old one lives would cost more. */
function answer(place: object, fields: Record<string, string>, [method, path, body, signal]: Parameters<Ask>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = body && JSON.stringify(body);
    const ofBody = sent && { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(sent) };
    const headers = { Host: 'localhost', ...fields, ...ofBody };
    // `agent: false`: a connection of its own that goes to no proxy.
    const request = exchange({ ...place, agent: false, method, path, headers, ...(signal && { signal }) });
    const tooLong = () => request.destroy(new SafeconductError('the daemon does not answer', undefined, 'temporary'));
    const limit = setTimeout(tooLong, LIMIT);
    request.on('close', () => clearTimeout(limit));
    request.on('error', reject);
    request.on('response', (response) => {
      const parts: Buffer[] = [];
      let size = 0;
      response.on('data', (part: Buffer) => {
        parts.push(part);
        size += part.length;
        if (size > ANSWER_CAP) request.destroy(new SafeconductError('whoever answers is no daemon of ours'));
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
    });
    request.end(sent);
  });
}

function read({ status, text }: Answer): any {
  if (status === 204) return {};
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    // This error quotes the text, and with it a token.
    throw new SafeconductError('its answer is not JSON');
  }
  if (status === 200) return document;
  const words = [document.error_description ?? `status ${status}`, document.hint].filter(Boolean);
  throw new SafeconductError(words.join('; '), document.error, document.class);
}

/** An error of the system, without the bytes that an error of Node's HTTP parser carries along. */
function inOurWords(error: unknown): never {
  if (error instanceof SafeconductError || (error as Error).name === 'AbortError') throw error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code?.startsWith('HPE_')) throw new SafeconductError('whoever answers is no daemon of ours');
  throw new SafeconductError(message, undefined, code === 'EACCES' || code === 'EPERM' ? undefined : 'temporary');
}

/** Asks at the first place where a daemon listens that may be ours. */
async function onSocket(path: string | undefined, ask: (path: string) => Promise<Answer>): Promise<Answer> {
  const named = path || process.env.SAFECONDUCT_SOCKET;
  const places = named ? [named] : usualPlaces();
  let refused: unknown;
  for (const place of places) {
    try {
      if (!named && !(await isOurDirectory(dirname(place)))) continue;
      if (named || (await isOurs(place))) return await ask(place);
      refused ??= new SafeconductError(`${place} belongs to a user that is neither ours nor root`);
    } catch (error) {
      const { code, syscall } = error as NodeJS.ErrnoException;
      // A socket that we may not use must not hide our own daemon at a later place.
      if (code === 'EACCES' || code === 'EPERM') refused ??= error;
      // Nobody listens there. A broken exchange is another matter.
      else if (!isAbsent(code, syscall, !named)) inOurWords(error);
    }
  }
  if (refused) inOurWords(refused);
  throw new SafeconductError(`no daemon is running; looked at ${places.join(', ')}`, undefined, 'temporary');
}

function isAbsent(code: string | undefined, syscall: string | undefined, passOver: boolean): boolean {
  if (passOver && (code === 'EINVAL' || code === 'ENAMETOOLONG')) return true; // The path is too long for a socket.
  return syscall !== 'read' && (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ECONNREFUSED');
}

/** Where a daemon may listen that nobody has named, in the order of `safeconduct token`. */
function usualPlaces(): string[] {
  const uid = process.geteuid?.();
  const job = process.env.RUNNER_TEMP || process.env.AGENT_TEMPDIRECTORY || '';
  const ofTheJob = isAbsolute(job) ? [join(job, 'safeconduct')] : [];
  const usual = [`/run/user/${uid}/safeconduct`, '/run/safeconduct', '/run/safeconduct/agent', `/tmp/safeconduct-${uid}`];
  return [...ofTheJob, ...usual].map((directory) => `${directory}/safeconduct.sock`);
}

/** May a daemon of ours be here? Whoever else made the directory could answer, or let us wait. A link is its owner's to change. */
async function isOurDirectory(directory: string): Promise<boolean> {
  const found = await Promise.all([lstat(directory), stat(directory)]);
  return found.every(({ uid }) => isTrusted(uid));
}

/** Node does not tell who listens, but whose the socket is: nobody else can put one of ours into a directory of ours. */
async function isOurs(path: string): Promise<boolean> {
  return isTrusted((await stat(path)).uid);
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}
