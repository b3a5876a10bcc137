/** jiji-daemon: command tree and options only; each command is loaded when it runs. */
import { Command, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import {
  CORROSION_API_PORT,
  parseServerConfig,
  type RemovalReport,
  SERVER_PATHS,
  type ServerConfig,
} from "@jiji/core/cluster";
import { corrosionHttpApi } from "@jiji/core/corrosion";
import {
  JijiError,
  messageOf,
  Secret,
  shiftedClock,
  systemClock,
  systemProcess,
  VERSION,
} from "@jiji/core/runtime";

const EXIT_UNHEALTHY = 3;
const CORROSION_URL = `http://127.0.0.1:${CORROSION_API_PORT}`;
/** Standard input is one small object or statement, octets. */
const STDIN_BYTES_MAX = 65_536;

function parseMs(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("write milliseconds.");
  return Number(text);
}

function parseInstantMs(text: string): number {
  if (!/^[1-9]\d{11,13}$/.test(text)) throw new InvalidArgumentError("write Unix milliseconds.");
  return Number(text);
}

function parseOffsetMs(text: string): number {
  if (!/^-?\d{1,9}$/.test(text)) throw new InvalidArgumentError("write milliseconds.");
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

async function readToken(path: string): Promise<Secret> {
  return new Secret((await Deno.readTextFile(path)).trim());
}

async function openApi(options: { corrosion: string; tokenFile: string }) {
  return corrosionHttpApi({ url: options.corrosion, token: await readToken(options.tokenFile) });
}

async function readStdin(): Promise<string> {
  let text = "";
  for await (const part of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    text += part;
    if (text.length > STDIN_BYTES_MAX) throw new JijiError("standard input is too long");
  }
  return text;
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

function command(name: string) {
  return new Command(name)
    .option("--config <file>", "this server's place in the cluster", SERVER_PATHS.serverConfig)
    .option("--token-file <file>", "token of the Corrosion API", SERVER_PATHS.corrosionToken)
    .option("--corrosion <url>", "Corrosion API", CORROSION_URL);
}

const run = command("run")
  .description("do the duties until stopped (what the systemd unit does)")
  .addOption(
    new Option("--clock-offset-ms <ms>", "take the wall clock to be wrong by this, to try it out")
      .env("JIJI_CLOCK_OFFSET_MS").default(0).argParser(parseOffsetMs),
  )
  .action(async (options) => {
    const { runDaemon } = await import("./commands/run.ts");
    await runDaemon({
      config: await readConfig(options.config),
      corrosionUrl: options.corrosion,
      token: await readToken(options.tokenFile),
      signal: stopSignal(),
      clock: shiftedClock(systemClock, options.clockOffsetMs),
    });
    Deno.exit(0);
  });

const status = command("status")
  .description("show all that this server knows of the cluster, also when parts are down")
  .option("--json", "print JSON")
  .action(async (options) => {
    const { collectStatus, fetchReport, renderStatus } = await import("./commands/status.ts");
    const { systemFiles } = await import("./system_files.ts");
    const found = await collectStatus({
      config: await readConfig(options.config).catch(() => undefined),
      process: systemProcess,
      files: systemFiles,
      api: await openApi(options).catch(() => undefined),
      clock: systemClock,
      askDaemon: fetchReport,
    });
    print(options.json ? JSON.stringify(found) : renderStatus(found));
  });

const probe = command("probe")
  .description("run a container's health check until it succeeds; prints JSON, exit 3 if not")
  .argument("<name>", "container")
  .requiredOption("--timeout-ms <ms>", "give up after this long", parseMs)
  .action(async (name, options) => {
    const { probeContainer } = await import("./commands/probe.ts");
    const { systemCheckNetwork } = await import("./duties/checks.ts");
    const report = await probeContainer(name, {
      engine: (await readConfig(options.config)).engine,
      process: systemProcess,
      network: systemCheckNetwork,
      clock: systemClock,
      timeoutMs: options.timeoutMs,
    });
    print(JSON.stringify(report));
    if (!report.healthy) Deno.exit(EXIT_UNHEALTHY);
  });

const vouch = command("vouch")
  .description("run an engine command while containers answer kamal-proxy's check through us")
  .requiredOption("--targets <ip:port,…>", "whom to vouch for")
  .requiredOption("--timeout-ms <ms>", "give up after this long", parseMs)
  .argument("<command...>", "engine command, after --")
  .action(async (words, options) => {
    const { vouchFor } = await import("./vouching.ts");
    const { engine } = await readConfig(options.config);
    if (words[0] !== engine) throw new JijiError(`${words[0]} is not the engine of this server`);
    const { timeoutMs } = options;
    const result = await vouchFor(
      options.targets.split(","),
      { engine, process: systemProcess, timeoutMs },
      () => systemProcess.run([engine, ...words.slice(1)], { timeoutMs }),
    );
    Deno.stdout.writeSync(new TextEncoder().encode(result.stdout));
    Deno.stderr.writeSync(new TextEncoder().encode(result.stderr));
    Deno.exit(result.exitCode ?? 1);
  });

const vouchAll = command("vouch-all")
  .description("answer kamal-proxy's checks for whoever needs it; says ready, ends with its input")
  .requiredOption("--timeout-ms <ms>", "end after this long in any case", parseMs)
  .action(async (options) => {
    const { vouchForAll, VOUCHER_READY } = await import("./vouching.ts");
    const { engine } = await readConfig(options.config);
    const ports = { engine, process: systemProcess, timeoutMs: options.timeoutMs };
    await vouchForAll(ports, async () => {
      print(VOUCHER_READY);
      await Promise.race([readStdin(), systemClock.sleep(options.timeoutMs)]);
    });
    Deno.exit(0);
  });

const voucher = new Command("voucher")
  .description("what vouch runs in a container's network")
  .requiredOption("--timeout-ms <ms>", "end after this long", parseMs)
  .action(async (options) => {
    const { serveVoucher, VOUCHER_READY } = await import("./vouching.ts");
    await serveVoucher(options.timeoutMs, () => print(VOUCHER_READY));
  });

const add = command("add")
  .description("add the server described as JSON on standard input (PeerSeed with hostname)")
  .action(async (options) => {
    const { addServer, parseNewcomer } = await import("./commands/servers.ts");
    const newcomer = parseNewcomer(await readStdin(), systemClock.nowMs());
    await addServer(newcomer, { api: await openApi(options), clock: systemClock });
    print(JSON.stringify({ added: newcomer.id }));
  });

const remove = command("remove")
  .description("mark a server as removed; the others drop it from their mesh")
  .argument("<server>", "its name")
  .option(
    "--at-ms <ms>",
    "when, Unix ms, as another member was told (default: now)",
    parseInstantMs,
  )
  .action(async (id, options) => {
    const { removeServer } = await import("./commands/servers.ts");
    const { systemFiles } = await import("./system_files.ts");
    const { removedAtMs, wasMember } = await removeServer({ id, atMs: options.atMs }, {
      api: await openApi(options),
      clock: systemClock,
      files: systemFiles,
    });
    const report: RemovalReport = {
      removed: wasMember ? id : null,
      removed_at_ms: removedAtMs,
    };
    print(JSON.stringify(report));
  });

const list = command("list")
  .description("list the servers Corrosion knows, removed ones included")
  .option("--json", "print JSON")
  .action(async (options) => {
    const { listServers, renderServers } = await import("./commands/servers.ts");
    const rows = await listServers(await openApi(options));
    print(options.json ? JSON.stringify(rows) : renderServers(rows));
  });

const query = command("query")
  .description("run a statement that reads, given on standard input; prints JSON")
  .action(async (options) => {
    const { queryState } = await import("./commands/state.ts");
    const address = { url: options.corrosion, token: await readToken(options.tokenFile) };
    print(JSON.stringify(await queryState(await readStdin(), address)));
  });

const stats = command("stats")
  .description("count what this server has of the cluster's state; prints JSON")
  .action(async (options) => {
    const { collectStats } = await import("./commands/state.ts");
    const found = await collectStats({
      config: await readConfig(options.config).catch(() => undefined),
      api: await openApi(options),
      process: systemProcess,
    });
    print(JSON.stringify(found));
  });

const gc = command("gc")
  .description("list rows that nobody keeps; prints JSON")
  .option("--force", "remove them")
  .requiredOption("--stale-ms <ms>", "unhealthy containers of silent servers", parseMs)
  .requiredOption("--offline-ms <ms>", "everything of servers silent for this long", parseMs)
  .action(async (options) => {
    const { collectStale } = await import("./commands/state.ts");
    const { systemFiles } = await import("./system_files.ts");
    const found = await collectStale({
      config: await readConfig(options.config),
      api: await openApi(options),
      files: systemFiles,
      clock: systemClock,
      staleMs: options.staleMs,
      offlineMs: options.offlineMs,
      force: options.force ?? false,
    });
    print(JSON.stringify(found));
  });

const program = new Command("jiji-daemon")
  .description("Keeps what must stay true on this server: mesh, network, rows, proxy.")
  .version(VERSION, "--version")
  .showHelpAfterError();
program.addCommand(run, { isDefault: true });
program.addCommand(status);
program.addCommand(probe);
program.addCommand(vouch);
program.addCommand(vouchAll, { hidden: true });
program.addCommand(voucher, { hidden: true });
program.addCommand(
  new Command("servers").description("the cluster's servers")
    .addCommand(add).addCommand(remove).addCommand(list),
);

program.addCommand(
  new Command("db").description("the cluster's state as this server has it")
    .addCommand(query).addCommand(stats),
);
program.addCommand(gc);

if (import.meta.main) {
  try {
    await program.parseAsync();
  } catch (error) {
    const hint = error instanceof JijiError && error.hint ? `\n  ${error.hint}` : "";
    Deno.stderr.writeSync(new TextEncoder().encode(`jiji-daemon: ${messageOf(error)}${hint}\n`));
    Deno.exit(error instanceof JijiError ? error.exitCode : 1);
  }
}
