// Made by packaging/action/build.mjs from packaging/action/src. Do not edit.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { appendFileSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

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

// ---- post.mjs
// After the job's last step, also of a failed or cancelled job: revokes the tokens that still live and ends the daemon. Says nothing
// where there is nothing to say, and never fails the job.


/** Longer than the program waits for the parties that it asks to revoke. */
const LIMIT_MS = 30_000;

async function post() {
  const [program, before] = ["program", "before"].map(state);
  // A start that was broken off could not name its socket: it is that of the next step. Those of later steps are ended by now.
  const socket = state("socket") || (program && before && socketOfStep(Number(before) + 1));
  // A start that failed left no daemon, and neither did a job that ended it itself.
  if (!socket || !existsSync(socket)) return;
  const problem = existsSync(program) ? await stop(program, socket) : "the program is gone";
  if (problem !== "" && existsSync(socket)) {
    say(`the daemon was not ended (${problem}), so its tokens are not revoked and end by themselves`);
  }
}

/** What went wrong, else nothing. A step could have put another program there, so it gets nothing of our environment. */
function stop(program, socket) {
  const child = spawn(program, ["--socket", socket, "stop"], {
    env: {},
    stdio: ["ignore", "ignore", "pipe"],
    timeout: LIMIT_MS,
    killSignal: "SIGKILL",
  });
  const said = child.stderr.toArray();
  return new Promise((resolve) => {
    child.once("error", (error) => resolve(error.code));
    child.once("close", async (code) => {
      if (code === 0) return resolve("");
      resolve(Buffer.concat(await said).toString().trim().split("\n")[0] || `it ended with ${code ?? "SIGKILL"}`);
    });
  });
}

post().catch((error) => say(`cannot clean up: ${error.message}`));
