// Made by packaging/action/build.mjs from packaging/action/src. Do not edit.
import { spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { accessSync, appendFileSync, constants, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { createInterface } from "node:readline";

// ---- places.mjs
// Where the daemons of a job are: each step that starts one has a numbered directory below that of the job.

/** The number of the newest step that has started a daemon, else 0. */
function newestStep() {
  try {
    return Math.max(0, ...readdirSync(ofTheJob()).filter((name) => /^[0-9]+$/.test(name)).map(Number));
  } catch {
    // There is no directory before the first one.
    return 0;
  }
}

function socketOfStep(number) {
  return join(ofTheJob(), String(number), "safeconduct.sock");
}

function ofTheJob() {
  return join(process.env.RUNNER_TEMP ?? "", "safeconduct");
}

// ---- runner.mjs
// What the runner and an action say to each other: inputs, state, paths, and commands in the log. The page is "Workflow commands for
// GitHub Actions". Forgejo and Gitea run actions in the same way.

/** Something that a person has to change: what is wrong, and what to do. */
class Failure extends Error {
  constructor(what, cure) {
    super(what);
    this.cure = cure;
  }
}

/** An input of the step, without the blanks around it. */
function input(name) {
  return (process.env[`INPUT_${name.toUpperCase()}`] ?? "").trim();
}

/** An input that has one value in a line. */
function lines(name) {
  return input(name).split(/\r\n|\r|\n/).map((line) => line.trim()).filter((line) => line !== "");
}

/** Keeps a value for the post step, which finds it with `state`. */
function saveState(name, value) {
  // The delimiter is random, so no value can end itself and add a name.
  const delimiter = `end-${randomUUID()}`;
  appendFileSync(fileOf("GITHUB_STATE"), `${name}<<${delimiter}\n${value}\n${delimiter}\n`);
}

function state(name) {
  return process.env[`STATE_${name}`] ?? "";
}

/** Later steps find programs of this directory by their names. */
function addToPath(directory) {
  if (/[\r\n]/.test(directory)) return;
  appendFileSync(fileOf("GITHUB_PATH"), `${directory}\n`);
}

/** A failure as the log and the page of the run show it. The runner takes a percent sign and line ends only in this form. */
function annotation(failure) {
  const text = failure.cure ? `${failure.message}\nCure: ${failure.cure}` : failure.message;
  const escaped = text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
  return `::error title=safeconduct::${escaped}\n`;
}

/** A line of the log that shows text of others. The runner takes no command from it. */
function say(text) {
  const flat = text.replace(/[\u0000-\u001f\u007f]+/g, " ").replaceAll("##[", "## [").replaceAll("##vso[", "##vso [");
  process.stdout.write(`safeconduct: ${flat}\n`);
}

function fileOf(variable) {
  const path = process.env[variable];
  if (!path) {
    throw new Failure(
      `the runner does not set ${variable}`,
      "run this as a step of a workflow (`uses:`), on a runner that has node24; in a shell use `safeconduct ci`",
    );
  }
  return path;
}

// ---- program.mjs
// The safeconduct program: an installed one, or that of a release, which runs only if its bytes have the digest that the workflow names.


/** A release has a program of about 12 MB. */
const LARGEST = 64 * 1024 * 1024;
/** Of one attempt to download it. */
const LIMIT_MS = 120_000;
const ATTEMPTS = 3;
/** What releases call the processors that Node.js names so. */
const PROCESSORS = { x64: "x86_64", arm64: "aarch64" };
const PINNED = "give `version` and `sha256` of a release, or `path` of an installed program";

/** Which program to run, and the directory for PATH where there is a new one. */
async function program({ path, version, sha256 }) {
  const digest = sha256.toLowerCase();
  if (digest !== "" && !/^[0-9a-f]{64}$/.test(digest)) {
    throw new Failure("`sha256` is not a digest of 64 hexadecimal digits", "copy it from SHA256SUMS of the release");
  }
  if (path !== "") {
    const found = installed(path);
    return digest === "" ? { file: found } : verifiedCopy(readFileSync(found), digest, found);
  }
  if (version === "" && digest === "") throw new Failure("nothing says which program to run", PINNED);
  if (version === "") throw new Failure("`sha256` is given without `version`", PINNED);
  if (digest === "") {
    throw new Failure(
      "`version` is given without `sha256`: a program whose bytes nobody has pinned is not run",
      "copy `sha256` from SHA256SUMS of the release, once, after you have verified it",
    );
  }
  return verifiedCopy(await released(version.replace(/^v/, ""), digest), digest, `release ${version}`);
}

/** A path, or the name of a program on PATH. */
function installed(path) {
  const candidates = path.includes("/")
    ? [resolve(path)]
    : (process.env.PATH ?? "").split(delimiter).filter(isAbsolute).map((directory) => join(directory, path));
  const runs = (candidate) => {
    try {
      accessSync(candidate, constants.X_OK);
      return statSync(candidate).isFile();
    } catch {
      return false;
    }
  };
  const found = candidates.find(runs);
  if (found === undefined) {
    throw new Failure(`\`path\` names no program that can be run: ${path}`, "install safeconduct in a step before this one");
  }
  return found;
}

/** Runs of what was checked: a file that another job could still change is not run itself. */
function verifiedCopy(bytes, digest, origin) {
  const found = digestOf(bytes);
  if (found !== digest) {
    throw new Failure(
      `${origin} is not what \`sha256\` names: its digest is ${found}`,
      "compare both with SHA256SUMS of the release; do not run this program",
    );
  }
  const directory = mkdtempSync(join(temporary(), "safeconduct-program-"));
  const file = join(directory, "safeconduct");
  writeFileSync(file, bytes, { mode: 0o700, flag: "wx" });
  return { file, directory };
}

function temporary() {
  const path = process.env.RUNNER_TEMP;
  if (!path) throw new Failure("the runner does not set RUNNER_TEMP", "run this as a step of a workflow (`uses:`)");
  return path;
}

/** The program of a release: from the tool cache, else downloaded. */
async function released(version, digest) {
  const processor = PROCESSORS[process.arch];
  if (processor === undefined) {
    throw new Failure(`releases have no program for ${process.arch}`, "build it there and give its `path`");
  }
  const cache = process.env.RUNNER_TOOL_CACHE ?? "";
  const place = ["safeconduct", digest, process.arch];
  const kept = cache === "" ? null : cached(join(cache, ...place, "safeconduct"), digest);
  if (kept !== null) return kept;
  const bytes = await download(address(version, processor));
  if (cache !== "" && digestOf(bytes) === digest) keep(bytes, cache, place);
  return bytes;
}

/** A cached file of another content, a damaged one for example, counts as none. */
function cached(file, digest) {
  try {
    const bytes = statSync(file).size > LARGEST ? null : readFileSync(file);
    return bytes !== null && digestOf(bytes) === digest ? bytes : null;
  } catch {
    return null;
  }
}

/** Another job sees the whole file or none. */
function keep(bytes, cache, place) {
  let directory = cache;
  try {
    // Not `recursive`: below /proc, for example, that never returns.
    for (const name of place) {
      directory = join(directory, name);
      if (!existsSync(directory)) mkdirSync(directory);
    }
    const unfinished = join(directory, randomUUID());
    writeFileSync(unfinished, bytes, { mode: 0o755, flag: "wx" });
    renameSync(unfinished, join(directory, "safeconduct"));
  } catch (error) {
    say(`the tool cache cannot be written (${error.code}), so the next job downloads the program again`);
  }
}

/** Of the release of the repository that this action comes from. */
function address(version, processor) {
  if (!/^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$/.test(version)) {
    throw new Failure("`version` is not one of a release, like 0.1.0", PINNED);
  }
  const { GITHUB_SERVER_URL: server, GITHUB_ACTION_REPOSITORY: repository } = process.env;
  if (!server || !/^[\w.-]+\/[\w.-]+$/.test(repository ?? "")) {
    throw new Failure("this action is not run from a repository that has releases", "install safeconduct and give its `path`");
  }
  return `${server}/${repository}/releases/download/v${version}/safeconduct-${version}-${processor}-linux`;
}

async function download(url) {
  for (let attempt = 1; ; attempt += 1) {
    const { bytes, problem, temporary } = await fetched(url);
    if (bytes !== undefined) return bytes;
    if (!temporary || attempt === ATTEMPTS) {
      throw new Failure(
        `${url} cannot be downloaded: ${problem}`,
        "check `version` and the runner's network (HTTPS_PROXY is used), or install safeconduct and give its `path`",
      );
    }
    say(`${url}: ${problem}; trying again`);
    await new Promise((done) => setTimeout(done, 1_000 * 2 ** attempt * (0.5 + Math.random() / 2)));
  }
}

/**
 * Downloads in a process of its own: Node.js reads the variables of a forward proxy only at its start, and only where it is told to.
 * That process gets nothing with which it could ask for the job's identity.
 */
async function fetched(url) {
  const environment = { ...without(process.env, /^(ACTIONS_|INPUT_|STATE_|GITHUB_)/), NODE_USE_ENV_PROXY: "1" };
  const child = spawn(process.execPath, ["--input-type=module", "-e", `(${fetchToStdout})(${JSON.stringify(url)}, ${LARGEST})`], {
    env: environment,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: LIMIT_MS,
    killSignal: "SIGKILL",
  });
  const [bytes, said, { code, error }] = await Promise.all([
    child.stdout.toArray(),
    child.stderr.toArray(),
    new Promise((ended) => {
      child.once("error", (error) => ended({ error: error.code }));
      child.once("close", (code) => ended({ code }));
    }),
  ]);
  if (code === 0) return { bytes: Buffer.concat(bytes) };
  if (error !== undefined) return { problem: `Node.js cannot be started once more (${error})`, temporary: false };
  if (child.killed) return { problem: `no answer within ${LIMIT_MS / 1_000} s`, temporary: true };
  if (code === null) return { problem: "another process has ended the download", temporary: true };
  return { problem: Buffer.concat(said).toString().trim().slice(0, 200), temporary: code === 75 };
}

/** This runs in the other process, so it uses nothing of this file. Code 75 means that another attempt can help. */
async function fetchToStdout(url, largest) {
  const end = (code, text) => {
    process.stderr.write(text);
    process.exitCode = code;
  };
  // The innermost cause says what went wrong.
  const why = (error) => (error.cause ? why(error.cause) : error.message);
  let answer;
  try {
    answer = await fetch(url);
  } catch (error) {
    return end(75, why(error));
  }
  if (!answer.ok) return end(answer.status === 429 || answer.status >= 500 ? 75 : 1, `HTTP status ${answer.status}`);
  let size = 0;
  try {
    for await (const part of answer.body) {
      size += part.length;
      if (size > largest) {
        end(1, `larger than ${largest} bytes`);
        process.exit();
      }
      if (!process.stdout.write(part)) await new Promise((drained) => process.stdout.once("drain", drained));
    }
  } catch (error) {
    end(75, why(error));
  }
}

function digestOf(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

function without(environment, names) {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !names.test(name)));
}

// ---- main.mjs
// The step itself: gets the program, and has it start the job's daemon (`safeconduct ci`), which masks, writes the outputs and the
// summary, and renews the tokens until the post step ends it.


const USAGE = 64;

async function main() {
  // First of all, so that the post step finds the daemon of a start that was broken off.
  saveState("before", newestStep());
  if (process.platform !== "linux") {
    throw new Failure(`safeconduct does not run on ${process.platform}`, "use a runner with Linux (`runs-on: ubuntu-latest`)");
  }
  const targets = lines("servers");
  if (targets.length === 0) {
    throw new Failure("the input `servers` is empty", "name each MCP server in a line of its own: NAME=URL");
  }
  if (targets.some((target) => target.startsWith("-"))) {
    throw new Failure("a line of the input `servers` begins with `-`", "each line is NAME=URL; other inputs have their own names");
  }
  permitted();
  const { file, directory } = await program({ path: input("path"), version: input("version"), sha256: input("sha256") });
  saveState("program", file);
  await start(file, [...options(), "--", ...targets]);
  if (directory !== undefined) addToPath(directory);
}

/** The usual mistake, told before anything is downloaded. A configuration can name an identity that is not the job's. */
function permitted() {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: token, GITHUB_ACTIONS: github } = process.env;
  if ((url && token) || github !== "true" || input("config") !== "") return;
  // The cures of those that run GitHub's actions are others, and the program knows them.
  if (["FORGEJO_ACTIONS", "GITEA_ACTIONS", "ACT"].some((name) => process.env[name])) return;
  if (fromFork()) {
    throw new Failure(
      "this run is for a pull request from a fork, and the runner gives no identity to those",
      "run the job on `push`, on `workflow_dispatch`, or on pull requests of branches of this repository",
    );
  }
  throw new Failure(
    "this job may not ask for an identity token",
    "add `permissions:` with `id-token: write` (and what else the job needs, like `contents: read`) to the job or to the workflow; " +
      "for a reusable workflow, to the job that calls it too",
  );
}

