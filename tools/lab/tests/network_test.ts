import assert from "node:assert/strict";
import { renderCuts, renderPartyBatch, renderPlugBatch, renderSwitchBatch } from "../network.ts";

Deno.test("renderCuts(): replaces all rules in one step, also when there are none", () => {
  const text = renderCuts([]);
  assert.match(text, /^table bridge lab \{\}\ndelete table bridge lab\n/);
  assert.doesNotMatch(text, /drop/);
});

Deno.test("renderCuts(): a cut between two drops both ways and leaves others alone", () => {
  const text = renderCuts([{ from: "s1", to: "s2" }]);
  assert.match(text, /iifname "s1" oifname "s2" drop/);
  assert.match(text, /iifname "s2" oifname "s1" drop/);
  assert.equal(text.match(/drop/g)?.length, 2);
});

Deno.test("renderCuts(): a cut from everyone takes the hub away as well", () => {
  const text = renderCuts([{ from: "s1", to: "*" }]);
  const chain = (name: string) => text.split(`chain cuts_${name} {`)[1]?.split("}")[0] ?? "";
  assert.match(chain("forward"), /iifname "s1" drop/);
  assert.match(chain("forward"), /oifname "s1" drop/);
  assert.match(chain("input"), /iifname "s1" drop/);
  assert.match(chain("output"), /oifname "s1" drop/);
});

Deno.test("renderPartyBatch(): gives an address and no route that leads out", () => {
  const text = renderPartyBatch("203.0.113.11");
  assert.match(text, /addr add 203\.0\.113\.11\/24 dev eth0/);
  assert.doesNotMatch(text, /route|default/);
});

Deno.test("renderPlugBatch(): keeps a party's hardware address over its boots", () => {
  const options = { namespace: "jiji.x.s1", hardwareAddress: "02:1a:b0:00:71:0b" };
  assert.match(renderPlugBatch("s1", options), /eth0 address 02:1a:b0:00:71:0b netns jiji\.x\.s1/);
  assert.match(renderSwitchBatch(), /link add lab0 address/);
});
