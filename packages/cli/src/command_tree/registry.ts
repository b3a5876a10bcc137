import { command, type Run, serviceCommand } from "./base.ts";

function registryCommand(name: string, description: string) {
  return serviceCommand(name, description)
    .option("-L, --skip-local", "leave this machine alone")
    .option("-R, --skip-remote", "leave the servers alone");
}

/** `jiji registry …`. */
export function registryCommands(run: Run) {
  const registry = command("registry").description("where built images are kept");
  registry.addCommand(
    registryCommand("setup", "make sure that images can be shipped; logs in to a remote registry")
      .action((options) =>
        run(options, async (ports) => {
          const { registrySetup } = await import("../commands/registry.ts");
          await registrySetup(options, ports);
        })
      ),
  );
  registry.addCommand(
    registryCommand("login", "log this machine and the servers in to the remote registry")
      .addHelpText("after", "\nServers keep the login until logout or reboot; deploy needs none.")
      .action((options) =>
        run(options, async (ports) => {
          const { registryLogin } = await import("../commands/registry.ts");
          await registryLogin(options, ports);
        })
      ),
  );
  registry.addCommand(
    registryCommand("logout", "forget the login here and on the servers")
      .action((options) =>
        run(options, async (ports) => {
          const { registryLogout } = await import("../commands/registry.ts");
          await registryLogout(options, ports);
        })
      ),
  );
  registry.addCommand(
    registryCommand("remove", "delete layers kept on this machine, or log out of a remote one")
      .option("-y, --yes", "do not ask")
      .action((options) =>
        run(options, async (ports) => {
          const { registryRemove } = await import("../commands/registry.ts");
          await registryRemove(options, ports);
        })
      ),
  );
  return registry;
}
