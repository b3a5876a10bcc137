import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { VERSION } from "@jiji/core/runtime";
import { command, type Run } from "./base.ts";
import { lockCommands } from "./lock.ts";
import { networkCommands } from "./network.ts";
import {
  auditCommand,
  buildCommand,
  deployCommand,
  initCommand,
  versionCommand,
} from "./project.ts";
import { proxyCommands } from "./proxy.ts";
import { registryCommands } from "./registry.ts";
import { secretsCommands } from "./secrets.ts";
import { serverCommands } from "./server.ts";
import { servicesCommands } from "./services.ts";

/** The whole command tree: options and texts only; each handler is loaded when it is called. */
export function buildProgram(run: Run): CommandUnknownOpts {
  const program = command("jiji")
    .description("Turns Linux servers into one private network of containers, and deploys to it.")
    .version(VERSION, "--version", "print the version of jiji");
  program.addCommand(initCommand(run));
  program.addCommand(versionCommand(run));
  program.addCommand(serverCommands(run));
  program.addCommand(buildCommand(run));
  program.addCommand(deployCommand(run));
  program.addCommand(networkCommands(run));
  program.addCommand(servicesCommands(run));
  program.addCommand(proxyCommands(run));
  program.addCommand(registryCommands(run));
  program.addCommand(secretsCommands(run));
  program.addCommand(auditCommand(run));
  program.addCommand(lockCommands(run));
  pointAtHelp(program, "jiji");
  return program;
}

/** Names after an error the help screen that tells more: a command's whole name is known last. */
function pointAtHelp(tree: CommandUnknownOpts, path: string): void {
  tree.showHelpAfterError(`(${path} --help shows more)`);
  for (const child of tree.commands) pointAtHelp(child, `${path} ${child.name()}`);
}
