import { type Fault, onFaulty, tellFaults } from "./faults.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

const FAULTS: readonly Fault[] = [
  {
    name: "the SSH connection is cut while a container gets healthy",
    at: /^started s2 web: waiting until/,
    unharmed: SERVERS,
    codes: [8],
    says: /s2/,
    strike: onFaulty("iptables", "-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP"),
    mend: onFaulty("iptables", "-D", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP"),
  },
];

Deno.test("faults: a connection that dies without a word in the middle of a deploy", async (t) => {
  await tellFaults(t, "e2e-connection", FAULTS);
});
