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
    clusterCommand("acquire", "keep changing commands of this project away until it is released")
      .option("--reason <text>", "why, for those who meet it")
      .option("--for <time>", "it ends by itself after this long: 30m, 2h (default: 1h)")
      .action((options) =>
        run(options, async (ports) => {
          const { lockAcquire } = await import("../commands/lock.ts");
          await lockAcquire(options, ports);
        })
      ),
  );
  lock.addCommand(
    clusterCommand("release", "end locks; those of dead commands end by themselves")
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
