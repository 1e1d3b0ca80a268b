// After the job's last step, also of a failed or cancelled job: revokes the tokens that still live and ends the daemon. Says nothing
// where there is nothing to say, and never fails the job.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";

import { socketOfStep } from "./places.mjs";
import { say, state } from "./runner.mjs";

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
