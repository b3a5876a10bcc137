import { Command } from "@commander-js/extra-typings";
import type { Ports } from "../utils/command_helpers.ts";

/** Options that any command line may carry. */
export interface OutputFlags {
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

/** Runs a command's handler; turns what it throws into text and an exit code. */
export type Run = (flags: OutputFlags, handler: (ports: Ports) => Promise<void>) => Promise<void>;

/** A command whose own errors are thrown, so that they get our exit code, with suggestions. */
export function command(name: string): Command {
  return new Command(name)
    .exitOverride()
    .enablePositionalOptions()
    .helpOption("-h, --help", "show help")
    .showSuggestionAfterError();
}

/** A command about the cluster of a configuration, with the options all of them share. */
export function clusterCommand(name: string, description: string) {
  return command(name)
    .description(description)
    .option("-c, --config-file <path>", "configuration to use instead of searching upward")
    .option("-e, --environment <name>", "use .jiji/deploy.<name>.yml and .env.<name>")
    .option("-H, --hosts <names>", "only these servers: names or addresses, comma list, * and ?")
    .option("--host-env", "let secrets come from this process's environment")
    .option("--json", "results and events as JSON")
    .option("-q, --quiet", "no progress");
}

/** A command about services: `-S` chooses among them. */
export function serviceCommand(name: string, description: string) {
  return clusterCommand(name, description)
    .option("-S, --services <names>", "only these services: comma list, * and ?");
}

/** A command that shows output of containers. */
export function logsCommand(description: string) {
  return serviceCommand("logs", description)
    .option("-f, --follow", "go on showing new lines until Ctrl-C")
    .option("-s, --since <time>", "only lines since then: 10m, 2h, or a time")
    .option("-n, --lines <number>", "last lines of each container (default: 100)")
    .option("-g, --grep <pattern>", "only lines that match this regular expression");
}
