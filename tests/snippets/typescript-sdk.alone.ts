import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const transport = new StdioClientTransport({
  command: "/usr/bin/safeconduct",
  args: ["stdio", "https://mcp.example.com/mcp"],
  env: process.env as Record<string, string>,
});
const client = new Client({ name: "agent", version: "1.0.0" });
await client.connect(transport);
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();
