/** jiji-dns: command tree and options only; each command is loaded when it runs. */
import { Command, InvalidArgumentError } from "@commander-js/extra-typings";
import {
  CORROSION_API_PORT,
  DNS_STATUS_PORT,
  parseServerConfig,
  SERVER_PATHS,
  type ServerConfig,
} from "@jiji/core/cluster";
import { normalizeIp, parseEndpoint } from "@jiji/core/net";
import { JijiError, messageOf, systemClock, UsageError, VERSION } from "@jiji/core/runtime";
import type { ServerAddress } from "./upstream.ts";

const EXIT_NOT_CONVERGED = 3;

function parseAddress(text: string): ServerAddress {
  const endpoint = parseEndpoint(/:\d+$/.test(text) ? text : `${text}:53`);
  if (!endpoint || normalizeIp(endpoint.host) === undefined) {
    throw new InvalidArgumentError("write ADDRESS or ADDRESS:PORT.");
  }
  return { hostname: endpoint.host, port: endpoint.port };
}

function parseMs(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("write milliseconds.");
  return Number(text);
}

async function readConfig(path: string): Promise<ServerConfig> {
  try {
    return parseServerConfig(await Deno.readTextFile(path));
  } catch (error) {
    throw new JijiError(`${path}: ${messageOf(error)}`, {
      hint: "this file is written by: jiji server init",
    });
  }
}

/** The address to ask: the one given, else this server's own. */
async function askedAddress(at: ServerAddress | undefined, config: string): Promise<ServerAddress> {
  if (at) return at;
  const { ownAddress } = await import("./commands/serve.ts");
  return ownAddress(await readConfig(config));
}

function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(name, () => stop.abort());
  }
  return stop.signal;
}

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

const program = new Command("jiji-dns")
  .description("Answers *.jiji from the cluster's state and forwards other names.")
  .version(VERSION, "--version")
  .showHelpAfterError();

program.command("serve", { isDefault: true })
  .description("run the server (what the systemd unit does)")
  .option("--config <file>", "this server's place in the cluster", SERVER_PATHS.serverConfig)
  .option("--token-file <file>", "token of the Corrosion API", SERVER_PATHS.corrosionToken)
  .option(
    "--listen <address:port>",
    "where to answer, repeatable (default: the block's first address, port 53)",
    (text: string, list: ServerAddress[]) => [...list, parseAddress(text)],
    [] as ServerAddress[],
  )
  .option("--corrosion <url>", "Corrosion API", `http://127.0.0.1:${CORROSION_API_PORT}`)
  .option("--state <folder>", "where the snapshot is kept", SERVER_PATHS.dnsState)
  .option("--liveness <file>", "the daemon's liveness report", SERVER_PATHS.liveness)
  .option("--status-port <port>", "metrics and names over HTTP", parseMs, DNS_STATUS_PORT)
  .option("--resolv-conf <file>", "the host's resolvers", "/etc/resolv.conf")
  .action(async (options) => {
    const { serve } = await import("./commands/serve.ts");
    await serve({
      config: await readConfig(options.config),
      configFile: options.config,
      tokenFile: options.tokenFile,
      listen: options.listen,
      corrosionUrl: options.corrosion,
      stateFolder: options.state,
      livenessFile: options.liveness,
      resolvConf: options.resolvConf,
      statusPort: options.statusPort,
      signal: stopSignal(),
    });
    Deno.exit(0);
  });

program.command("await")
  .description("wait until names answer with every +IP and no -IP; prints JSON, exit 3 if not")
  .argument("<name=+ip,-ip...>")
  .requiredOption("--timeout-ms <ms>", "give up after this long", parseMs)
  .option("--at <address:port>", "server to ask (default: this server's jiji-dns)", parseAddress)
  .option("--config <file>", "this server's place in the cluster", SERVER_PATHS.serverConfig)
  .action(async (names, options) => {
    const { awaitNames, parseExpectation } = await import("./commands/await_names.ts");
    const expectations = names.map(parseExpectation);
    const server = await askedAddress(options.at, options.config);
    const report = await awaitNames(expectations, {
      server,
      timeoutMs: options.timeoutMs,
      clock: systemClock,
    });
    print(JSON.stringify(report));
    if (!report.converged) Deno.exit(EXIT_NOT_CONVERGED);
  });

program.command("query")
  .description("show what the server answers to a name")
  .argument("<name>")
  .argument("[type]", "record type", "A")
  .option("--at <address:port>", "server to ask (default: this server's jiji-dns)", parseAddress)
  .option("--config <file>", "this server's place in the cluster", SERVER_PATHS.serverConfig)
  .option("--json", "print JSON")
  .action(async (name, typeName, options) => {
    const { ask } = await import("./commands/ask.ts");
    const { parseType } = await import("./dns_message.ts");
    const { renderAnswer, reportAnswer } = await import("./commands/query.ts");
    const type = parseType(typeName);
    if (type === undefined) throw new UsageError(`unknown record type "${typeName}"`);
    const server = await askedAddress(options.at, options.config);
    const asked = await ask(server, { name, type }, { timeoutMs: 3_000 });
    const report = reportAnswer(asked);
    if (options.json) return print(JSON.stringify(report));
    print(renderAnswer(report));
    if (options.at) return;
    // Reasons come from the server itself; an older one has none to give.
    const { fetchNames, fetchResolvers, renderNames } = await import("./commands/names.ts");
    const place = { hostname: server.hostname, port: DNS_STATUS_PORT, name };
    if (!report.authoritative) {
      const resolvers = await fetchResolvers(place).catch(() => undefined);
      if (resolvers) print(`resolvers asked: ${resolvers.join(", ") || "there are none"}`);
      return;
    }
    const names = await fetchNames(place).catch(() => undefined);
    if (names?.names.some((one) => one.containers.length > 0)) print(renderNames(names));
  });

program.command("names")
  .description("every name with its containers: which are answered, and why")
  .argument("[name]", "only this name")
  .option("--status-port <port>", "where the server tells", parseMs, DNS_STATUS_PORT)
  .option("--config <file>", "this server's place in the cluster", SERVER_PATHS.serverConfig)
  .option("--json", "print JSON")
  .action(async (name, options) => {
    const { fetchNames, renderNames } = await import("./commands/names.ts");
    const { hostname } = await askedAddress(undefined, options.config);
    const report = await fetchNames({
      hostname,
      port: options.statusPort,
      ...(name === undefined ? {} : { name }),
    });
    print(options.json ? JSON.stringify(report) : renderNames(report));
  });

if (import.meta.main) {
  try {
    await program.parseAsync();
  } catch (error) {
    const hint = error instanceof JijiError && error.hint ? `\n  ${error.hint}` : "";
    Deno.stderr.writeSync(new TextEncoder().encode(`jiji-dns: ${messageOf(error)}${hint}\n`));
    Deno.exit(error instanceof JijiError ? error.exitCode : 1);
  }
}