function fromFork() {
  try {
    const { pull_request: request, repository } = JSON.parse(readFileSync(process.env.GITHUB_EVENT_PATH, "utf8"));
    return request !== undefined && request.head.repo?.id !== repository.id;
  } catch {
    // Without a readable event the general cure has to do.
    return false;
  }
}

function options() {
  const one = (flag, name) => (input(name) === "" ? [] : [`${flag}=${input(name)}`]);
  const each = (flag, values) => values.map((value) => `${flag}=${value}`);
  return [
    ...one("--config", "config"),
    "ci",
    "--json",
    ...one("--issuer", "issuer"),
    ...each("--scope", input("scope").split(/\s+/).filter((scope) => scope !== "")),
    ...each("--allowed-server", lines("allowed-servers")),
    ...each("--allowed-issuer", lines("allowed-issuers")),
  ];
}

/** `safeconduct ci`: its words go to the log as they come, its report into the state. */
async function start(file, args) {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
  // A cancelled job sends SIGINT, then SIGTERM. The program ends what it has started; without it nothing would.
  let cancelled = false;
  const pass = (signal) => {
    cancelled = true;
    child.kill(signal);
  };
  process.on("SIGINT", pass).on("SIGTERM", pass);
  const last = { error: "", hint: "" };
  const said = createInterface({ input: child.stderr });
  said.on("line", (line) => {
    const [, kind, text] = /^safeconduct: (error|hint): (.*)$/.exec(line) ?? [];
    if (kind !== undefined) last[kind] = text;
    process.stderr.write(`${line}\n`);
  });
  const [report, ended] = await Promise.all([
    child.stdout.toArray(),
    new Promise((resolve) => {
      child.once("error", (error) => resolve({ error }));
      child.once("close", (code, signal) => resolve({ code, signal }));
    }),
  ]);
  if (ended.error) {
    throw new Failure(`${file} cannot be started (${ended.error.code})`, "check that it is a program for this runner's processor");
  }
  if (ended.code === 0) saveState("socket", socketOf(Buffer.concat(report).toString()));
  // The page of a cancelled run says so already.
  if (cancelled) process.exitCode = 1;
  else if (ended.code !== 0) {
    throw new Failure(last.error || `safeconduct ended with ${ended.code ?? ended.signal}`, last.hint || olderProgram(ended.code));
  }
}

/** The error of the parser would show a part of the text. */
function socketOf(report) {
  try {
    return JSON.parse(report).socket;
  } catch {
    throw new Failure("`safeconduct ci` gave no report that can be read", "use a version of safeconduct that fits the action");
  }
}

function olderProgram(code) {
  return code === USAGE ? "use a version of safeconduct that has the command `ci`" : "";
}

main().catch((error) => {
  process.stdout.write(annotation(error));
  // The runner fails the step and goes on with the post step.
  process.exitCode = 1;
});
