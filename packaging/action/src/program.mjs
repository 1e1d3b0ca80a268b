// The safeconduct program: an installed one, or that of a release, which runs only if its bytes have the digest that the workflow names.
import { spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";

import { Failure, say } from "./runner.mjs";

/** A release has a program of about 12 MB. */
const LARGEST = 64 * 1024 * 1024;
/** Of one attempt to download it. */
const LIMIT_MS = 120_000;
const ATTEMPTS = 3;
/** What releases call the processors that Node.js names so. */
const PROCESSORS = { x64: "x86_64", arm64: "aarch64" };
const PINNED = "give `version` and `sha256` of a release, or `path` of an installed program";

/** Which program to run, and the directory for PATH where there is a new one. */
export async function program({ path, version, sha256 }) {
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
