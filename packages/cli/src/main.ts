/** The `jiji` program: command tree and options only; each handler is loaded when it is called. */
import "./utils/commonjs_globals.ts";
import { Command, CommanderError, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { JijiError, systemClock, UsageError, VERSION } from "@jiji/core/runtime";
import { Output, type TextSink } from "./lib/output/output.ts";
import type { CommonOptions, Ports } from "./utils/command_helpers.ts";

/** Options that any command line may carry. */
interface OutputFlags {
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

function sink(stream: typeof Deno.stdout | typeof Deno.stderr): TextSink {
  const encoder = new TextEncoder();
  return {
    write(text) {
      const bytes = encoder.encode(text);
      try {
        for (let written = 0; written < bytes.length;) {
          written += stream.writeSync(bytes.subarray(written));
        }
      } catch (error) {
        // The reader went away (`jiji … | head`): that is its right.
        if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      }
    },
    isTerminal: stream.isTerminal(),
    get columns() {
      try {
        return Deno.consoleSize().columns;
      } catch {
        return 80;
      }
    },
  };
}

function makePorts(flags: OutputFlags, signal: AbortSignal): Ports {
  const output = new Output({
    stdout: sink(Deno.stdout),
    stderr: sink(Deno.stderr),
    json: flags.json ?? false,
    quiet: flags.quiet ?? false,
    env: Deno.env.toObject(),
    clock: systemClock,
  });
  return { output, clock: systemClock, signal, cwd: Deno.cwd() };
}

/** Exit code of a program ended by Ctrl-C. Source: bash(1), EXIT STATUS: 128 + SIGINT. */
const EXIT_INTERRUPTED = 130;
/** An error nobody foresaw is our bug. */
const EXIT_BUG = 70;

/**
 * Runs a handler and turns what it throws into text and an exit code: the only place that does. The
 * first Ctrl-C lets the handler undo what it began, the second one ends at once.
 */
async function execute(
  flags: OutputFlags,
  handler: (ports: Ports) => Promise<void>,
): Promise<void> {
  const abort = new AbortController();
  const interrupt = () => {
    if (abort.signal.aborted) Deno.exit(EXIT_INTERRUPTED);
    abort.abort(new JijiError("interrupted"));
  };
  Deno.addSignalListener("SIGINT", interrupt);
  Deno.addSignalListener("SIGTERM", interrupt);
  const ports = makePorts(flags, abort.signal);
  try {
    await handler(ports);
    Deno.exit(0);
  } catch (error) {
    ports.output.failure(error);
    if (!(error instanceof JijiError)) {
      ports.output.note(error instanceof Error ? error.stack ?? "" : String(error));
      ports.output.note("This is a bug in jiji: please report it with the lines above.");
    }
    if (abort.signal.aborted) Deno.exit(EXIT_INTERRUPTED);
    Deno.exit(error instanceof JijiError ? error.exitCode : EXIT_BUG);
  }
}

/** A command whose own errors are thrown, so that they get our exit code, with suggestions. */
function command(name: string) {
  return new Command(name)
    .exitOverride()
    .enablePositionalOptions()
    .helpOption("-h, --help", "show help")
    .showSuggestionAfterError();
}

/** Names after an error the help screen that tells more: a command's whole name is known last. */
function pointAtHelp(tree: CommandUnknownOpts, path: string): void {
  tree.showHelpAfterError(`(${path} --help shows more)`);
  for (const child of tree.commands) pointAtHelp(child, `${path} ${child.name()}`);
}

/** A command about the cluster of a configuration, with the options all of them share. */
function clusterCommand(name: string, description: string) {
  return command(name)
    .description(description)
    .option("-c, --config-file <path>", "configuration to use instead of searching upward")
    .option("-e, --environment <name>", "use .jiji/deploy.<name>.yml and .env.<name>")
    .option("-H, --hosts <names>", "only these servers: names or addresses, comma list, * and ?")
    .option("--host-env", "let secrets come from this process's environment")
    .option("--json", "results and events as JSON")
    .option("-q, --quiet", "no progress");
}

const program = command("jiji")
  .description("Turns Linux servers into one private network of containers, and deploys to it.")
  .version(VERSION, "--version", "print the version of jiji");

const initCommand = command("init")
  .description("write a commented starter configuration, .jiji/deploy.yml")
  .option("-e, --environment <name>", "write .jiji/deploy.<name>.yml")
  .option("-f, --force", "overwrite an existing file")
  .action((options) =>
    execute({}, async (ports) => {
      const { init } = await import("./commands/init.ts");
      await init({ cwd: ports.cwd, ...options }, {
        write: (line) => ports.output.line(line),
      });
    })
  );
program.addCommand(initCommand);

const versionCommand = command("version")
  .description("print the version of jiji")
  .option("--json", "as JSON")
  .action((options) =>
    execute(options, (ports) => {
      if (options.json) ports.output.result({ version: VERSION });
      else ports.output.line(`jiji ${VERSION}`);
      return Promise.resolve();
    })
  );
program.addCommand(versionCommand);

const server = command("server").description("prepare and manage servers");
server.addCommand(
  clusterCommand("init", "make every server of the configuration a member of the cluster")
    .addHelpText("after", "\nSafe to run again: it changes only what is not as it should be.")
    .action((options: CommonOptions & OutputFlags) =>
      execute(options, async (ports) => {
        const { serverInit } = await import("./commands/server_init.ts");
        await serverInit(options, ports);
      })
    ),
);
server.addCommand(
  clusterCommand("exec", "run a command on every chosen server")
    .argument("<command...>", "command and its arguments")
    .option("--timeout <seconds>", "limit on each server (default: 300)")
    .passThroughOptions()
    .action((words, options) =>
      execute(options, async (ports) => {
        const { serverExec } = await import("./commands/server_exec.ts");
        await serverExec(words, options, ports);
      })
    ),
);
program.addCommand(server);

program.addCommand(
  clusterCommand("deploy", "build, ship and switch services without dropping a request")
    .option("-S, --services <names>", "only these services: comma list, * and ?")
    .option("--build", "build services with build: before deploying (the default)")
    .option("--no-build", "deploy an image that was built and shipped before")
    .option("--no-cache", "build without the layer cache")
    .option("--version <version>", "image tag of services with build: (default: git commit)")
    .option("--plan", "print what would be done and stop")
    .option("--force", "replace containers even when nothing changed")
    .option("--skip-unreachable", "leave out servers that cannot be reached")
    .action((options) =>
      execute(options, async (ports) => {
        const { deploy } = await import("./commands/deploy.ts");
        await deploy(options, ports);
      })
    ),
);

const network = command("network").description("the private network between servers");
network.addCommand(
  clusterCommand("status", "servers, links between them and what they run")
    .action((options: CommonOptions & OutputFlags) =>
      execute(options, async (ports) => {
        const { networkStatus } = await import("./commands/network_status.ts");
        await networkStatus(options, ports);
      })
    ),
);
network.addCommand(
  clusterCommand("dns", "names of services, and what each server answers to them")
    .argument("[name]", "only this name, with reasons")
    .action((name: string | undefined, options: CommonOptions & OutputFlags) =>
      execute(options, async (ports) => {
        const { networkDns } = await import("./commands/network_dns.ts");
        await networkDns(name, options, ports);
      })
    ),
);
program.addCommand(network);

/** A command about services: `-S` chooses among them. */
function serviceCommand(name: string, description: string) {
  return clusterCommand(name, description)
    .option("-S, --services <names>", "only these services: comma list, * and ?");
}

/** A command that shows output of containers. */
function logsCommand(description: string) {
  return serviceCommand("logs", description)
    .option("-f, --follow", "go on showing new lines until Ctrl-C")
    .option("-s, --since <time>", "only lines since then: 10m, 2h, or a time")
    .option("-n, --lines <number>", "last lines of each container (default: 100)")
    .option("-g, --grep <pattern>", "only lines that match this regular expression");
}

const services = command("services").description("services of the project");
services.addCommand(
  serviceCommand("list", "what runs where")
    .action((options) =>
      execute(options, async (ports) => {
        const { servicesList } = await import("./commands/services_list.ts");
        await servicesList(options, ports);
      })
    ),
);
services.addCommand(
  logsCommand("output of containers of all servers, merged by time")
    .action((options) =>
      execute(options, async (ports) => {
        const { servicesLogs } = await import("./commands/services_logs.ts");
        await servicesLogs(options, ports);
      })
    ),
);
services.addCommand(
  serviceCommand("restart", "replace containers by new ones of the same release")
    .option("--plan", "print what would be done and stop")
    .action((options) =>
      execute(options, async (ports) => {
        const { servicesRestart } = await import("./commands/services_rollback.ts");
        await servicesRestart(options, ports);
      })
    ),
);
services.addCommand(
  serviceCommand("rollback", "back to the last release, with its configuration and environment")
    .option("--to <version>", "back to this version")
    .option("--list", "show the releases that are kept")
    .option("--plan", "print what would be done and stop")
    .action((options) =>
      execute(options, async (ports) => {
        const { servicesRollback } = await import("./commands/services_rollback.ts");
        await servicesRollback(options, ports);
      })
    ),
);
services.addCommand(
  serviceCommand("remove", "take services off their servers")
    .option("-y, --yes", "do not ask")
    .option("--volumes", "also delete their named volumes, with the data")
    .action((options) =>
      execute(options, async (ports) => {
        const { servicesRemove } = await import("./commands/services_remove.ts");
        await servicesRemove(options, ports);
      })
    ),
);
services.addCommand(
  serviceCommand("exec", "run a command in a running container")
    .argument("<command...>", "command and its arguments")
    .passThroughOptions()
    .action((words, options) =>
      execute(options, async (ports) => {
        const { servicesExec } = await import("./commands/services_exec.ts");
        await servicesExec(words, options, ports);
      })
    ),
);
program.addCommand(services);

const proxy = command("proxy").description("kamal-proxy on the servers");
proxy.addCommand(
  logsCommand("output of the proxies, merged by time")
    .action((options) =>
      execute(options, async (ports) => {
        const { proxyLogs } = await import("./commands/services_logs.ts");
        await proxyLogs(options, ports);
      })
    ),
);
program.addCommand(proxy);

program.addCommand(
  clusterCommand("audit", "who changed what and when, merged over all servers")
    .option("-n, --lines <number>", "last entries (default: 20)")
    .option("--action <name>", "only this action: deploy, rollback, …")
    .option("--status <result>", "only success or failed")
    .action((options) =>
      execute(options, async (ports) => {
        const { audit } = await import("./commands/audit.ts");
        await audit(options, ports);
      })
    ),
);

const lock = command("lock").description("locks of changing commands");
lock.addCommand(
  clusterCommand("status", "who holds locks")
    .action((options: CommonOptions & OutputFlags) =>
      execute(options, async (ports) => {
        const { lockStatus } = await import("./commands/lock.ts");
        await lockStatus(options, ports);
      })
    ),
);
lock.addCommand(
  clusterCommand("release", "end locks by force; those of dead commands end by themselves")
    .option("-y, --yes", "do not ask")
    .action((options) =>
      execute(options, async (ports) => {
        const { lockRelease } = await import("./commands/lock.ts");
        await lockRelease(options, ports);
      })
    ),
);
program.addCommand(lock);

pointAtHelp(program, "jiji");

/** Help and version end well; anything else commander refuses is a usage error. */
try {
  const args = Deno.args.length > 0 ? Deno.args : ["--help"];
  await program.parseAsync(["jiji", "jiji", ...args]);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  Deno.exit(error.exitCode === 0 ? 0 : new UsageError(error.message).exitCode);
}
