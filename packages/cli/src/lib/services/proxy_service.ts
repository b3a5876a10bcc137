import {
  isOk,
  JijiError,
  parseCidr,
  parseProxyState,
  PROXY_CONTAINER,
  serverAddress,
  type ServerConfig,
} from "@jiji/core";
import { ENGINE_TIMEOUT_MS, PROXY_IMAGE, PULL_TIMEOUT_MS } from "../../constants.ts";
import type { DeployStep } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { commandError, mustRun, mustRunScript } from "../../utils/remote.ts";
import { argvPull, argvRemove, type EngineName } from "../engine/engine_commands.ts";
import { argvRemoveRoute, argvRunProxy, argvStopRoute } from "../engine/proxy_commands.ts";

/** kamal-proxy answers its own CLI within this after its container started, milliseconds. */
const PROXY_START_MS = 15_000;

/** kamal-proxy on one server: installs it, points routes, and never believes but its own listing. */
export class ProxyService {
  readonly #host: RemoteHost;
  readonly #config: ServerConfig;
  readonly #engine: EngineName;
  readonly #signal: AbortSignal;

  /** Nothing runs before the first call. */
  constructor(host: RemoteHost, config: ServerConfig, signal: AbortSignal) {
    this.#host = host;
    this.#config = config;
    this.#engine = config.engine;
    this.#signal = signal;
  }

  /**
   * Makes the proxy run; its routes come back from its volume.
   *
   * @throws {RemoteCommandError} when it does not start, e.g. because port 80 is taken.
   */
  async install(address: string): Promise<void> {
    const signal = this.#signal;
    const pull = argvPull(this.#engine, PROXY_IMAGE);
    const there = [this.#engine, "image", "inspect", "--format", "{{.Id}}", PROXY_IMAGE] as const;
    if (!isOk(await this.#host.run(there, { timeoutMs: ENGINE_TIMEOUT_MS, signal }))) {
      await mustRun(this.#host, pull, {
        what: `pulling ${PROXY_IMAGE} failed`,
        timeoutMs: PULL_TIMEOUT_MS,
        signal,
      });
    }
    await this.#host.run(argvRemove(this.#engine, PROXY_CONTAINER), {
      timeoutMs: ENGINE_TIMEOUT_MS,
      signal,
    });
    const argv = argvRunProxy({
      engine: this.#engine,
      address,
      dnsServer: serverAddress(parseCidr(this.#config.block)!),
    });
    const result = await this.#host.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS * 2, signal });
    if (!isOk(result)) {
      throw commandError(this.#host, argv, {
        what: "starting kamal-proxy failed",
        result,
        ...(/port is already allocated|address already in use/.test(result.stderr)
          ? { hint: `another program on ${this.#host.name} holds port 80 or 443: stop it` }
          : {}),
      });
    }
    await this.#awaitAnswer();
  }

  async #awaitAnswer(): Promise<void> {
    const script = `until "$1" exec ${PROXY_CONTAINER} kamal-proxy list >/dev/null 2>&1; do
  [ $(date +%s) -lt "$2" ] || exit 1; sleep 0.1; done`;
    const now = await mustRun(this.#host, ["date", "+%s"], {
      what: "reading the clock failed",
      timeoutMs: ENGINE_TIMEOUT_MS,
      signal: this.#signal,
    });
    await mustRunScript(this.#host, script, {
      args: [this.#engine, String(Number(now) + PROXY_START_MS / 1000)],
      what: "kamal-proxy does not answer",
      timeoutMs: PROXY_START_MS * 2,
      signal: this.#signal,
    });
  }

  /** Lets a route's requests in flight end and answers new ones with 503; a missing route is fine. */
  async drainRoute(name: string, drainTimeoutMs: number): Promise<void> {
    const argv = argvStopRoute(this.#engine, name, { drainTimeoutMs });
    const timeoutMs = drainTimeoutMs + ENGINE_TIMEOUT_MS;
    const result = await this.#host.run(argv, { timeoutMs, signal: this.#signal });
    if (isOk(result) || isWithoutRoute(result.stderr)) return;
    throw commandError(this.#host, argv, { what: `draining the route ${name} failed`, result });
  }

  /** Takes a route away; a route that is not there is what we wanted. */
  async removeRoute(name: string): Promise<void> {
    const argv = argvRemoveRoute(this.#engine, name);
    const options = { timeoutMs: ENGINE_TIMEOUT_MS, signal: this.#signal };
    const result = await this.#host.run(argv, options);
    if (isOk(result) || isWithoutRoute(result.stderr)) return;
    throw commandError(this.#host, argv, { what: `removing the route ${name} failed`, result });
  }
}

/**
 * What is wrong after a switch: the proxy's own listing counts, not what its command said. The
 * former targets serve on when it lists them.
 */
export function verifyRoute(
  host: RemoteHost,
  step: DeployStep & { kind: "routeProxy" },
  stateText: string,
): JijiError | undefined {
  const listed = parseProxyState(stateText)?.get(step.route.name) ?? [];
  const same = listed.length === step.targets.length &&
    step.targets.every((target) => listed.includes(target));
  if (same) return undefined;
  return new JijiError(
    `kamal-proxy on ${host.name} lists ${listed.join(", ") || "nothing"} for ` +
      `${step.route.name}, not ${step.targets.join(", ")}`,
  );
}

/** Words of kamal-proxy and of the engines when a route, or the whole proxy, is not there. */
function isWithoutRoute(stderr: string): boolean {
  return /service not found|no such container|no container with name or id|is not running|can only create exec sessions on running/i
    .test(stderr);
}
