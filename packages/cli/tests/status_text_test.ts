import assert from "node:assert/strict";
import {
  isAllLinked,
  linkProblems,
  renderLinks,
  renderServers,
  renderTold,
} from "../src/lib/network/status_text.ts";
import type { LinkView, ServerView, StatusView } from "../src/lib/network/status_view.ts";

const DOT = { dot: "·" };

function viewOf(
  count: number,
  linkOf: (from: number, to: number) => Partial<LinkView> = () => ({}),
  facts: Partial<ServerView> = {},
): StatusView {
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return {
    servers: numbers.map((from) => ({
      name: `s${from}`,
      address: `203.0.113.${10 + from}`,
      state: "member",
      block: `10.210.${from}.0/24`,
      containers: 12,
      nat: null,
      version: "1.0.0",
      seen: "now",
      links: Object.fromEntries(
        numbers.filter((to) => to !== from).map((to) => [`s${to}`, {
          linked: true,
          daemonless: false,
          rttMs: from + to / 10,
          endpoint: `203.0.113.${10 + to}:31820`,
          handshakeAgeSeconds: 100 + to,
          loss: 0,
          mtu: 1440,
          psk: true,
          ...linkOf(from, to),
        }]),
      ),
      ...facts,
    })),
  };
}

Deno.test("network status: three servers fit 80 columns, every link with its facts", async (t) => {
  const view = viewOf(3, (from, to) => from === 1 && to === 3 ? { linked: false, loss: 0.5 } : {});
  const lines = [...renderServers(view, DOT), "", ...renderLinks(view)];
  assert.ok(lines.every((line) => line.length <= 80), lines.join("\n"));
  await t.assertSnapshot(lines.join("\n"));
  assert.equal(isAllLinked(view), false);
  assert.equal(isAllLinked(viewOf(3)), true);
});

Deno.test("network status: thirty servers are a line each; only links that need a look are shown", async (t) => {
  const view = viewOf(30, (from, to) => {
    if (from === 7 && to === 9) return { linked: false, rttMs: null, loss: 1 };
    return from === 8 && to === 2 ? { loss: 0.125 } : from === 9 && to === 1 ? { psk: false } : {};
  });
  const servers = renderServers(view, DOT);
  assert.equal(servers.length, 31);
  const lines = [...servers.slice(0, 10), "", ...renderLinks(view)];
  assert.ok(lines.every((line) => line.length <= 80), lines.join("\n"));
  await t.assertSnapshot(lines.join("\n"));
  assert.deepEqual(renderLinks(viewOf(30)), []);
});

Deno.test("network status: of hundreds of bad links the first are shown, and how many more", () => {
  const lines = renderLinks(viewOf(30, () => ({ linked: false })));
  assert.equal(lines.length, 22);
  assert.match(lines.at(-1)!, /850 more links/);
});

Deno.test("network status: a server whose daemon is gone is linked, and said to have none", () => {
  const view = viewOf(3, (_from, to) => to === 3 ? { daemonless: true, rttMs: null, loss: 1 } : {});
  assert.equal(renderServers(view, DOT)[1]?.match(/daemon\?/g)?.length, 1);
  const lines = [...renderServers(view, DOT), ...renderLinks(view)];
  assert.ok(lines.every((line) => line.length <= 80), lines.join("\n"));
  assert.equal(renderLinks(view).filter((line) => line.includes("daemon?")).length, 2);
  assert.deepEqual(linkProblems(view), []);
});

Deno.test("linkProblems(): two behind NAT without a link, told once", () => {
  const cut = (from: number, to: number) => from + to === 3 ? { linked: false } : {};
  const found = linkProblems(viewOf(3, cut, { nat: true }));
  assert.equal(found.length, 1);
  assert.match(found[0]!, /s1 and s2 are both behind NAT/);
});

Deno.test("linkProblems(): a pair without a link that reaches others, also when no NAT is known", () => {
  const cut = (from: number, to: number) => from + to === 3 ? { linked: false } : {};
  const found = linkProblems(viewOf(3, cut));
  assert.equal(found.length, 1);
  assert.match(found[0]!, /^s1 and s2: no link, though .* forward it to one, jiji has no relay$/);
  const alone = (from: number, to: number) => ({ linked: from !== 1 && to !== 1 });
  assert.deepEqual(
    linkProblems(viewOf(3, alone)),
    [],
    "a server that is off or cut off is told so",
  );
  const halves = (from: number, to: number) => ({ linked: from < 6 === to < 6 });
  assert.match(linkProblems(viewOf(10, halves))[0]!, /^s1 and s6, s1 and s7, s1 and s8, 22 more: /);
});

Deno.test("network status: what is not known is no number", () => {
  const unknown = { rttMs: null, loss: null, mtu: null, psk: null, handshakeAgeSeconds: null };
  const text = [
    ...renderServers(viewOf(2, () => unknown), DOT),
    ...renderLinks(viewOf(2, () => unknown)),
  ]
    .join("\n");
  assert.doesNotMatch(text, /NaN|null|undefined|Infinity/);
});

Deno.test("isAllLinked(): servers that were not asked are judged by those that were", () => {
  const view = viewOf(2);
  const [s1, s2] = view.servers;
  const unasked = { ...s2!, state: "not asked" as const, links: {} };
  assert.equal(isAllLinked({ servers: [s1!, unasked] }), true);
  assert.equal(isAllLinked({ servers: [s1!, { ...unasked, state: "unreachable" }] }), false);
});

Deno.test("renderTold(): what several servers say alike is said once", () => {
  const told = new Map([["s2", ["disk is full", "cut off"]], ["s1", ["disk is full"]]]);
  assert.deepEqual(renderTold(told), ["s1 s2: disk is full", "s2: cut off"]);
});
