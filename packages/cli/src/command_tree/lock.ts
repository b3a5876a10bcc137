import type { CommonOptions } from "../utils/command_helpers.ts";
import { clusterCommand, command, type OutputFlags, type Run } from "./base.ts";

/** `jiji lock …`. */
export function lockCommands(run: Run) {
  const lock = command("lock").description("locks of changing commands");
  lock.addCommand(
    clusterCommand("status", "who holds locks")
      .action((options: CommonOptions & OutputFlags) =>
        run(options, async (ports) => {
          const { lockStatus } = await import("../commands/lock.ts");
          await lockStatus(options, ports);
        })
      ),
  );
  lock.addCommand(
    clusterCommand("release", "end locks by force; those of dead commands end by themselves")
      .option("-y, --yes", "do not ask")
      .action((options) =>
        run(options, async (ports) => {
          const { lockRelease } = await import("../commands/lock.ts");
          await lockRelease(options, ports);
        })
      ),
  );
  return lock;
}
