/**
 * kamal-proxy lets requests through only to a target that answered its own HTTP check. For a
 * container whose check is a connection, a command or the engine's word, jiji-daemon gives that
 * answer in the container's network while the route is set: it has made the real check before.
 * Source: kamal-proxy 0.9.2, `load_balancer.go`; `--force` only skips waiting for the answer.
 */
import { isVouched, SERVER_PATHS, VOUCH_PORT } from "@jiji/core/cluster";
import { type Argv, isOk, JijiError, type Process } from "@jiji/core/runtime";
import { argvInspect, argvListIds, type Engine } from "./engine/argv.ts";
import { type ObservedContainer, parseIds, parseInspected } from "./engine/containers.ts";

/** What a voucher prints once it answers. */
export const VOUCHER_READY = "ready";
/** A voucher that is not up after this long will not come, milliseconds. */
const READY_TIMEOUT_MS = 10_000;

/** Ports of {@link vouchFor}. */
export interface VouchPorts {
  readonly engine: Engine;
  readonly process: Process;
  /** A voucher ends by itself after this long, whatever became of who started it, milliseconds. */
  readonly timeoutMs: number;
}

/** Runs this program as a voucher in the network of a process. Source: nsenter(1). */
export function argvVoucher(pid: number, timeoutMs: number): Argv {
  return [
    "nsenter",
    `--net=/proc/${pid}/ns/net`,
    `${SERVER_PATHS.bin}/jiji-daemon`,
    "voucher",
    "--timeout-ms",
    String(timeoutMs),
  ];
}

/**
 * Process ids of the running containers at these targets (`ip:port`), each once.
 *
 * @throws {JijiError} when no container runs at one of them.
 */
export function pidsOfTargets(
  targets: readonly string[],
  containers: readonly ObservedContainer[],
): number[] {
  const pids = targets.map((target) => {
    const ip = target.split(":")[0];
    const found = containers.find((one) => one.running && one.ip === ip && one.pid !== undefined);
    if (found?.pid === undefined) throw new JijiError(`no container runs at ${target}`);
    return found.pid;
  });
  return [...new Set(pids)];
}

/**
 * Does `work` while the containers at `targets` answer kamal-proxy's check.
 *
 * @throws {JijiError} when one of them can't be vouched for; then no work is done.
 */
export async function vouchFor<T>(
  targets: readonly string[],
  ports: VouchPorts,
  work: () => Promise<T>,
): Promise<T> {
  return await vouchInside(pidsOfTargets(targets, await observe(ports)), ports, work);
}

/**
 * Does `work` while every container answers kamal-proxy's check that can't answer it by itself: a
 * proxy that starts meanwhile finds all of them healthy.
 *
 * @throws {JijiError} when one of them can't be vouched for; then no work is done.
 */
export async function vouchForAll<T>(ports: VouchPorts, work: () => Promise<T>): Promise<T> {
  return await vouchInside(vouchedPids(await observe(ports)), ports, work);
}

/** Process ids of the running containers that a vouched route may lead to. */
export function vouchedPids(containers: readonly ObservedContainer[]): number[] {
  return containers.flatMap(({ labels, running, pid }) =>
    running && pid !== undefined && labels?.proxy.some(isVouched) ? [pid] : []
  );
}

async function observe({ engine, process }: VouchPorts): Promise<ObservedContainer[]> {
  const ids = await process.run(argvListIds(engine), { timeoutMs: READY_TIMEOUT_MS });
  const names = isOk(ids) ? parseIds(ids.stdout) : [];
  if (names.length === 0) return [];
  const seen = await process.run(argvInspect(engine, names), { timeoutMs: READY_TIMEOUT_MS });
  return isOk(seen) ? parseInspected(seen.stdout) : [];
}

async function vouchInside<T>(
  pids: readonly number[],
  ports: VouchPorts,
  work: () => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const vouchers = pids.map((pid) => startVoucher(pid, ports, stop.signal));
  try {
    await Promise.all(vouchers.map((voucher) => voucher.ready));
    return await work();
  } finally {
    stop.abort();
    await Promise.all(vouchers.map((voucher) => voucher.ended));
  }
}

interface Voucher {
  readonly ready: Promise<void>;
  /** Never rejects. */
  readonly ended: Promise<void>;
}

function startVoucher(pid: number, ports: VouchPorts, stop: AbortSignal): Voucher {
  const ready = Promise.withResolvers<void>();
  const late = setTimeout(
    () => ready.reject(new JijiError(`no voucher in the network of process ${pid}: no answer`)),
    READY_TIMEOUT_MS,
  );
  const ended = (async () => {
    try {
      const argv = argvVoucher(pid, ports.timeoutMs);
      for await (const line of ports.process.lines(argv, { signal: stop })) {
        if (line === VOUCHER_READY) ready.resolve();
      }
      ready.reject(new JijiError(`no voucher in the network of process ${pid}: it ended at once`));
    } catch (error) {
      ready.reject(error);
    } finally {
      clearTimeout(late);
    }
  })();
  ready.promise.catch(() => undefined);
  return { ready: ready.promise, ended };
}

/** Answers every request on {@link VOUCH_PORT} with 200 until the time is over. */
export async function serveVoucher(timeoutMs: number, onReady: () => void): Promise<void> {
  const server = Deno.serve({
    hostname: "0.0.0.0",
    port: VOUCH_PORT,
    signal: AbortSignal.timeout(timeoutMs),
    onListen: onReady,
  }, () => new Response("ok\n"));
  await server.finished;
}
