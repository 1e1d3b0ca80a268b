import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Agent, fetch as dial } from "undici";

const dispatcher = new Agent({ connect: { socketPath: "/run/user/1000/safeconduct/safeconduct.sock" } });
const transport = new StreamableHTTPClientTransport(new URL("http://localhost/mcp/deploy"), {
  fetch: ((url: any, init: any) => dial(url, { ...init, dispatcher })) as any,
});
const client = new Client({ name: "agent", version: "1.0.0" });
await client.connect(transport);
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();
