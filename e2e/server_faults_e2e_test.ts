import { type Fault, onFaulty, tellFaults } from "./faults.ts";
import { STORY_ENGINE } from "./shop.ts";

/** Podman has no daemon that could restart. */
const ENGINE_FAULTS: readonly Fault[] = STORY_ENGINE === "docker"
  ? [
    {
      name: "the engine restarts",
      at: /^started s2 web: waiting until/,
      // The proxy of s2 is a container of that engine.
      unharmed: ["s1", "s3"],
      // It goes through when the new container is up again in time.
      codes: [0, 7, 8],
      says: /s2/,
      strike: onFaulty("systemctl", "restart", "docker"),
      mend: (shop) => shop.servesAgain("s2", 60_000),
    },
  ]
  : [];

const FAULTS: readonly Fault[] = [
  ...ENGINE_FAULTS,
  {
    name: "the server loses power",
    at: /^started s2 web: (starting|waiting until)/,
    unharmed: ["s1", "s3"],
    codes: [8],
    says: /s2/,
    strike: (shop) => shop.lab.kill("s2"),
    mend: async (shop) => {
      await shop.lab.boot("s2");
      await shop.servesAgain("s2", 90_000);
    },
  },
];

Deno.test("faults: the engine or the whole server goes away in the middle of a deploy", async (t) => {
  await tellFaults(t, "e2e-server-faults", FAULTS);
});
