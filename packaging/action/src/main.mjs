// The step itself: gets the program, and has it start the job's daemon (`safeconduct ci`), which masks, writes the outputs and the
// summary, and renews the tokens until the post step ends it.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { newestStep } from "./places.mjs";
import { program } from "./program.mjs";
import { addToPath, annotation, Failure, input, lines, saveState } from "./runner.mjs";

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
