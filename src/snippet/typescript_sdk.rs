//! The TypeScript SDK: a `fetch` that dials the daemon's socket. Without a daemon the bridge, with the variables that the SDK would
//! keep back. In both the program never has the token.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "your program (npm @modelcontextprotocol/client 2)",
    replaces: &[],
    direct: Some((
        r#"import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Agent, fetch as dial } from "undici";

const dispatcher = new Agent({ connect: { socketPath: «socket» } });
const transport = new StreamableHTTPClientTransport(new URL(«proxy»), {
  fetch: ((url: any, init: any) => dial(url, { ...init, dispatcher })) as any,
});
const client = new Client({ name: "agent", version: "1.0.0" });
await client.connect(transport);
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();
"#,
        "the program dials the daemon's socket (npm undici); the daemon adds the token to each request",
    )),
    bridge: r#"import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const transport = new StdioClientTransport({
  command: «program»,
  args: «args»,
  env: process.env as Record<string, string>,
});
const client = new Client({ name: "agent", version: "1.0.0" });
await client.connect(transport);
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();
"#,
    alone: "`env` hands on the variables of the job's identity, which the SDK would keep back",
    ..USUAL
};
