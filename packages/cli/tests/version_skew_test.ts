import assert from "node:assert/strict";
import { parseObservation } from "../src/lib/deployment/deployment_observation.ts";
import { findVersionSkew, renderSkewWarning } from "../src/lib/deployment/version_skew.ts";
import { MockCluster } from "./mock_server_state.ts";

const CONFIG = btoa(JSON.stringify(new MockCluster(["s1"]).server("s1").config));

const observed = (name: string, line: string) =>
  parseObservation(name, `@config ${CONFIG}\n${line}\n`);

Deno.test("findVersionSkew(): servers of another version; silence is no difference", () => {
  const equal = observed("s1", "@version 0.2.0");
  assert.equal(findVersionSkew("0.2.0", [equal, observed("s2", "@machine x86_64")]), null);
  assert.equal(findVersionSkew("0.2.0", [observed("s1", "@version \u001b[2Jlatest")]), null);
  const skew = findVersionSkew("0.2.0", [observed("s3", "@version 0.1.9"), equal]);
  assert.deepEqual(skew, { here: "0.2.0", servers: { s3: "0.1.9" } });
});

Deno.test("renderSkewWarning(): one line with the way on, which depends on who is newer", () => {
  const warn = (servers: Record<string, string>) => renderSkewWarning({ here: "0.2.0", servers });
  assert.equal(
    warn({ s1: "0.1.9", s2: "0.1.9" }),
    "versions of jiji differ: 0.2.0 here, 0.1.9 on s1, 0.1.9 on s2; make them equal with: " +
      "jiji server init",
  );
  assert.equal(
    warn({ s1: "0.1.9", s2: "0.10.0" }),
    "versions of jiji differ: 0.2.0 here, 0.1.9 on s1, 0.10.0 on s2; update jiji here, then run " +
      "jiji server init",
  );
});
