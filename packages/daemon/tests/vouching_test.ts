import assert from "node:assert/strict";
import { VOUCH_PORT, VOUCHED_FLAGS } from "@jiji/core/cluster";
import { FakeProcess } from "@jiji/core/testing";
import { argvVoucher, pidsOfTargets, serveVoucher, vouchFor } from "../src/vouching.ts";
import { container, inspected } from "./builders.ts";

const CONTAINERS = [
  container(1, { pid: 101, ip: "10.210.1.3" }),
  container(2, { pid: 102, ip: "10.210.1.4" }),
  container(3, { pid: undefined, ip: "10.210.1.5", running: false }),
];

Deno.test("pidsOfTargets(): each container's process once, whatever its ports", () => {
  const targets = ["10.210.1.4:80", "10.210.1.3:80", "10.210.1.4:81"];
  assert.deepEqual(pidsOfTargets(targets, CONTAINERS), [102, 101]);
});

Deno.test("pidsOfTargets(): a target where nothing runs is named", () => {
  for (const target of ["10.210.1.5:80", "10.210.1.9:80", ""]) {
    assert.throws(() => pidsOfTargets([target], CONTAINERS), /no container runs at/);
  }
});

Deno.test("argvVoucher(): this program, in the network of the container alone", () => {
  assert.deepEqual(argvVoucher(101, 5_000), [
    "nsenter",
    "--net=/proc/101/ns/net",
    "/opt/jiji/bin/jiji-daemon",
    "voucher",
    "--timeout-ms",
    "5000",
  ]);
});

/** A server with one running container, and vouchers that say this. */
function server(lines: AsyncIterable<string>): FakeProcess {
  const one = inspected(CONTAINERS[0]!);
  const raw = { ...one, State: { ...one.State, Pid: 101 } };
  return new FakeProcess()
    .on("docker ps", `${CONTAINERS[0]!.id}\n`)
    .on("docker inspect", JSON.stringify([raw]))
    .onLines("nsenter", lines);
}

const ports = (process: FakeProcess) => ({ engine: "docker", process, timeoutMs: 5_000 }) as const;

Deno.test("vouchFor(): the work is done once every voucher answers", async () => {
  const order: string[] = [];
  async function* lines() {
    order.push("asked");
    yield await Promise.resolve("ready");
    order.push("ended");
  }
  const process = server(lines());
  const result = await vouchFor(["10.210.1.3:80"], ports(process), () => {
    order.push("work");
    return Promise.resolve(7);
  });
  assert.equal(result, 7);
  assert.equal(order[0], "asked");
  assert.ok(order.includes("work"));
  assert.equal(process.commands("nsenter").length, 1);
});

Deno.test("vouchFor(): without a voucher no work is done", async () => {
  async function* lines() {
    yield await Promise.resolve("nsenter: cannot open /proc/101/ns/net");
  }
  let worked = false;
  await assert.rejects(
    vouchFor(["10.210.1.3:80"], ports(server(lines())), () => {
      worked = true;
      return Promise.resolve();
    }),
    /no voucher/,
  );
  assert.equal(worked, false);
});

Deno.test("vouchFor(): a failure of the work is told as it is", async () => {
  async function* lines() {
    yield await Promise.resolve("ready");
  }
  const work = () => Promise.reject(new Error("the proxy is gone"));
  await assert.rejects(
    vouchFor(["10.210.1.3:80"], ports(server(lines())), work),
    /the proxy is gone/,
  );
});

Deno.test("serveVoucher(): answers kamal-proxy's check with 200 and ends in time", async () => {
  const ready = Promise.withResolvers<void>();
  const served = serveVoucher(1_500, ready.resolve);
  await ready.promise;
  const answer = await fetch(`http://127.0.0.1:${VOUCH_PORT}/up`);
  assert.equal(answer.status, 200);
  await answer.body?.cancel();
  await served;
  assert.ok(VOUCHED_FLAGS.includes(`--health-check-port=${VOUCH_PORT}`));
});
