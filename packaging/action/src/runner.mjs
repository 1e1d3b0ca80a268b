// What the runner and an action say to each other: inputs, state, paths, and commands in the log. The page is "Workflow commands for
// GitHub Actions". Forgejo and Gitea run actions in the same way.
import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";

/** Something that a person has to change: what is wrong, and what to do. */
export class Failure extends Error {
  constructor(what, cure) {
    super(what);
    this.cure = cure;
  }
}

/** An input of the step, without the blanks around it. */
export function input(name) {
  return (process.env[`INPUT_${name.toUpperCase()}`] ?? "").trim();
}

/** An input that has one value in a line. */
export function lines(name) {
  return input(name).split(/\r\n|\r|\n/).map((line) => line.trim()).filter((line) => line !== "");
}

/** Keeps a value for the post step, which finds it with `state`. */
export function saveState(name, value) {
  // The delimiter is random, so no value can end itself and add a name.
  const delimiter = `end-${randomUUID()}`;
  appendFileSync(fileOf("GITHUB_STATE"), `${name}<<${delimiter}\n${value}\n${delimiter}\n`);
}

export function state(name) {
  return process.env[`STATE_${name}`] ?? "";
}

/** Later steps find programs of this directory by their names. */
export function addToPath(directory) {
  if (/[\r\n]/.test(directory)) return;
  appendFileSync(fileOf("GITHUB_PATH"), `${directory}\n`);
}

/** A failure as the log and the page of the run show it. The runner takes a percent sign and line ends only in this form. */
export function annotation(failure) {
  const text = failure.cure ? `${failure.message}\nCure: ${failure.cure}` : failure.message;
  const escaped = text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
  return `::error title=safeconduct::${escaped}\n`;
}

/** A line of the log that shows text of others. The runner takes no command from it. */
export function say(text) {
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
