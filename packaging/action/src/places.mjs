// Where the daemons of a job are: each step that starts one has a numbered directory below that of the job.
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** The number of the newest step that has started a daemon, else 0. */
export function newestStep() {
  try {
    return Math.max(0, ...readdirSync(ofTheJob()).filter((name) => /^[0-9]+$/.test(name)).map(Number));
  } catch {
    // There is no directory before the first one.
    return 0;
  }
}

export function socketOfStep(number) {
  return join(ofTheJob(), String(number), "safeconduct.sock");
}

function ofTheJob() {
  return join(process.env.RUNNER_TEMP ?? "", "safeconduct");
}
