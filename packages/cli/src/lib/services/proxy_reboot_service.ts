import {
  allocateContainerAddress,
  type Argv,
  ConnectionError,
  JijiError,
  parseCidr,
  PROXY_CONTAINER,
  proxyAddress,
  RemoteCommandError,
  serverAddress,
} from "@jiji/core";
import { PULL_TIMEOUT_MS } from "../../constants.ts";
import type { ObservedHost } from "../../types/deployment.ts";
import type {
  RemoteHost,
  RemoteStreamOptions,
  RemoteStreamResult,
} from "../../types/remote_host.ts";
import {
  PROXY_PREVIOUS,
  PROXY_STANDIN,
  type ProxyReboot,
  renderProxyRebootScript,
} from "../engine/proxy_reboot_script.ts";

/** Unit of a reboot under way: it goes on when its caller is gone, and there is but one. */
export const PROXY_REBOOT_UNIT = "jiji-proxy-reboot";

/** What to do about the proxy of a server; undefined when none is there. */
export function planProxyReboot(
  host: ObservedHost,
  options: { readonly drainTimeoutMs: number },
): ProxyReboot | undefined {
  const ours: readonly string[] = [PROXY_CONTAINER, PROXY_PREVIOUS, PROXY_STANDIN];
  if (!host.containers.some((container) => ours.includes(container.name))) return undefined;
  const block = parseCidr(host.config.block)!;
  const taken = host.containers.flatMap((container) => [
    container.address,
    container.labels?.address ?? "",
  ]);
  return {
    engine: host.config.engine,
    address: proxyAddress(block),
    dnsServer: serverAddress(block),
    standinAddress: allocateContainerAddress(block, new Set(taken.filter(Boolean))),
    block: host.config.block,
    drainSeconds: Math.max(1, Math.ceil(options.drainTimeoutMs / 1000)),
  };
}

/**
 * Runs the script on standard input in a unit of its own. Containers that it started outlive it,
 * also where the engine leaves them in the unit's control group. Source: systemd-run(1), `--pipe`;
 * systemd.kill(5), `KillMode=`.
 */
export function argvRebootUnit(): Argv {
  const unit = [`--unit=${PROXY_REBOOT_UNIT}`, "--property=KillMode=process"];
  const flags = ["--quiet", "--pipe", "--wait", "--collect", ...unit];
  return ["systemd-run", ...flags, "sh", "-s"];
}

/** A lost connection ends the watching, not the work. */
async function following(
  host: RemoteHost,
  argv: Argv,
  options: RemoteStreamOptions,
): Promise<RemoteStreamResult> {
  try {
    return await host.stream(argv, options);
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    throw new ConnectionError(error.message, {
      ...{ host: error.host, phase: error.phase, cause: error },
      serving: `the proxy of ${host.name}; its reboot goes on there by itself`,
      hint: `follow it there: journalctl -fu ${PROXY_REBOOT_UNIT}; or run this again`,
    });
  }
}

/** What a line of the script's output tells. */
export function parseRebootLine(
  line: string,
): { readonly kind: "step" | "failure"; readonly text: string } | undefined {
  if (line.startsWith("@@ ")) return { kind: "step", text: line.slice(3) };
  if (line.startsWith("@@fail ")) return { kind: "failure", text: line.slice(7) };
  return undefined;
}

/**
 * Replaces the proxy of a server while a stand-in serves. Ctrl-C and a lost connection do not stop
 * what runs there: it comes to its own end.
 *
 * @throws {RemoteCommandError} with what serves now.
 */
export async function rebootProxy(
  host: RemoteHost,
  reboot: ProxyReboot,
  onStep: (step: string) => void,
): Promise<void> {
  const argv = argvRebootUnit();
  let failure: string | undefined;
  let stderr = "";
  let rest = "";
  const { exitCode } = await following(host, argv, {
    stdin: renderProxyRebootScript(reboot),
    timeoutMs: PULL_TIMEOUT_MS + 2 * reboot.drainSeconds * 1000,
    onStdout: (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const parsed of lines.map(parseRebootLine)) {
        if (parsed?.kind === "step") onStep(parsed.text);
        else if (parsed) failure = parsed.text;
      }
    },
    onStderr: (text) => stderr = (stderr + text).slice(-4_000),
  });
  if (exitCode === 0) return;
  if (/already (loaded|exists)|was already/.test(stderr)) {
    throw new JijiError(`the proxy of ${host.name} is being rebooted already`, {
      hint: `follow it there: journalctl -fu ${PROXY_REBOOT_UNIT}`,
    });
  }
  throw new RemoteCommandError(
    `rebooting the proxy of ${host.name} failed: ${failure ?? "it ended early"}`,
    { host: host.address, argv, exitCode, stderrTail: stderr, durationMs: 0 },
    { hint: "mend what is named above and run jiji proxy reboot again: it tidies up first" },
  );
}
