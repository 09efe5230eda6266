// A client of a TypeScript SDK, which gives up after two seconds unless progress comes; it prints
// what it saw. Usage: typescript_client.cjs NODE_MODULES 1|2 ERA PROMPT PROGRAM ARGUMENT …
const { createRequire } = require("node:module");
const { join } = require("node:path");

const [modules, generation, era, prompt, command, ...args] = process.argv.slice(2);
const load = createRequire(join(modules, "here.js"));
const root = { 1: "@modelcontextprotocol/sdk/client", 2: "@modelcontextprotocol/client" }[generation];
const { Client } = load(generation === "1" ? `${root}/index.js` : root);
const { StdioClientTransport } = load(generation === "1" ? `${root}/stdio.js` : `${root}/stdio`);

const TIMEOUT_MS = 2000;
const CALLS = {
  ask_claude: { prompt },
  list_models: {},
  login: {},
};

async function main() {
  const client = new Client(
    { name: "interop", version: "1" },
    generation === "1" ? {} : { versionNegotiation: { mode: era === "modern" ? "auto" : "legacy" } },
  );
  await client.connect(new StdioClientTransport({ command, args, stderr: "ignore" }));
  const { tools } = await client.listTools();
  const progress = [];
  const options = {
    timeout: TIMEOUT_MS,
    resetTimeoutOnProgress: true,
    onprogress: (note) => progress.push(note.progress),
  };
  const results = {};
  for (const [name, given] of Object.entries(CALLS)) {
    const params = { name, arguments: given };
    const result =
      generation === "1"
        ? await client.callTool(params, undefined, options)
        : await client.callTool(params, options);
    results[name] = result.structuredContent;
  }
  await client.close();
  console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), progress, results }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
